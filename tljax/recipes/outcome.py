"""What a recipe that has a run folder gives back, and how it speaks while it runs."""

import dataclasses
import pathlib
import sys
from typing import Any

from tljax.evaluation.report import render_text
from tljax.processes import is_first


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A finished run."""

    results: dict[str, Any]
    folder: pathlib.Path

    def __str__(self) -> str:
        return f"{render_text(self.results)}\n\nReport: {self.folder / 'report.html'}"


def tell(show: bool, text: str) -> None:
    """Print `text` to stderr, where there is someone to read it; of several processes the first does."""
    if show and is_first():
        print(text, file=sys.stderr)
