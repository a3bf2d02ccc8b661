"""The file of a measurement: rows, ceilings and where they were made, as JSON."""

import json
import pathlib
from typing import Any

from tljax.checkpoints.run import write_atomically
from tljax.recipes.bench.case import Case
from tljax.recipes.bench.ceiling import Ceiling
from tljax.recipes.bench.error import BenchError
from tljax.recipes.bench.settings import Configuration
from tljax.recipes.bench.spread import spread

KIND = "tljax bench"


def row_of(case: Case, matmul: Ceiling, copy: Ceiling, start_seconds: float) -> dict[str, Any]:
    """What was measured of one configuration, as JSON values.

    Raises `BenchError` where the steps were not really made.
    """
    moved, cost = case.check(), case.cost()
    step = spread(case.timed.unit_seconds)
    moved_bytes = None if cost.bytes_accessed is None else cost.bytes_accessed * case.devices
    flops_rate, bytes_rate = (None if n is None else n / step.median for n in (cost.flops, moved_bytes))
    return {
        "configuration": case.configuration.described(),
        "step_seconds": step.described(),
        "repeats": case.timed.unit_seconds,
        "steps_per_repeat": case.timed.units,
        "examples_per_step": case.examples,
        "examples_per_second": case.examples / step.median,
        "compile_seconds": case.compile_seconds,
        "from_cache": case.from_cache,
        "first_step_seconds": start_seconds + case.first_step_seconds,
        "flops_per_step": cost.flops,
        "flops_per_second": flops_rate,
        "of_matmul_ceiling": _share(flops_rate, matmul),
        "bytes_per_step": moved_bytes,
        "bytes_per_second": bytes_rate,
        "of_copy_ceiling": _share(bytes_rate, copy),
        "memory": case.memory(cost),
        "host_share": case.timed.host_share,
        "checked": {"leaves_moved": moved, "first_loss": case.losses[0], "last_loss": case.losses[-1]},
        "not_counted": case.uncounted(),
        "steps_skipped": case.skipped,
    }


def _share(rate: float | None, ceiling: Ceiling) -> float | None:
    return None if rate is None else rate / ceiling.rate.median


def failed_row(configuration: Configuration, reason: str) -> dict[str, Any]:
    """A configuration that could not be measured, and why.

    >>> failed_row(Configuration("mlp", "full", 8), "out of memory")["failed"]
    'out of memory'
    """
    return {"configuration": configuration.described(), "failed": reason}


def write_results(results: dict[str, Any], path: str) -> None:
    """Write the file; raises `CheckpointError` where that cannot be done."""
    write_atomically(pathlib.Path(path), json.dumps(results, indent=1) + "\n")


def read_results(path: str) -> dict[str, Any]:
    """What `write_results` wrote; raises `BenchError` for a file that is none of its."""
    try:
        found = json.loads(pathlib.Path(path).read_text())
    except (OSError, ValueError) as error:
        raise BenchError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise BenchError(f"{path} is no result of tljax bench: it has no kind {KIND!r}")
    try:
        for row in found["rows"]:
            assert isinstance(row["configuration"], dict)
            assert "failed" in row or all(float(row["step_seconds"][q]) > 0 for q in ("q1", "median", "q3"))
        assert isinstance(found["machine"]["device"], str)
        assert isinstance(found["versions"], dict)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise BenchError(f"{path} is damaged: rows, machine or versions are not as tljax bench writes them") from error
    return found
