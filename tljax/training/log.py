"""What a run tells while it works: JSON lines for programs, a progress bar for people."""

import json
import math
import pathlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tljax.checkpoints.run import RunError, write_atomically

Row = dict[str, Any]
Tell = Callable[[int, float, Mapping[str, float]], None]

LINE_SECONDS = 5.0
"""How often a line of progress is written where there is no terminal."""


class Log:
    """The history of a run: rows such as `{"step": 100, "split": "train", "loss": 0.3}`, in memory and in a file.

    The file holds only what a repetition would give again bit for bit, so timings are kept out of it. After a kill,
    rows beyond the checkpoint that the run resumes from are dropped: they come again.

    >>> log = Log(None, [lambda row: print(row["loss"])])
    >>> log.add({"step": 100, "split": "train", "loss": 0.3})
    0.3
    """

    def __init__(self, file: pathlib.Path | None, listeners: Sequence[Callable[[Row], None]] = ()):
        self.rows: list[Row] = []
        self._file, self._listeners = file, listeners

    def rewind(self, step: int, expected: int = 0) -> None:
        """Forget what lies beyond `step`, in the file too; warns where not `expected` rows are left."""
        if self._file is None:
            return
        self.rows = [row for row in read_rows(self._file) if row["step"] <= step]
        if len(self.rows) != expected:
            warnings.warn(
                f"{self._file} is damaged: it should have {expected} rows up to step {step} and has {len(self.rows)}; "
                "the history has a gap, the run itself is whole",
                stacklevel=2,
            )
        write_atomically(self._file, "".join(map(_line, self.rows)))

    def add(self, row: Row) -> None:
        """Append `row` and show it to the listeners."""
        row = {name: math.nan if _is_odd(value) else value for name, value in row.items()}
        self.rows.append(row)
        if self._file is not None:
            try:
                with self._file.open("a", encoding="utf-8") as out:
                    out.write(_line(row))
            except OSError as error:
                raise RunError(f"{self._file} could not be written: {error.strerror or error}") from error
        for listener in self._listeners:
            listener(row)


def read_rows(file: pathlib.Path) -> list[Row]:
    """The rows of a run's log; what is no row, such as a last line cut short by a kill, is left out.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder) / "metrics.jsonl"
    ...     _ = file.write_text('{"step": 1, "split": "train", "loss": 0.5}\\n{"step": 2, "sp')
    ...     read_rows(file)
    [{'step': 1, 'split': 'train', 'loss': 0.5}]
    """
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return [row for row in map(_parsed, lines) if row is not None]


def _parsed(line: str) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        return None
    return {name: math.nan if value is None else value for name, value in row.items()}


def _line(row: Row) -> str:
    """JSON has no NaN: null stands for it."""
    return json.dumps({name: None if _is_odd(value) else value for name, value in row.items()}) + "\n"


def _is_odd(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


@contextmanager
def progress_bar(title: str, total: int, *, show: bool) -> Iterator[Tell]:
    """A function `tell(step, examples_per_second, numbers)`: a bar on a terminal, a line every few seconds elsewhere.

    >>> with progress_bar("training", 10, show=False) as tell:
    ...     tell(1, 250.0, {"loss": 0.5})
    """
    if not show:
        yield lambda step, speed, numbers: None
        return
    with _rich_bar(title, total) if sys.stderr.isatty() else _lines(title, total) as tell:
        yield tell


@contextmanager
def _rich_bar(title: str, total: int) -> Iterator[Tell]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    def column(**options: Any) -> Column:
        return Column(no_wrap=True, **options)

    columns = (  # on a narrow terminal the bar shrinks first, then the title and the last number
        TextColumn("{task.description}", markup=False, table_column=column(ratio=2)),
        BarColumn(bar_width=None, table_column=column(ratio=2, min_width=6)),
        MofNCompleteColumn(table_column=column(min_width=2 * len(str(total)) + 1)),
        TextColumn("{task.fields[speed]:,.0f} ex/s", table_column=column(min_width=11)),
        TimeRemainingColumn(compact=True, table_column=column(min_width=5)),
        TextColumn("{task.fields[numbers]}", markup=False, table_column=column(ratio=5)),
    )
    with Progress(*columns, console=Console(stderr=True), expand=True) as bar:
        task = bar.add_task(title, total=total, speed=0.0, numbers="")

        def tell(step: int, speed: float, numbers: Mapping[str, float]) -> None:
            bar.update(task, completed=step, speed=speed, numbers=_numbers(numbers))

        yield tell


@contextmanager
def _lines(title: str, total: int) -> Iterator[Tell]:
    shown, latest = -math.inf, ""

    def tell(step: int, speed: float, numbers: Mapping[str, float]) -> None:
        nonlocal shown, latest
        latest = f"{title}: step {step:,} of {total:,}, {speed:,.0f} examples/s  {_numbers(numbers)}".rstrip()
        if time.monotonic() - shown >= LINE_SECONDS:
            show()

    def show() -> None:
        nonlocal shown, latest
        print(latest, file=sys.stderr, flush=True)
        shown, latest = time.monotonic(), ""

    try:
        yield tell
    finally:
        if latest:
            show()


def _numbers(numbers: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
