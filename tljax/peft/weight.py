"""An effective weight on its way through a program: in parts, each over some of its axes, and never formed.

    (W + Σ_r a b) · scales

A part says which axes of the weight it varies along; along the others it is constant. So a program may transpose,
reshape, slice and broadcast a weight, and every part follows by itself. An axis of length 1 belongs to no part.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tljax.peft.factors import Factored, wide
from tljax.peft.labels import contract, spread
from tljax.types import Array

RANK = -1
"""The label of the rank; those of a weight's axes are their numbers."""


class Unfit(Exception):  # noqa: N818  (no error: the weight is formed instead)
    """Why a weight cannot stay in parts; `cheaper` where forming it is the better way anyhow."""

    def __init__(self, reason: str, *, cheaper: bool = False) -> None:
        super().__init__(reason)
        self.cheaper = cheaper


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """An array over some axes of a weight."""

    array: Array
    axes: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    """The axes of the weight, ascending, none of length 1."""
    ranked: bool = dataclasses.field(default=False, metadata={"static": True})
    """Whether a last axis, the rank, follows: it is a factor."""

    @property
    def labels(self) -> tuple[int, ...]:
        return (*self.axes, *(RANK,) * self.ranked)

    def cast(self, dtype: Any) -> Array:
        return lax.convert_element_type(self.array, dtype)

    def moved(self, new: Callable[[int], int]) -> "Part":
        """The part of the weight whose axis `k` has become axis ``new(k)``."""
        axes = [new(axis) for axis in self.axes]
        order = sorted(range(len(axes)), key=axes.__getitem__)
        perm = (*order, *(len(axes),) * self.ranked)
        array = self.array if perm == tuple(range(len(perm))) else lax.transpose(self.array, perm)
        return Part(array, tuple(sorted(axes)), self.ranked)

    def trimmed(self) -> "Part":
        """Without axes of length 1, which belong to no part."""
        ones = [i for i, n in enumerate(self.array.shape[: len(self.axes)]) if n == 1]
        if not ones:
            return self
        axes = tuple(axis for i, axis in enumerate(self.axes) if i not in ones)
        return Part(lax.squeeze(self.array, ones), axes, self.ranked)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Weight:
    """``(base + product of both factors) * scales``."""

    base: Array
    factors: tuple[Part, ...]
    """None, or two."""
    scales: tuple[Part, ...]
    name: str = dataclasses.field(metadata={"static": True})
    """Of the leaf that it comes from."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    def mapped(self, base: Array, change: Callable[[Part], Part]) -> "Weight":
        """`base` with every part changed."""
        return Weight(base, tuple(map(change, self.factors)), tuple(map(change, self.scales)), self.name)

    def formed(self, dtype: Any) -> Array:
        """The weight as one array, computed in `dtype` and cast back to its own."""
        axes, how = tuple(range(self.base.ndim)), {"precision": lax.Precision.HIGHEST}
        total = lax.convert_element_type(self.base, dtype)
        if self.factors:
            a, b = self.factors
            delta, labels = contract(a.cast(dtype), a.labels, b.cast(dtype), b.labels, axes, **how)
            total = lax.add(total, spread(delta, labels, axes, self.shape))
        for scale in self.scales:
            total = lax.mul(total, spread(scale.cast(dtype), scale.labels, axes, self.shape))
        return lax.convert_element_type(total, self.base.dtype)

    def dense(self) -> Array:
        """The weight as one array, computed in float32."""
        return self.formed(wide(jnp.zeros((), self.base.dtype)).dtype)


def in_parts(name: str, factored: Factored) -> Weight:
    """What `factored` says, with the axes of each part. Raises `TypeError` where shapes do not fit."""
    layout, base = factored.layout, factored.weight
    stack = tuple(range(layout.stack))
    rest = tuple(range(layout.stack, base.ndim))
    at = len(rest) - layout.ins if layout.transposed else layout.ins
    ins, outs = (rest[at:], rest[:at]) if layout.transposed else (rest[:at], rest[at:])

    def part(array: Array | None, axes: tuple[int, ...], ranked: bool = False) -> list[Part]:
        if array is None:
            return []
        if array.ndim != len(axes) + ranked or any(n not in (1, base.shape[k]) for n, k in zip(array.shape, axes)):
            raise TypeError(f"a part {array.shape} for the axes {axes} of a weight {base.shape}")
        return [Part(array, axes, ranked).trimmed()]

    b = None if factored.b is None else jnp.moveaxis(factored.b, layout.stack, -1)
    return Weight(
        base,
        (*part(factored.a, stack + ins, True), *part(b, stack + outs, True)),
        (*part(factored.ins_scale, stack + ins), *part(factored.outs_scale, stack + outs)),
        name,
    )


def transpose(weight: Weight, permutation: Sequence[int]) -> Weight:
    """The weight with its axes in the order of `permutation`."""
    new = list(permutation).index
    return weight.mapped(lax.transpose(weight.base, permutation), lambda part: part.moved(new))


def squeeze(weight: Weight, dimensions: Sequence[int]) -> Weight:
    """The weight without `dimensions`, all of size 1."""
    left = [axis for axis in range(weight.base.ndim) if axis not in dimensions]
    return weight.mapped(lax.squeeze(weight.base, dimensions), lambda part: part.moved(left.index))


def broadcast(weight: Weight, shape: Sequence[int], dimensions: Sequence[int]) -> Weight:
    """The weight in `shape`, its axes at `dimensions` there."""
    base = lax.broadcast_in_dim(weight.base, shape, dimensions)
    return weight.mapped(base, lambda part: part.moved(dimensions.__getitem__))


def cut(weight: Weight, base: Array, change: Callable[[Array, tuple[int, ...]], Array]) -> Weight:
    """`base` with every part's array changed to ``change(array, axes)``, whose rank stays and axes may get shorter."""
    return weight.mapped(
        base, lambda part: Part(change(part.array, part.axes), part.axes, part.ranked).trimmed() if part.axes else part
    )


def reshape(weight: Weight, shape: Sequence[int]) -> Weight:
    """Raises `Unfit` where axes of both factors melt into one."""
    groups = list(_groups(weight.shape, shape))

    def change(part: Part) -> Part:
        axes: list[int] = []
        for old, new in groups:
            real = {axis for axis in old if weight.shape[axis] > 1}
            if real & set(part.axes):
                if not real <= set(part.axes):
                    if part.ranked:
                        raise Unfit("it melts inputs and outputs into one axis")
                    return change(_grown(part, real, weight.shape))
                axes += [axis for axis in new if shape[axis] > 1]
        sizes = [shape[axis] for axis in axes] + list(part.array.shape[len(part.axes) :])
        return Part(lax.reshape(part.array, sizes), tuple(axes), part.ranked)

    return weight.mapped(lax.reshape(weight.base, shape), change)


def _grown(part: Part, axes: Iterable[int], shape: Sequence[int]) -> Part:
    """A scale that varies along `axes` too, if only in name."""
    grown = tuple(sorted({*part.axes, *axes}))
    return Part(spread(part.array, part.axes, grown, [shape[axis] for axis in grown]), grown)


def _groups(old: Sequence[int], new: Sequence[int]) -> Iterable[tuple[range, range]]:
    """The axes of both shapes in the smallest runs of equal size: (6, 4) and (2, 3, 4) give 6 = 2·3 and 4 = 4."""
    i = j = 0
    while i < len(old) or j < len(new):
        start, m, n = (i, j), 1, 1
        while True:
            if m <= n and i < len(old):
                m, i = m * old[i], i + 1
            else:
                n, j = n * new[j], j + 1
            if m == n or (i == len(old) and j == len(new)):
                break
        yield range(start[0], i), range(start[1], j)


def rows(weight: Weight) -> tuple[Weight, tuple[Array | None, ...]]:
    """What a loop over the leading axis slices, with None for parts without that axis, and the arrays of those."""

    def change(part: Part) -> Part:
        return part if part.axes[:1] == (0,) else Part(None, part.axes, part.ranked)  # type: ignore[arg-type]

    scanned = weight.mapped(weight.base, change)
    parts = (*weight.factors, *weight.scales)
    return scanned, tuple(None if part.axes[:1] == (0,) else part.array for part in parts)


def row(scanned: Weight, fixed: tuple[Array | None, ...]) -> Weight:
    """One step's weight: the slice of `rows` with its fixed parts, without the leading axis."""
    arrays = iter(fixed)

    def change(part: Part) -> Part:
        held = next(arrays)
        axes = tuple(axis - 1 for axis in part.axes if axis)
        return Part(part.array if held is None else held, axes, part.ranked)

    return scanned.mapped(scanned.base, change)
