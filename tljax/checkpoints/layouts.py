"""How the same numbers are laid out in another project's file: reversible, and exact to the bit.

A layout is a pair of functions on lists of arrays: `load` makes our leaves of theirs, `save` makes theirs of ours.
Most take one array and give one; a fused projection takes one and gives three.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tljax.types import TljaxError

Arrays = Sequence[np.ndarray]


class LayoutError(TljaxError):
    """An array that a layout cannot take."""


class Layout(NamedTuple):
    """A reversible change of layout: ``save(load(theirs)) == theirs`` and ``load(save(ours)) == ours``, bit for bit."""

    name: str
    load: Callable[[Arrays], list[np.ndarray]]
    """From their arrays to ours."""
    save: Callable[[Arrays], list[np.ndarray]]
    """From our arrays to theirs."""
    ours: int = 1
    """How many arrays of ours it takes."""
    theirs: int = 1
    """How many of theirs."""


def one(name: str, load: Callable[[np.ndarray], np.ndarray], save: Callable[[np.ndarray], np.ndarray]) -> Layout:
    """The layout of one array of ours as one of theirs.

    >>> flipped = one("flipped", lambda a: a[::-1], lambda a: a[::-1])
    >>> flipped.load([np.arange(3)])
    [array([2, 1, 0])]
    """
    return Layout(name, lambda arrays: [load(arrays[0])], lambda arrays: [save(arrays[0])])


def transposed(*axes: int) -> Layout:
    """Ours is theirs with its axes in this order.

    >>> transposed(2, 3, 1, 0).load([np.zeros((8, 3, 5, 7))])[0].shape
    (5, 7, 3, 8)
    """
    back = tuple(int(i) for i in np.argsort(axes))

    def turn(array: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
        if array.ndim != len(order):
            raise LayoutError(f"expected {len(order)} axes, found the shape {list(array.shape)}")
        return array.transpose(order)

    return one(f"transposed{axes}", lambda a: turn(a, axes), lambda a: turn(a, back))


def squeezed(*axes: int) -> Layout:
    """Ours lacks axes of length 1 that theirs has.

    >>> squeezed(0, 1).load([np.zeros((1, 1, 6))])[0].shape
    (6,)
    """
    return _squeeze_or_expand(f"squeezed{axes}", axes, ours_lacks=True)


def expanded(*axes: int) -> Layout:
    """Ours has axes of length 1 that theirs lacks: a class token `[1, 1, D]` for their `[D]`.

    >>> expanded(0, 1).load([np.zeros(6)])[0].shape
    (1, 1, 6)
    """
    return _squeeze_or_expand(f"expanded{axes}", axes, ours_lacks=False)


def joined(parts: int, axis: int = 0, inner: Layout | None = None) -> Layout:
    """Their one array is ours of equal sizes, one after the other along their `axis`: fused query, key and value.

    `inner` is the layout of each part.

    >>> query, key, value = joined(3, inner=DENSE).load([np.zeros((12, 5))])
    >>> query.shape
    (5, 4)
    """
    inner = inner or SAME

    def load(arrays: Arrays) -> list[np.ndarray]:
        fused = arrays[0]
        if fused.ndim <= axis or fused.shape[axis] % parts:
            raise LayoutError(f"expected {parts} equal parts along axis {axis}, found the shape {list(fused.shape)}")
        return [inner.load([part])[0] for part in np.split(fused, parts, axis)]

    def save(arrays: Arrays) -> list[np.ndarray]:
        split = [inner.save([part])[0] for part in arrays]
        if any(part.shape != split[0].shape for part in split):
            raise LayoutError(f"expected equal parts, found the shapes {[list(part.shape) for part in split]}")
        return [np.concatenate(split, axis)]

    return Layout(f"joined({parts}, {inner.name})", load, save, ours=parts)


def flattened(channels: int) -> Layout:
    """A dense kernel that reads a square map of `channels`, flattened: ours `[H·W·C, D]`, torch's `[D, C·H·W]`.

    >>> flattened(64).load([np.zeros((200, 3136))])[0].shape
    (3136, 200)
    """

    def side(rows: int) -> int:
        n = math.isqrt(rows // channels)
        if n * n * channels != rows:
            raise LayoutError(f"expected the rows of a square map of {channels} channels, found {rows}")
        return n

    def load(array: np.ndarray) -> np.ndarray:
        outputs, rows = array.shape
        maps = array.reshape(outputs, channels, side(rows), side(rows))
        return maps.transpose(2, 3, 1, 0).reshape(rows, outputs)

    def save(array: np.ndarray) -> np.ndarray:
        rows, outputs = array.shape
        maps = array.reshape(side(rows), side(rows), channels, outputs)
        return maps.transpose(3, 2, 0, 1).reshape(outputs, rows)

    return one(f"flattened({channels})", load, save)


def _squeeze_or_expand(name: str, axes: tuple[int, ...], ours_lacks: bool) -> Layout:
    def squeeze(array: np.ndarray) -> np.ndarray:
        if any(axis >= array.ndim or array.shape[axis] != 1 for axis in axes):
            raise LayoutError(f"expected axes {axes} of length 1, found the shape {list(array.shape)}")
        return array.squeeze(axes)

    def expand(array: np.ndarray) -> np.ndarray:
        return np.expand_dims(array, axes)

    return one(name, squeeze, expand) if ours_lacks else one(name, expand, squeeze)


SAME = one("same", lambda a: a, lambda a: a)
DENSE = transposed(1, 0)
"""A dense kernel: ours `[in, out]`, torch's weight `[out, in]`."""
CONV = transposed(2, 3, 1, 0)
"""A convolution kernel: ours `[H, W, in / groups, out]`, torch's weight `[out, in / groups, H, W]`; also depthwise."""
