"""What features are extracted of: examples in memory or in a stream, with or without labels."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import jax
import numpy as np

from tljax.data import ExampleStream, in_turn
from tljax.data.feed import filled
from tljax.types import Batch, TljaxError


class FeatureError(TljaxError):
    """Data, a layer or a pooling that has no features."""


class Examples(NamedTuple):
    """The examples, whatever form they came in."""

    x: Any
    """Arrays `[N, ...]` of NumPy, or the stream."""
    y: np.ndarray | None
    """The labels `[N, ...]`, numbers; None without labels, or where the stream has them."""
    classes: tuple[str, ...]
    size: int

    @property
    def streamed(self) -> bool:
        """Whether they are read batch by batch."""
        return isinstance(self.x, ExampleStream)

    def sample(self) -> Any:
        """The shapes and dtypes of two examples."""
        x = self.x.examples([0]).x if isinstance(self.x, ExampleStream) else self.x
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((2, *leaf.shape[1:]), leaf.dtype), x)

    @contextmanager
    def batches(self, size: int) -> Iterator[Iterator[Batch]]:
        """All examples once, `size` at a time; the last batch is filled up."""
        slices = in_turn(self.x, size) if isinstance(self.x, ExampleStream) else nullcontext(self._slices(size))
        with slices as parts:
            yield (part if len(jax.tree.leaves(part.x)[0]) == size else filled(part, size) for part in parts)

    def _slices(self, size: int) -> Iterator[Batch]:
        for first in range(0, self.size, size):
            rows = slice(first, first + size)
            yield Batch(jax.tree.map(lambda leaf, rows=rows: leaf[rows], self.x))


def examples(data: Any) -> Examples:
    """`data` as `extract` takes it.

    Raises `FeatureError` for no examples, and for inputs or labels of different lengths.

    >>> found = examples((np.zeros((3, 2), np.float32), ["cat", "dog", "cat"]))
    >>> found.size, found.y.tolist(), found.classes
    (3, [0, 1, 0], ('cat', 'dog'))
    """
    if isinstance(data, ExampleStream):
        return Examples(data, None, data.classes, len(data))
    if hasattr(data, "x") and hasattr(data, "y"):
        x, y, classes = data.x, data.y, getattr(data, "classes", None)
    elif isinstance(data, tuple | list) and len(data) == 2:
        (x, y), classes = data, None
    else:
        x, y, classes = data, None, None
    x = jax.tree.map(_array, x, is_leaf=lambda node: isinstance(node, list))
    shapes = [leaf.shape for leaf in jax.tree.leaves(x)]
    sizes = {shape[0] if shape else 0 for shape in shapes}
    if len(sizes) != 1 or 0 in sizes:
        raise FeatureError(f"x must be examples on the first axis of every array, one or more; found shapes {shapes}")
    labels, names = _labels(y)
    if labels is not None and len(labels) not in sizes:
        raise FeatureError(f"x holds {sizes.pop()} examples and y {len(labels)} labels; each needs the other")
    return Examples(x, labels, tuple(map(str, classes or names)), sizes.pop())


def _array(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    if array.dtype.kind in "OSUMm":
        raise FeatureError(f"x must be numbers; found {type(leaf).__name__} of {array.dtype}")
    if array.dtype == np.float64:
        array = array.astype(jax.dtypes.canonicalize_dtype(array.dtype))
    return array


def _labels(y: Any) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The labels as numbers, and the names that they had."""
    if y is None:
        return None, ()
    labels = np.asarray(y)
    if not labels.ndim:
        raise FeatureError(f"y must be labels [N, ...]; found {y!r}")
    if labels.dtype.kind not in "OSU":
        return labels, ()
    names, codes = np.unique(labels.astype(str), return_inverse=True)
    return codes.reshape(labels.shape).astype(np.int32), tuple(names.tolist())


def mask_of(x: Any) -> Any:
    """Which tokens are no padding, `[B, S]`, where the inputs say so as ``x["mask"]``; else None.

    >>> mask_of({"ids": np.ones((1, 2)), "mask": np.array([[1, 0]])}).tolist(), mask_of(np.ones(2))
    ([[1, 0]], None)
    """
    return x.get("mask") if isinstance(x, Mapping) else None
