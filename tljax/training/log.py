"""What a run tells while it works: JSON lines, for programs."""

import json
import math
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from tljax.checkpoints.run import RunError, write_atomically
from tljax.processes import from_first, is_first

Row = dict[str, Any]


class Log:
    """The history of a run: rows such as `{"step": 100, "split": "train", "loss": 0.3}`, in memory and in a file.

    The file holds only what a repetition would give again bit for bit, so timings are kept out of it. After a kill,
    rows beyond the checkpoint that the run resumes from are dropped: they come again. Of several processes all have the
    rows in memory; the first writes them, and tells the listeners.

    >>> log = Log(None, [lambda row: print(row["loss"])])
    >>> log.add({"step": 100, "split": "train", "loss": 0.3})
    0.3
    """

    def __init__(self, file: pathlib.Path | None, listeners: Sequence[Callable[[Row], None]] = ()):
        self.rows: list[Row] = []
        self._file, self._listeners = file, listeners

    def rewind(self, step: int, expected: int = 0) -> None:
        """Forget what lies beyond `step`, in the file too; warns where not `expected` rows are left."""
        if self._file is not None:
            file = self._file
            self.rows = from_first(lambda: _cut_back(file, step, expected))

    def add(self, row: Row) -> None:
        """Append `row` and show it to the listeners."""
        row = {name: math.nan if _is_odd(value) else value for name, value in row.items()}
        self.rows.append(row)
        if not is_first():
            return
        if self._file is not None:
            try:
                with self._file.open("a", encoding="utf-8") as out:
                    out.write(_line(row))
            except OSError as error:
                raise RunError(f"{self._file} could not be written: {error.strerror or error}") from error
        for listener in self._listeners:
            listener(row)


def _cut_back(file: pathlib.Path, step: int, expected: int) -> list[Row]:
    rows = [row for row in read_rows(file) if row["step"] <= step]
    if len(rows) != expected:
        warnings.warn(
            f"{file} is damaged: it should have {expected} rows up to step {step} and has {len(rows)}; "
            "the history has a gap, the run itself is whole",
            stacklevel=4,
        )
    write_atomically(file, "".join(map(_line, rows)))
    return rows


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
