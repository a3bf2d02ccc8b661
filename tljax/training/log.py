"""What a run tells while it works: JSON lines for programs, a progress bar for people."""

import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tljax.checkpoints.run import RunError, write_atomically

Row = dict[str, Any]


class Log:
    """The history of a run: rows such as `{"step": 100, "split": "train", "loss": 0.3}`, in memory and in
    a file.

    The file holds only what a repetition would give again bit for bit, so timings are kept out of it.
    After a kill, rows beyond the checkpoint that the run resumes from are dropped: they come again.
    """

    def __init__(self, file: pathlib.Path | None, listeners: tuple[Callable[[Row], None], ...] = ()):
        self.rows: list[Row] = []
        self._file, self._listeners = file, listeners

    def rewind(self, step: int) -> None:
        """Forget what lies beyond `step`, in the file too."""
        if self._file is None:
            return
        self.rows = [row for row in read_rows(self._file) if row["step"] <= step]
        write_atomically(self._file, "".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, row: Row) -> None:
        """Append `row` and show it to the listeners."""
        self.rows.append(row)
        if self._file is not None:
            try:
                with self._file.open("a") as out:
                    out.write(json.dumps(row) + "\n")
            except OSError as error:
                raise RunError(f"{self._file} could not be written: {error.strerror or error}") from error
        for listener in self._listeners:
            listener(row)


def read_rows(file: pathlib.Path) -> list[Row]:
    """The rows of a JSON-lines file; a last line cut short by a kill is left out."""
    if not file.exists():
        return []
    rows = []
    for line in file.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


@contextmanager
def progress_bar(title: str, total: int, *, show: bool) -> Iterator[Callable[[int, float, Mapping[str, float]], None]]:
    """A function `tell(step, examples_per_second, numbers)`: a bar on a terminal, a line every few seconds
    elsewhere."""
    if not show:
        yield lambda step, speed, numbers: None
    elif sys.stderr.isatty():
        with _rich_bar(title, total) as tell:
            yield tell
    else:
        yield _line_teller(title, total)


@contextmanager
def _rich_bar(title: str, total: int) -> Iterator[Callable[[int, float, Mapping[str, float]], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<24}"), BarColumn(bar_width=28), MofNCompleteColumn(),
        TextColumn("{task.fields[speed]:>10,.0f} ex/s"), TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, speed=0.0, numbers="")

        def tell(step: int, speed: float, numbers: Mapping[str, float]) -> None:
            bar.update(task, completed=step, speed=speed, numbers=_numbers(numbers))

        yield tell


def _line_teller(title: str, total: int) -> Callable[[int, float, Mapping[str, float]], None]:
    last = 0.0

    def tell(step: int, speed: float, numbers: Mapping[str, float]) -> None:
        nonlocal last
        if step < total and time.monotonic() - last < 5:
            return
        last = time.monotonic()
        print(
            f"{title}: step {step}/{total}, {speed:,.0f} examples/s  {_numbers(numbers)}",
            file=sys.stderr,
            flush=True,
        )

    return tell


def _numbers(numbers: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
