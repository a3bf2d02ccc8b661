"""Where the rows and columns of a matrix of PyTorch lie in a leaf of ours.

A keymap lays out whole weights. The factors of an adapter have only their inputs or their outputs, so we ask the keymap
where each goes: we give it a weight that holds its own row numbers, and one that holds its column numbers. That works
for every layout that keeps inputs and outputs apart: transposed, split into heads, cut from a fused projection.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tljax.checkpoints.keymap import Link
from tljax.checkpoints.layouts import Layout as Turn
from tljax.peft.adapter import PeftError
from tljax.peft.layout import Layout

Shape = tuple[int, ...]


class Axes(NamedTuple):
    """The inputs and outputs of a leaf of ours, by their numbers in a weight of theirs."""

    ins: np.ndarray
    """`[ins...]`: the number of each of our inputs there."""
    outs: np.ndarray
    """`[outs...]`."""
    layout: Layout
    """Of our leaf."""
    total: tuple[int, int]
    """The number of inputs and outputs there."""

    @property
    def in_order(self) -> bool:
        """Whether inputs and outputs are the first there, in their order."""
        return self.outs_in_order and np.array_equal(self.ins.ravel(), np.arange(self.ins.size))

    @property
    def outs_in_order(self) -> bool:
        """Whether the outputs are."""
        return np.array_equal(self.outs.ravel(), np.arange(self.outs.size))

    def factors(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`[ins..., r]` and `[r, outs...]` of their ``A`` `[r, ins]` and ``B`` `[outs, r]`."""
        rank = a.shape[0]
        left = np.moveaxis(a.reshape(rank, -1)[:, self.ins], 0, -1)
        return left, np.moveaxis(b.reshape(-1, rank)[self.outs], -1, 0)

    def factors_back(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Their ``A`` `[r, ins]` and ``B`` `[outs, r]`, zero for outputs that are not in our leaf."""
        rank = a.shape[-1]
        theirs_a = np.zeros((rank, self.total[0]), a.dtype)
        theirs_a[:, self.ins.ravel()] = a.reshape(-1, rank).T
        theirs_b = np.zeros((self.total[1], rank), b.dtype)
        theirs_b[self.outs.ravel()] = b.reshape(rank, -1).T
        return theirs_a, theirs_b

    def outputs(self, values: np.ndarray) -> np.ndarray:
        """`[outs...]` of one number for each output of theirs."""
        return values.ravel()[self.outs]

    def inputs(self, values: np.ndarray) -> np.ndarray:
        """`[ins...]` of one number for each input channel of theirs, 1 long in the axes of a convolution's window."""
        window = self.total[0] // values.size
        full = values.ravel()[self.ins // window]
        for axis in range(full.ndim):
            if window > 1 and (np.diff(self.ins // window, axis=axis) == 0).all():
                full = full.take([0], axis)
        return full


def axes_of(link: Link, name: str, leaves: Mapping[str, Any], rows: str, layout: Layout | None = None) -> Axes:
    """The axes of our leaf `name`, where `rows` says what the rows of theirs are: "outs", "ins", or "words" (ins too).

    `layout` is that of our leaf; by default it is found.

    Raises `PeftError` for leaves that are several of theirs, and for layouts that mix inputs and outputs.
    """
    if len(link.theirs) > 1:
        raise PeftError(f"{name!r} is made of {', '.join(link.theirs)}: there is no adapter for one of them alone")
    shapes = tuple(tuple(leaves[leaf].shape) for leaf in link.ours)
    try:
        return _axes(link.layout, link.ours.index(name), shapes, rows, layout)
    except ValueError as error:
        raise PeftError(f"{name!r} {list(shapes[0])} and {link.theirs[0]!r}: {error}") from error


def theirs_shape(link: Link, leaves: Mapping[str, Any]) -> Shape:
    """The shape of their weight."""
    return _theirs_shape(link.layout, tuple(tuple(leaves[leaf].shape) for leaf in link.ours))


@functools.lru_cache(maxsize=256)
def _theirs_shape(turn: Turn, shapes: tuple[Shape, ...]) -> Shape:
    return tuple(turn.save([np.broadcast_to(np.int8(0), shape) for shape in shapes])[0].shape)


@functools.lru_cache(maxsize=64)
def _axes(turn: Turn, position: int, shapes: tuple[Shape, ...], rows: str, layout: Layout | None) -> Axes:
    shape, (height, *rest) = shapes[position], _theirs_shape(turn, shapes)
    if not rest:
        raise ValueError("it is a vector; expected a weight with inputs and outputs")
    width = math.prod(rest)
    row = np.arange(height, dtype=np.int32).reshape(-1, *(1,) * len(rest))
    column = np.arange(width, dtype=np.int32).reshape(1, *rest)
    row, column = (turn.load([np.broadcast_to(side, (height, *rest))])[position] for side in (row, column))
    first, second = (_varying(side) for side in (row, column))
    if first & second or _line(row, first).size * _line(column, second).size != math.prod(shape):
        raise ValueError("the layout mixes inputs and outputs, so that no product of low rank stays one")
    outs, ins = (first, second) if rows == "outs" else (second, first)
    kind = "conv" if len(rest) > 1 else "embedding" if rows == "words" else "dense"
    layout = layout or _layout(len(shape), ins, outs, kind)
    parts = layout.parts(tuple(range(len(shape))))[1:]
    if not (ins <= set(parts[0]) and outs <= set(parts[1])):
        raise ValueError(f"{layout} has other axes for inputs and outputs")
    sides = (column, row) if rows == "outs" else (row, column)
    inner, outer = (_line(side, set(axes)).reshape([shape[i] for i in axes]) for side, axes in zip(sides, parts))
    return Axes(inner, outer, layout, (width, height) if rows == "outs" else (height, width))


def _varying(numbers: np.ndarray) -> set[int]:
    """The axes along which the numbers change."""
    through = [numbers[tuple(slice(None) if i == axis else 0 for i in range(numbers.ndim))]
               for axis in range(numbers.ndim)]  # fmt: skip
    found = {axis for axis, line in enumerate(through) if (line != line[0]).any()}
    if not np.array_equal(np.broadcast_to(_line(numbers, found), numbers.shape), numbers):
        raise ValueError("the layout mixes inputs and outputs, so that no product of low rank stays one")
    return found


def _line(numbers: np.ndarray, axes: set[int]) -> np.ndarray:
    """`numbers` at 0 in all axes but these, which stay."""
    return numbers[tuple(slice(None) if i in axes else slice(0, 1) for i in range(numbers.ndim))]


def _layout(ndim: int, ins: set[int], outs: set[int], kind: str) -> Layout:
    transposed = bool(ins and outs) and min(outs) < min(ins)
    last, first = (ins, outs) if transposed else (outs, ins)
    at = min(last) if last else ndim - 1
    if first and max(first) >= at:
        raise ValueError("inputs and outputs take turns among the axes")
    return Layout(kind, 0, ndim - at if transposed else at, transposed)
