"""`tljax bench`: every configuration is set up, then all are timed in rounds beside the ceilings of the device."""

import gc
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from tljax.recipes.bench.case import Case, mesh_of, open_case
from tljax.recipes.bench.ceiling import Ceiling, copy_ceiling, described, matmul_ceiling, usual_sizes
from tljax.recipes.bench.doubts import doubts
from tljax.recipes.bench.error import BenchError
from tljax.recipes.bench.machine import load, machine, process_age
from tljax.recipes.bench.results import KIND, failed_row, row_of, write_results
from tljax.recipes.bench.rounds import Timed, check_resolution, rounds, tick_of
from tljax.recipes.bench.settings import BenchSettings, Configuration
from tljax.recipes.bench.table import results_text
from tljax.types import TljaxError

Tell = Callable[[str], None]
TURN = 0.1
"""Seconds of a turn of a ceiling."""
TRACED = 10
"""Steps in a profile, at most."""


class Start(NamedTuple):
    """What went by before the first configuration."""

    seconds: float
    since: str
    """What the seconds are counted from."""


def run_bench(settings: BenchSettings, *, show: bool = True, own_process: bool = False) -> str:
    """Measure every configuration of `settings`; the result as text, and in the files that were asked for.

    Args:
      settings: what is measured.
      show: whether to tell on standard error what is being done.
      own_process: whether the process does nothing else, so that the first step is counted from its beginning.

    Raises:
      BenchError: no configuration could be measured, for the reason that it tells; a file that cannot be written.
    """
    age = process_age() if own_process else None
    began, before = time.perf_counter(), load()
    if settings.json is not None:
        _check_writable(settings.json)
    tell: Tell = (lambda text: print(text, file=sys.stderr, flush=True)) if show else (lambda text: None)
    found = machine()
    start = Start((age or 0.0) + time.perf_counter() - began, "the command" if age is None else "the process")
    bench = _Bench(settings, tell)
    bench.open_all()
    rows, ceilings = bench.measure(start.seconds) if bench.cases else (bench.rows({}), {})
    results: dict[str, Any] = {
        "kind": KIND,
        **found,
        "load": {"before": before, "after": load()},
        "start": start._asdict(),
        "settings": {"repeats": settings.repeats, "seconds": settings.seconds, "seed": settings.seed},
        "ceilings": ceilings,
        "rows": rows,
    }
    results["warnings"] = list(doubts(results))
    if settings.json is not None:
        write_results(results, settings.json)
    if all("failed" in row for row in rows):
        raise BenchError("; ".join(dict.fromkeys(row["failed"] for row in rows)))
    return results_text(results)


class _Bench:
    """The configurations under way."""

    def __init__(self, settings: BenchSettings, tell: Tell):
        self.settings, self.tell = settings, tell
        self.cases: dict[Configuration, Case] = {}
        self.failures: dict[Configuration, str] = {}
        self.crowded = False
        """Whether the device has no room for all at once, so that each is brought there for its turn."""

    def open_all(self) -> None:
        """Set up all configurations, those that can be."""
        todo = self.settings.configurations
        for number, configuration in enumerate(todo, 1):
            self.tell(f"{number}/{len(todo)} {configuration}: compiling")
            error = self._open(configuration)
            if error is not None and _is_memory(error) and self.cases and not self.crowded:
                self._make_room()
                error = self._open(configuration)
            if error is not None:
                self._fail(configuration, error)

    def _open(self, configuration: Configuration) -> Exception | None:
        try:
            case = open_case(configuration, self.settings)
        except Exception as error:
            return error.with_traceback(None)  # which would keep the arrays
        self.cases[configuration] = case
        if self.crowded:
            self._visiting(case)
        return None

    def _make_room(self) -> None:
        self.crowded = True
        gc.collect()
        for case in self.cases.values():
            self._visiting(case)

    def _visiting(self, case: Case) -> None:
        """The case comes to the device for its turns only."""
        case.park()
        case.timed.before, look = case.unpark, case.look

        def after() -> None:
            look()
            case.park()

        case.timed.after = after

    def _fail(self, configuration: Configuration, error: Exception) -> None:
        self.failures[configuration] = reason = reason_of(error)
        self.cases.pop(configuration, None)
        gc.collect()
        self.tell(f"{configuration}: {reason}")

    def measure(self, start_seconds: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The rows and the ceilings."""
        self.tell("measuring what the device can do")
        sizes, mesh = usual_sizes(), mesh_of(self.settings.mesh)
        dtypes = dict.fromkeys(configuration.dtype for configuration in self.cases)
        matmul = {dtype: matmul_ceiling(dtype, sizes, mesh, TURN) for dtype in dtypes}
        copy = copy_ceiling(sizes, mesh, TURN)
        self.tell(f"timing: {self.settings.repeats} rounds")
        by_timed = {id(case.timed): configuration for configuration, case in self.cases.items()}

        def failed(timed: Timed, error: Exception) -> None:
            if id(timed) not in by_timed:
                raise error
            self._fail(by_timed[id(timed)], error)

        every = [c.timed for c in self.cases.values()] + [c.timed for c in matmul.values()] + [copy.timed]
        rounds(every, self.settings.repeats, failed=failed)
        made: dict[Configuration, dict[str, Any]] = {}
        for configuration, case in list(self.cases.items()):
            row = self._row(case, matmul[configuration.dtype], copy, start_seconds)
            made |= {} if row is None else {configuration: row}
        ceilings = {"matmul": {dtype: described(c) for dtype, c in matmul.items()}, "copy": described(copy)}
        return self.rows(made), ceilings

    def _row(self, case: Case, matmul: Ceiling, copy: Ceiling, start_seconds: float) -> dict[str, Any] | None:
        try:
            check_resolution(case.timed, str(case.configuration), tick_of())
            case.unpark()
            row = row_of(case, matmul, copy, start_seconds)
            if self.settings.trace is not None:
                row["trace"] = self._trace(case)
        except Exception as error:
            self._fail(case.configuration, error)
            return None
        finally:
            if self.crowded:
                case.park()
        return row

    def _trace(self, case: Case) -> str:
        """A profile of a few steps; where it stands."""
        assert self.settings.trace is not None
        folder = pathlib.Path(self.settings.trace) / str(case.configuration).replace(" ", "-").replace("/", "_")
        with jax.profiler.trace(str(folder)):
            jax.block_until_ready(case.launch(min(TRACED, case.timed.units)))
        return str(folder)

    def rows(self, made: dict[Configuration, dict[str, Any]]) -> list[dict[str, Any]]:
        """All rows, in the order in which they were asked for."""
        return [
            made.get(c) or failed_row(c, self.failures.get(c, "not measured")) for c in self.settings.configurations
        ]


def reason_of(error: Exception) -> str:
    """Why a configuration failed, in a line.

    >>> reason_of(RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 7 bytes.\\nmore"))
    'out of memory: Out of memory while trying to allocate 7 bytes.'
    """
    text = str(error).strip().splitlines()
    line = text[0] if text else ""
    if _is_memory(error):
        return f"out of memory: {line.partition('RESOURCE_EXHAUSTED: ')[2] or line or 'of the host'}"
    return line if isinstance(error, TljaxError) else f"{type(error).__name__}: {line}"


def _is_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _check_writable(path: str) -> None:
    """A folder that is missing is told before anything is measured."""
    folder = pathlib.Path(path).parent
    if not folder.is_dir() or pathlib.Path(path).is_dir():
        raise BenchError(f"--json {path}: {'it is a folder' if folder.is_dir() else f'there is no folder {folder}'}")
