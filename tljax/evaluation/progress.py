"""What long work shows to people while it goes on: a bar on a terminal, lines elsewhere."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Tell = Callable[[int, float, Mapping[str, float]], None]

LINE_SECONDS = 5.0
"""How often a line of progress is written where there is no terminal."""


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
