"""A data set in a CSV or TSV file, plain or gzipped: one example a row, one column of labels."""

import array
import csv
import gzip
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tljax.data.error import DataError
from tljax.data.files import Inputs, Raw, reading
from tljax.tree.paths import nearest, quoted

LABELS = ("label", "y", "target", "class", "labels", "targets", "classes")


def is_table(path: Path) -> bool:
    """Whether the name ends as tables do.

    >>> [is_table(Path(name)) for name in ("a.csv", "a.tsv.gz", "a.gz")]
    [True, True, False]
    """
    return path.name.lower().removesuffix(".gz").endswith((".csv", ".tsv"))


def read_table(path: Path, label: str | int | None = None, features: Sequence[str] = ()) -> Raw:
    """The rows of a table: numeric features `[N, D]` and the column of labels.

    A header is recognised by cells that are no numbers above cells that are. The labels are in column `label` (a name,
    or a number counted from 0, or from the end if negative), else in the one called label, y, target or class, else in
    the last. Cells are separated by tabs in a `.tsv`, else by the most frequent of `,` `;` tab in the first row.

    With `features` a header's columns of these names are read, in this order; the labels may then be in the only other
    column.

    Raises:
      DataError: the file is damaged or empty, a row has more or fewer cells than the first, or a feature is no number
        (line and column are named).
    """
    with reading(path, "table"):
        header, width, rows = _opened(path, label)
        index = _unnamed(header)
        at = _label_column(header, width, label, path)
        kept = [i for i in range(width) if i not in (at, index)]
        if features and header:
            kept = columns_called(features, [name.strip() for name in header], f"'{path}'")
            others = [i for i in range(width) if i not in (*kept, index)]
            at = others[0] if label is None and at in kept and len(others) == 1 else at
        if not kept:
            raise DataError(f"'{path}' has no features beside its labels; its first line is {next(rows)[1][:5]}")
        if at in kept:
            raise DataError(f"'{path}' has no labels beside the features asked for: {quoted(features[:8])}")
        x, labels = _columns(rows, kept, at, header, width, path)
    y = np.array(labels)
    if all(map(_is_number, labels)):
        y = y.astype(np.float64)
    names = tuple(header[i].strip() for i in kept) if header else ()
    notes = [f"labels from column {header[at] if header else at!r}"]
    if features:
        notes += _notes(header, kept, at)
    elif index is not None:
        notes.append("the first column, which has no name, was left out")
    return Raw({"train": x}, {"train": y}, notes=tuple(notes), features=names)


def _notes(header: list[str] | None, kept: list[int], at: int | None) -> list[str]:
    """What was done to have the columns that were asked for."""
    if not header:
        return ["its columns have no names and were taken in their order"]
    left = [name.strip() or "the one without a name" for i, name in enumerate(header) if i not in (*kept, at)]
    moved = ["columns were brought to the order asked for"] if kept != sorted(kept) else []
    return moved + ([f"columns that were left out: {quoted(left[:8])}"] if left else [])


def read_table_inputs(path: Path, features: Sequence[str] = ()) -> Inputs:
    """The rows of a table that needs no labels.

    With a header they are the columns called `features`, in that order, or without `features` all but those that are
    called as labels; without a header they are all columns.

    Raises:
      DataError: as `read_table`, or it lacks some of `features`.
    """
    with reading(path, "table"):
        header, width, rows = _opened(path, features[0] if features else None)
        names = [name.strip() for name in header] if header else []
        if features and names:
            kept = columns_called(features, names, f"'{path}'")
        else:
            labels = [i for i, name in enumerate(names) if name.lower() in LABELS]
            kept = [i for i in range(width) if i not in (*labels, _unnamed(header))]
        if not kept:
            raise DataError(f"'{path}' has no features")
        x, _ = _columns(rows, kept, None, header, width, path)
    notes = _notes(header, kept, None) if features or header else ()
    return Inputs(x, tuple(f"row {i + 1}" for i in range(len(x))), tuple(notes))


def columns_called(wanted: Sequence[str], names: Sequence[str], where: str) -> list[int]:
    """The positions in `names` of the columns that are `wanted`, in that order.

    Raises:
      DataError: some are not there, or it is not clear which is which, as several have one name.

    >>> columns_called(("b", "a"), ("id", "a", "b"), "table")
    [2, 1]
    """
    lacking = [name for name in wanted if name not in names]
    if lacking:
        raise DataError(f"{where} lacks the columns {quoted(lacking[:5])}; it has {quoted(names[:12])}")
    there = [i for i, name in enumerate(names) if name in wanted]
    if [names[i] for i in there] == list(wanted):
        return there
    for columns, whose in ((names, where), (wanted, "the source")):
        twice = [name for name in wanted if columns.count(name) > 1]
        if twice:
            raise DataError(f"columns go by name, and {whose} has several called {twice[0]!r}")
    return [names.index(name) for name in wanted]


Row = tuple[int, list[str]]
"""The number of its line in the file, from 1, and its cells."""


def _opened(path: Path, label: str | int | None) -> tuple[list[str] | None, int, Iterator[Row]]:
    """The header, where there is one, the number of columns, and the rows below."""
    rows = _rows(path)
    first, second = next(rows, None), next(rows, None)
    if first is None:
        raise DataError(f"'{path}' is empty")
    header = first[1] if _is_header(first[1], second[1] if second else [], label) else None
    body = [row for row in ([] if header else [first]) + [second] if row]
    if not body:
        raise DataError(f"'{path}' has a header and no rows")
    return header, len(first[1]), itertools.chain(body, rows)


def _unnamed(header: list[str] | None) -> int | None:
    """The first column, if it has no name: that of a data frame holds the numbers of the rows, which tell nothing."""
    return 0 if header and header[0].strip() == "" else None


def _rows(path: Path) -> Iterator[Row]:
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        start = file.readline()
        file.seek(0)
        name = path.name.lower().removesuffix(".gz")
        reader = csv.reader(file, delimiter="\t" if name.endswith(".tsv") else max(",;\t", key=start.count))
        for cells in reader:
            if cells:
                yield reader.line_num, cells


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_header(first: Sequence[str], second: Sequence[str], label: str | int | None) -> bool:
    numbers = [cell for cell in first if _is_number(cell)]
    if not numbers or (isinstance(label, str) and label in first):
        return True
    if any(not _is_number(a) and _is_number(b) for a, b in zip(first, second)):
        return True
    # A data frame's numbered columns, with a named one for labels that are text.
    named = any(cell.strip().lower() in LABELS for cell in first)
    return named and numbers == [str(i) for i in range(len(numbers))]


def _label_column(header: list[str] | None, width: int, label: str | int | None, path: Path) -> int:
    names = [name.strip() for name in header] if header else []
    if isinstance(label, str) and label in names:
        return names.index(label)
    if label is None:
        lower = [name.lower() for name in names]
        return next((lower.index(name) for name in LABELS if name in lower), width - 1)
    try:
        number = int(label)
    except ValueError:
        near = quoted(nearest(str(label), names) or names[:5])
        has = f"the nearest of its {width} columns: {near}" if header else "it has no header; give a number"
        raise DataError(f"'{path}' has no column {label!r}; {has}") from None
    if not -width <= number < width:
        raise DataError(f"'{path}' has {width} columns; there is no column {number}")
    return number % width


def _columns(
    rows: Iterator[Row], kept: list[int], at: int | None, header: list[str] | None, width: int, path: Path
) -> tuple[np.ndarray, list[str]]:
    """Features `[N, D]` float32 and the cells `[N]` of the column of labels, where there is one."""
    values, labels = array.array("f"), []
    for line, cells in rows:
        if len(cells) != width:
            raise DataError(f"'{path}': line {line} has {len(cells)} cells, the first has {width}")
        if at is not None and not cells[at].strip():
            raise DataError(f"'{path}': line {line} has no label in column {header[at] if header else at!r}")
        try:
            row = [float(cells[i]) for i in kept]
            if not math.isfinite(sum(row)) and not all(map(math.isfinite, row)):
                raise ValueError
            values.extend(row)
        except ValueError:
            column = next(i for i in kept if not (_is_number(cells[i]) and math.isfinite(float(cells[i]))))
            raise DataError(
                f"'{path}': line {line}, column {header[column] if header else column!r} is {cells[column]!r}; "
                f"features must be numbers: {_remedy(cells[column])}"
            ) from None
        labels.append("" if at is None else cells[at].strip())
    return np.frombuffer(values, np.float32).reshape(len(labels), len(kept)), labels


def _remedy(cell: str) -> str:
    if len(cell.split()) > 2:
        return "sentences are read with a text model's tokenizer, by load_text or where --weights names such a model"
    return "fill, encode or drop it"
