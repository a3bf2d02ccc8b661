"""Tables of sentences: TSV and CSV files, plain or gzipped."""

import csv
import gzip
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from tljax.data.error import DataError
from tljax.data.files import missing, reading
from tljax.data.table import LABELS, is_table
from tljax.tree.paths import nearest, quoted

_SENTENCES = ("sentence", "text", "review", "content", "question", "utterance")


class Sentences(NamedTuple):
    """Sentences and what they are labelled."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]


def read_sentences(path: str | os.PathLike[str], *, label: str | None = None, text: str | None = None) -> Sentences:
    """The sentences of a TSV or CSV file, plain or gzipped: label and sentence a line, ``label<TAB>sentence``.

    A first line with names, such as ``sentence<TAB>label``, says which column is which; further columns are left out.
    In a TSV quotation marks are part of a sentence, in a CSV they enclose cells.

    Args:
      path: the file; what does not end in ``.csv`` or ``.csv.gz`` is read as TSV.
      label, text: the names of the two columns, where they are none of the usual ones.

    Raises:
      DataError: there is no such file, it is damaged or empty, it lacks a column that was named, or a line has no label
        or no sentence (it is named).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "reviews.tsv")
    ...     _ = file.write_text("1\\ta joy\\n0\\tdull\\n")
    ...     read_sentences(file)
    Sentences(texts=('a joy', 'dull'), labels=('1', '0'))
    """
    path = _file(path)
    with reading(path, "table of sentences"):
        lines = _lines(path)
        columns, at = 2, (0, 1)
        if lines and (named := _header(lines[0][1], (label, text), path)):
            columns, at = len(lines[0][1]), named
            lines = lines[1:]
        labels, texts = _cells(path, lines, columns, dict(zip(("label", "sentence"), at)), _form(path))
    return Sentences(texts, labels)


class Texts(NamedTuple):
    """Sentences without labels."""

    texts: tuple[str, ...]
    note: str
    """Where they stood, for a person."""


def read_texts(path: str | os.PathLike[str], *, text: str | None = None) -> Texts:
    """The sentences alone: of a file as for `read_sentences`, or one a line, under a name or none.

    Without names in the first line they are the last of two columns, as of ``label<TAB>sentence``.

    Raises:
      DataError: as `read_sentences` does, or of several columns none is named as that of the sentences.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "reviews.csv")
    ...     _ = file.write_text("id,text\\n7,a joy\\n")
    ...     read_texts(file)
    Texts(texts=('a joy',), note="sentences from column 'text'")
    """
    path = _file(path)
    with reading(path, "table of sentences"):
        lines = _lines(path)
        first = lines[0][1] if lines else [""]
        at = _text_column(first, text, path)
        note = f"sentences from column {first[at].strip()!r}" if at is not None else "one sentence a line"
        if at is None and len(first) > 1:
            note = "sentences from the second column, as no column is named"
        kept = lines if at is None else lines[1:]
        where = {"sentence": len(first) - 1 if at is None else at}
        (texts,) = _cells(path, kept, len(first), where, "as in the first line")
    return Texts(texts, note)


def _text_column(first: Sequence[str], text: str | None, path: Path) -> int | None:
    """Where a first line names the sentences, or of two columns the labels; None for a line that names none."""
    if len(first) == 1:
        return 0 if first[0].strip().lower() in (*_SENTENCES, (text or "text").lower()) else None
    found = _column(first, text, _SENTENCES, path)
    if found is None and len(first) == 2:
        label = _column(first, None, LABELS, path)
        return None if label is None else 1 - label
    if found is None:
        raise DataError(f"'{path}' has {len(first)} columns: {quoted(first[:5])}; say which has the sentences: text=")
    return found


def _file(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if not path.is_file():
        raise DataError(f"'{path}' is a folder; expected a TSV or CSV file") if path.is_dir() else missing(path)
    return path


def _cells(
    path: Path, lines: Sequence[tuple[int, list[str]]], columns: int, at: Mapping[str, int], form: str
) -> list[tuple[str, ...]]:
    """The columns `at` some positions, by what they hold, without spaces around."""
    if not lines:
        raise DataError(f"'{path}' has no sentences")
    for number, cells in lines:
        if len(cells) != columns:
            raise DataError(f"'{path}': line {number} has {len(cells)} cells; expected {columns}, {form}")
        for what, i in at.items():
            if not cells[i].strip():
                raise DataError(f"'{path}': line {number} has no {what}")
    return [tuple(cells[i].strip() for _, cells in lines) for i in at.values()]


def _is_csv(path: Path) -> bool:
    return is_table(path) and ".csv" in path.suffixes[-2:]


def _form(path: Path) -> str:
    return "label,sentence" if _is_csv(path) else "label<TAB>sentence"


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    newline = "" if _is_csv(path) else "\n"
    with opened(path, "rt", encoding="utf-8-sig", newline=newline) as file:
        rows = _csv_rows(file) if _is_csv(path) else _tsv_rows(file)
        return [(number, cells) for number, cells in rows if any(cell.strip() for cell in cells)]


def _csv_rows(file: IO[str]) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(file, strict=True)
    for cells in reader:
        yield reader.line_num, cells


def _tsv_rows(file: IO[str]) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(file, 1):
        yield number, line.rstrip("\r\n").split("\t")


def _header(cells: Sequence[str], asked: tuple[str | None, str | None], path: Path) -> tuple[int, int] | None:
    """Where a first line that names the columns has label and sentence; None for a line that names none."""
    label, text = (_column(cells, wanted, usual, path) for wanted, usual in zip(asked, (LABELS, _SENTENCES)))
    if len(cells) == 2 and any(asked):  # the column that is not named is the other
        label, text = (1 - text if label is None else label), (1 - label if text is None else text)  # type: ignore[operator]
    return None if label is None or text is None else (label, text)


def _column(cells: Sequence[str], wanted: str | None, usual: Sequence[str], path: Path) -> int | None:
    """Where a first line has the name `wanted`, or a usual one; None where it has none."""
    names = [cell.strip().lower() for cell in cells]
    if wanted is not None and wanted.lower() not in names:
        near = quoted(nearest(wanted, [cell.strip() for cell in cells]) or cells[:5])
        raise DataError(f"'{path}' has no column {wanted!r}; the nearest in its first line: {near}")
    known = usual if wanted is None else (wanted.lower(),)
    return next((i for i, name in enumerate(names) if name in known), None)
