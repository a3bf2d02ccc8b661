"""What makes measured numbers less certain, in words."""

from collections.abc import Iterator, Mapping
from typing import Any

from tljax.recipes.bench.machine import is_busy
from tljax.recipes.bench.spread import WIDE


def doubts(results: Mapping[str, Any]) -> Iterator[str]:
    """A line for each reason to doubt the numbers of `results`.

    >>> row = {"configuration": {"model": "mlp", "method": "full", "batch": 8, "dtype": "float32"}, "not_counted": []}
    >>> row |= {"step_seconds": {"width": 0.2}, "from_cache": False, "steps_skipped": 0, "of_matmul_ceiling": 0.5}
    >>> list(doubts({"load": {"before": 0.0}, "machine": {"cores": 2}, "ceilings": {}, "rows": [row]}))
    ['mlp full 8 float32: the middle half of its step times spreads over 20% of the median']
    """
    before, cores = results["load"]["before"], results["machine"]["cores"]
    if is_busy(before, cores):
        yield f"the machine was busy before anything was measured: a load of {before:.1f} on {cores} cores"
    for row in results["rows"]:
        if "failed" not in row:
            yield from _of_row(row)
    for what, rate in _rates(results["ceilings"]):
        if rate["width"] > WIDE:
            yield f"the ceiling of {what} spreads over {rate['width']:.0%} of its median"


def _of_row(row: Mapping[str, Any]) -> Iterator[str]:
    name = name_of(row["configuration"])
    if row["step_seconds"]["width"] > WIDE:
        yield f"{name}: the middle half of its step times spreads over {row['step_seconds']['width']:.0%} of the median"
    if row["from_cache"]:
        yield f"{name}: its program lay in JAX's cache on disk, so it was hardly compiled"
    if (row["of_matmul_ceiling"] or 0) > 1:
        yield f"{name}: it does more than the matrix products did, so these were disturbed, or fewer operations made"
    if row["steps_skipped"]:
        yield f"{name}: {row['steps_skipped']} of its steps changed nothing, for their gradients were not finite"
    if row["not_counted"]:
        yield f"{name}: its FLOPs leave out {', '.join(row['not_counted'])}, which XLA cannot look into"


def _rates(ceilings: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for dtype, found in ceilings.get("matmul", {}).items():
        yield f"{dtype} matrix products", found["rate"]
    if "copy" in ceilings:
        yield "memory", ceilings["copy"]["rate"]


def name_of(configuration: Mapping[str, Any]) -> str:
    """What a row is called.

    >>> name_of({"model": "mlp", "method": "full", "batch": 8, "dtype": "float32", "rank": 8})
    'mlp full 8 float32'
    """
    return " ".join(str(configuration[key]) for key in ("model", "method", "batch", "dtype"))
