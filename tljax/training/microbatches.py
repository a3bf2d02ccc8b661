"""How many microbatches a batch is cut into, so that a training step fits into the memory there is.

Each number in turn is compiled, which tells the memory that the step takes; the first that fits is taken, and its
program is not compiled again.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from tljax.checkpoints.described import described_in
from tljax.processes import from_first
from tljax.training.inputs import FitError
from tljax.training.prepared import Prepared
from tljax.types import Params

SHARE = 0.9
"""Of the memory that is free: allocators lose some between the pieces."""


def with_microbatches(
    prepared: Prepared, params: Params, seed: Any, rate: Any, folder: pathlib.Path | None
) -> Prepared:
    """`prepared` with ``accumulate="auto"`` settled: as in the run that stands in `folder`, else the fewest that fit.

    Raises `FitError` where a step does not fit one example at a time, or nobody says how much it takes.
    """
    if prepared.options.accumulate != "auto":
        return prepared
    earlier = (None if folder is None else from_first(lambda: described_in(folder / "checkpoints"))) or {}
    sizes = prepared.description["batch_size"]
    same = earlier.get("batch_size") == sizes and isinstance(earlier.get("accumulate"), int)
    number = earlier["accumulate"] if same else _fewest(prepared, params, seed, rate, math.gcd(*sizes.values()))
    return dataclasses.replace(
        prepared,
        program=prepared.program_of(number),
        accumulate=number,
        description=prepared.description | {"accumulate": number},
    )


def _fewest(prepared: Prepared, params: Params, seed: Any, rate: Any, examples: int) -> int:
    limit, needed = from_first(lambda: _limit(prepared)), 0
    examples //= 1 if prepared.placement is None else prepared.placement.examples
    run = _begun(prepared, params, seed, rate)
    for number in candidates(examples):
        try:
            found = prepared.program_of(number).advance.peak_bytes(run, prepared.streams)
        except jax.errors.JaxRuntimeError as error:  # some compilers refuse what does not fit
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            continue
        if found is None:
            raise FitError('accumulate="auto" needs a device whose compiler tells memory; give the number instead')
        needed = found
        if needed <= limit:
            return number
    raise FitError(
        f"a training step does not fit into memory even in microbatches of {_examples(prepared, examples)}: it takes "
        f"{needed / 1e9:.3g} GB and {limit / 1e9:.3g} GB may be used. Take remat='blocks', precision='bfloat16', "
        "a smaller model, or adapters on a frozen one"
    )


def _begun(prepared: Prepared, *given: Any) -> Any:
    """The shapes of the run's arrays; on a mesh also how they lie there, which its compiled beginning tells."""
    start = prepared.program.start
    shapes = start.trace(*given, prepared.streams).out_info
    if prepared.placement is None:
        return shapes
    lie = start.begin(*given, prepared.streams).wait().output_shardings
    return jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, lie)


def candidates(examples: int) -> Iterator[int]:
    """Numbers of microbatches to try for a batch: divisors, each at least twice the one before, to one example each.

    >>> list(candidates(32)), list(candidates(48)), list(candidates(7))
    ([1, 2, 4, 8, 16, 32], [1, 2, 4, 8, 16, 48], [1, 7])
    """
    last = 0
    for number in range(1, examples + 1):
        if examples % number == 0 and ((number >= 2 * last and 2 * number <= examples) or number == examples):
            last = number
            yield number


def _examples(prepared: Prepared, examples: int) -> str:
    sizes = {name: size // examples for name, size in prepared.description["batch_size"].items()}
    return ", ".join(f"{size} of {name!r}" for name, size in sizes.items())


def _limit(prepared: Prepared) -> float:
    """The bytes that a training step may take of a device, with the data that lie there already."""
    if prepared.options.memory_limit is not None:
        return prepared.options.memory_limit
    devices = jax.local_devices()[:1] if prepared.placement is None else prepared.placement.mesh.local_devices
    stats = devices[0].memory_stats() or {}
    free = stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else _host_memory() / len(devices)
    return SHARE * free + sum(map(_bytes_of_a_device, jax.tree.leaves(prepared.streams)))


def _bytes_of_a_device(leaf: Any) -> int:
    here = leaf.sharding.shard_shape(leaf.shape) if isinstance(leaf, jax.Array) else np.shape(leaf)
    return math.prod(here) * np.dtype(leaf.dtype).itemsize


def _host_memory() -> float:
    """The bytes that this process may still take: of the machine, and of the container it runs in."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    machine, group = pathlib.Path("/proc/meminfo"), pathlib.Path("/sys/fs/cgroup")
    if machine.exists():
        lines = dict(line.split(":") for line in machine.read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
    try:
        group_free = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no such container, or one without a limit
        return free
    return min(free, group_free)
