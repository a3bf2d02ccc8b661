"""What the devices can do, measured on them in the same run: matrix products, and streaming through memory.

The products are chains `x <- x w` of square matrices of random numbers in the dtype of the step; they begin anew after
a few, so that numbers neither grow nor vanish. The largest rate of several sizes counts, of products made in that dtype
or in float32. Memory is streamed by `y <- s x + y` (three arrays' bytes) on arrays far larger than the caches. With
several devices all work at once, and the ceiling is that of all.

Reference: McCalpin (1995), Memory bandwidth and machine balance (the STREAM triad).
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tljax.recipes.bench.rounds import Clock, Timed, rounds
from tljax.recipes.bench.spread import Spread, spread
from tljax.types import Array

TRIES = 5
"""Turns of each size, of which the best is then timed in the rounds."""
LONGEST = 1.0
"""Seconds of a chain beyond which a size is left out."""
CACHES = 4
"""How many times the last cache both arrays are together."""
_MOST_BYTES, _LEAST_BYTES = 2**30, 2**27


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is tried."""

    sides: tuple[int, ...]
    """Of the matrices."""
    array_bytes: int
    """Of each array that is streamed, on each device."""


@dataclasses.dataclass
class Ceiling:
    """One of the two, ready for the rounds."""

    timed: Timed
    amount: float
    """What a unit counts: operations, or bytes, of all devices."""
    how: dict[str, Any]
    """As JSON values."""

    @property
    def rate(self) -> Spread:
        """Operations or bytes a second over the turns so far."""
        return spread([self.amount / seconds for seconds in self.timed.unit_seconds])


def usual_sizes() -> Sizes:
    """What is tried on this kind of device.

    >>> usual_sizes().array_bytes >= 2**27
    True
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    share = stats.get("bytes_limit", 16 * _MOST_BYTES) // 16
    if jax.default_backend() != "cpu":
        sides = tuple(side for side in (1024, 2048, 4096, 8192, 16384) if 4 * side**2 <= share)
        return Sizes(sides, max(_LEAST_BYTES, min(_MOST_BYTES, share)))
    wanted = CACHES * _last_cache() // 2
    return Sizes((512, 1024, 2048), max(_LEAST_BYTES, min(_MOST_BYTES, wanted)))


def _last_cache() -> int:
    """Bytes of the largest cache of the first processor, where Linux tells; else a generous guess."""
    found = [2**25]
    for file in pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text().strip()
        unit = {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1:], 1)
        digits = text.rstrip("KMG")
        found += [int(digits) * unit] if digits.isdecimal() else []
    return max(found)


def matmul_ceiling(
    dtype: str, sizes: Sizes, mesh: Mesh | None, seconds: float, clock: Clock = time.perf_counter
) -> Ceiling:
    """The fastest of the sizes, found out and ready for more turns.

    >>> ceiling = matmul_ceiling("float32", Sizes((32, 64), 2**20), None, seconds=0.001)
    >>> ceiling.amount % (2 * ceiling.how["side"] ** 3), sorted(ceiling.how["tried"])
    (0.0, ['32', '64'])
    """
    found: list[Ceiling] = []
    for side in sizes.sides:
        for out in sorted({dtype, "float32"}):
            each = _chain(side, dtype, out, mesh)
            if found and each.amount > LONGEST * max(other.amount / other.timed.turn(clock) for other in found[-2:]):
                continue
            each.timed.settle(seconds, clock=clock)
            found.append(each)
    rounds([each.timed for each in found], TRIES, clock=clock)
    best = max(found, key=lambda each: each.rate.median)
    tried: dict[str, float] = {}
    for each in found:
        name = str(each.how["side"])
        tried[name] = max(tried.get(name, 0.0), each.rate.median)
    best.how["tried"] = tried
    best.timed.wall.clear()
    best.timed.launching.clear()
    return best


def copy_ceiling(sizes: Sizes, mesh: Mesh | None, seconds: float, clock: Clock = time.perf_counter) -> Ceiling:
    """The triad, ready for turns.

    >>> ceiling = copy_ceiling(Sizes((), 2**20), None, seconds=0.001)
    >>> ceiling.timed.turn() > 0, ceiling.amount
    (True, 3145728.0)
    """
    devices = _devices(mesh)
    n = sizes.array_bytes // 4
    x, y = jax.jit(lambda: (_ramp(devices * n, 1.0), _ramp(devices * n, 2.0)), out_shardings=_sharding(mesh, 1))()
    triad = jax.jit(lambda x, y, s: s * x + y, donate_argnums=1)
    held = {"y": y}

    def launch(times: int) -> Any:
        for i in range(times):
            held["y"] = triad(x, held["y"], jnp.float32(1e-3 if i % 2 else -1e-3))
        return held["y"]

    timed = Timed(launch)
    timed.settle(seconds, clock=clock)
    how = {"array_bytes": 4 * n, "devices": devices}
    return Ceiling(timed, 3.0 * 4 * n * devices, how)


def _chain(side: int, dtype: str, out: str, mesh: Mesh | None) -> Ceiling:
    """Products of matrices of this side; `x` keeps its size, for `w` has entries of variance 1 / side."""
    devices = _devices(mesh)
    shape = (side, side) if devices == 1 else (devices, side, side)

    def draw() -> tuple[Array, Array]:
        x, w = (jax.random.normal(jax.random.key(seed), shape) for seed in (0, 1))
        return x.astype(dtype), (w * side**-0.5).astype(dtype)

    x, w = jax.jit(draw, out_shardings=_sharding(mesh, len(shape)))()

    products = _products(side)

    @jax.jit
    def chains(x: Array, w: Array, n: Array) -> Array:
        def one(_: Any, x: Array) -> Array:
            return jnp.matmul(x, w, preferred_element_type=jnp.dtype(out)).astype(dtype)

        def chain(i: Array, last: Array) -> Array:
            # Another x for each, which hangs on the last result: nothing may be left out, or done before its turn.
            factor = 1 + i.astype(jnp.float32) / 2**20 + 1e-30 * last[..., :1, :1].astype(jnp.float32)
            return jax.lax.fori_loop(0, products, one, x * factor.astype(dtype))

        return jax.lax.fori_loop(0, n, chain, x)

    launch: Callable[[int], Any] = lambda n: chains(x, w, jnp.int32(n))  # noqa: E731
    how = {"side": side, "dtype": dtype, "result": out, "devices": devices}
    return Ceiling(Timed(launch), 2.0 * side**3 * products * devices, how)


def _products(side: int) -> int:
    """How many products make a chain: so many that its beginning, one pass over memory, costs next to nothing.

    >>> [_products(side) for side in (64, 1024, 2048)]
    [64, 4, 2]
    """
    least, work = (2, 2**32) if jax.default_backend() == "cpu" else (8, 2**40)
    return max(least, min(64, work // side**3))


def _ramp(n: int, start: float) -> Array:
    """Numbers that differ."""
    return start + jnp.arange(n, dtype=jnp.float32) / n


def _devices(mesh: Mesh | None) -> int:
    return 1 if mesh is None else mesh.size


def _sharding(mesh: Mesh | None, axes: int) -> Any:
    """One part of the first axis on each device."""
    if mesh is None or mesh.size == 1:
        return None
    return NamedSharding(mesh, P(mesh.axis_names, *(None,) * (axes - 1)))


def described(ceiling: Ceiling) -> Mapping[str, Any]:
    """As JSON values."""
    return {**ceiling.how, "rate": ceiling.rate.described(), "repeats": ceiling.timed.unit_seconds}
