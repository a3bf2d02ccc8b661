"""What a run took on this machine: seconds, with compilation apart, and memory.

No repetition gives them again, so they stand in a file of their own, `timing.json`, beside the results that do.
"""

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax

from tljax.checkpoints.run import write_atomically
from tljax.processes import by_first
from tljax.recipes.folder import read_object

FILE = "timing.json"
_COMPILING = ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration")


@dataclasses.dataclass
class Spent:
    """Seconds that went by, and how many of them went into making programs."""

    wall: float = 0.0
    compiling: float = 0.0


@contextlib.contextmanager
def stopwatch() -> Iterator[Spent]:
    """Counts the seconds inside the block; those of lowering and compiling, as JAX reports them, apart.

    Where programs compile side by side, a second counts once.

    >>> import jax.numpy as jnp
    >>> with stopwatch() as spent:
    ...     _ = jax.jit(lambda x: x * 3 + 17)(jnp.ones(3)).block_until_ready()
    >>> 0 < spent.compiling <= spent.wall
    True
    """
    spent, began = Spent(), time.perf_counter()
    spans: list[tuple[float, float]] = []

    def hear(event: str, duration_secs: float, **_: str | int) -> None:
        if event in _COMPILING:
            now = time.perf_counter()
            spans.append((max(began, now - duration_secs), now))

    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        yield spent
    finally:
        jax.monitoring.unregister_event_duration_listener(hear)
        spent.wall, spent.compiling = time.perf_counter() - began, _covered(spans)


def _covered(spans: list[tuple[float, float]]) -> float:
    """The length of the union of spans.

    >>> _covered([(2, 3), (0, 4), (6, 7)])
    5.0
    """
    total, reached = 0.0, 0.0
    for first, last in sorted(spans):
        total += max(0.0, last - max(first, reached))
        reached = max(reached, last)
    return total


@dataclasses.dataclass(frozen=True)
class Timing:
    """The timing file of a run folder."""

    folder: pathlib.Path

    def read(self) -> dict[str, Any]:
        """What was measured, `{"device": ..., "methods": {name: {...}}}`; empty where nothing was."""
        return read_object(self.folder / FILE) or {}

    def note(self, name: str, spent: Spent, **more: float | None) -> None:
        """Write down what the part called `name` took; of several processes, the first."""
        by_first(lambda: self._note(name, spent, **more))

    def _note(self, name: str, spent: Spent, **more: float | None) -> None:
        found = self.read()
        device = jax.devices()[0]
        found["device"] = f"{jax.device_count()} x {device.device_kind} ({device.platform})"
        found.setdefault("methods", {})[name] = {
            "compile_seconds": spent.compiling,
            "run_seconds": max(0.0, spent.wall - spent.compiling),
            **more,
        }
        write_atomically(self.folder / FILE, json.dumps(found, indent=1))
