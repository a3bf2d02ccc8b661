"""What every probe is given: features and labels that have been checked, and the names of the classes."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from tljax.types import Array, TljaxError

Scaling = Literal["global", "features"]
ABSENT = float(np.finfo(np.float32).min) / 2
"""The bias of a class without examples where scores are logits: finite, and its probability is exactly 0."""


class ProbeError(TljaxError):
    """Features, labels or options that no head can be fitted to."""


@jax.tree_util.register_static
class Names(tuple):
    """The classes `[C]` in the order of a head's columns, as the labels name them; to JAX no array, but a constant."""

    __slots__ = ()


def finite_features(features: Any, what: str = "features") -> Array:
    """`features` `[N, D]` in float32, or in float64 where JAX has it and they are.

    Raises `ProbeError` for another shape, fewer than two rows, or values that are NaN or infinite.

    >>> finite_features([[1, 2], [3, 4]]).dtype
    dtype('float32')
    """
    given = features if isinstance(features, jax.Array) else np.asarray(features)
    if given.ndim != 2 or given.shape[0] < 2 or not given.shape[1]:
        raise ProbeError(f"{what} should be [N, D] with two examples or more; found the shape {given.shape}")
    if given.dtype.kind in "OUSMm":
        raise ProbeError(f"{what} should be numbers; found {given.dtype}")
    x = jnp.asarray(given)
    x = x.astype(x.dtype if x.dtype == jnp.float64 else jnp.float32)
    bad = int(jnp.sum(~jnp.all(jnp.isfinite(x), axis=1)))
    if bad:
        raise ProbeError(f"{what} have values that are NaN or infinite, in {bad} of {len(x)} rows")
    return x


def class_labels(labels: Any, rows: int, num_classes: int | None = None) -> tuple[np.ndarray, Names]:
    """Classes `[N]` int32 in 0..C-1, and their names: the numbers themselves, or the names in order.

    Args:
      labels: `[N]`, integers 0..C-1, or names.
      rows: N, the examples there are.
      num_classes: C; by default as many as the largest label needs. Names tell it themselves.

    Raises `ProbeError` for other shapes, numbers outside of the classes or with a fraction, and for a single class.

    >>> class_labels(["owl", "cat", "owl"], 3)
    (array([1, 0, 1], dtype=int32), ('cat', 'owl'))
    """
    y = np.asarray(labels)
    if y.ndim != 1 or len(y) != rows:
        raise ProbeError(f"there are {rows} rows of features and labels of the shape {y.shape}; expected ({rows},)")
    if y.dtype.kind in "OUS":
        strangers = [label for label in y.tolist() if not isinstance(label, (str, bytes))]
        if strangers:
            raise ProbeError(f"labels are classes, all integers or all names; among them stands {strangers[0]!r}")
        names, y = np.unique(y.astype(str), return_inverse=True)
        classes = Names(names.tolist())
        if num_classes not in (None, len(classes)):
            raise ProbeError(f"num_classes is {num_classes}, and the labels are {len(classes)} names: use integers")
    elif y.dtype.kind in "iub":
        width = int(y.max()) + 1 if num_classes is None else num_classes
        if y.dtype.kind != "b" and (int(y.min()) < 0 or int(y.max()) >= width):
            raise ProbeError(f"labels go from {y.min()} to {y.max()}; expected 0..{width - 1}")
        classes = Names(range(max(width, 2) if y.dtype.kind == "b" else width))
    else:
        raise ProbeError(f"labels are classes, integers or names; found {y.dtype}")
    if len(np.unique(y)) < 2:
        raise ProbeError(f"a probe tells classes apart; all {rows} labels are {classes[int(y[0])]!r}")
    return y.astype(np.int32), classes


def known_labels(labels: Any, rows: int, classes: Sequence[Any]) -> np.ndarray:
    """The positions `[M]` int32 of further labels, such as those of a test set, among the `classes`.

    Raises `ProbeError` for a shape that does not fit, or a label that is none of them.

    >>> known_labels(["owl", "cat"], 2, Names(("cat", "owl")))
    array([1, 0], dtype=int32)
    """
    y = np.asarray(labels)
    if y.shape != (rows,):
        raise ProbeError(f"there are {rows} rows of features and labels of the shape {y.shape}; expected ({rows},)")
    place = {name: i for i, name in enumerate(classes)}
    unknown = [label for label in y.tolist() if label not in place]
    if unknown:
        raise ProbeError(f"the label {unknown[0]!r} is none of the {len(place)} classes that the head was fitted to")
    return np.array([place[label] for label in y.tolist()], np.int32)


def scaling(x: Array, kind: Scaling | None) -> Array:
    """What features `[N, D]` are divided by, `[D]`: 1, one deviation for all, or each feature's own.

    Features that do not vary are divided by 1. Raises `ProbeError` for another `kind`.

    >>> scaling(jnp.array([[0.0, 3.0], [2.0, 3.0]]), "features").tolist()
    [1.0, 1.0]
    """
    if kind is None:
        return jnp.ones(x.shape[1], x.dtype)
    if kind not in ("global", "features"):
        raise ProbeError(f"scale is None, 'global' or 'features'; found {kind!r}")
    centred = x - jnp.mean(x, axis=0, keepdims=True)
    size = jnp.max(jnp.abs(centred), axis=0)  # so that no square overflows
    if kind == "global":
        size = jnp.broadcast_to(jnp.max(size, keepdims=True), size.shape)
    unit = jnp.where(size > jnp.max(jnp.abs(x), axis=0) * 10 * jnp.finfo(x.dtype).eps, size, jnp.inf)
    squares = jnp.mean(jnp.square(centred / unit[None]), axis=0)
    if kind == "global":
        squares = jnp.broadcast_to(jnp.mean(squares, keepdims=True), squares.shape)
    return jnp.where(squares > 0, jnp.sqrt(squares) * size, 1)


def positive(values: Any, what: str) -> np.ndarray:
    """Strengths `[L]` float64.

    Raises `ProbeError` unless they are one or more, positive and finite.

    >>> positive(2, "strengths are lambdas").tolist()
    [2.0]
    """
    found = np.atleast_1d(np.asarray(values, float))
    if found.ndim != 1 or not found.size or not np.all((found > 0) & np.isfinite(found)):
        raise ProbeError(f"{what}, one or more, positive and finite; found {values!r}")
    return found


def group_members(groups: Any, rows: int) -> np.ndarray:
    """The row numbers `[G, g]` int32 of each group, filled up with `rows` to one length.

    Raises `ProbeError` for another shape, or fewer than two groups.

    >>> group_members(["a", "b", "a"], 3).tolist()
    [[0, 2], [1, 3]]
    """
    given = np.asarray(groups)
    if given.shape != (rows,):
        raise ProbeError(f"there are {rows} rows of features and groups of the shape {given.shape}; expected ({rows},)")
    names, place = np.unique(given, return_inverse=True)
    if len(names) < 2:
        raise ProbeError(f"all {rows} examples are of the group {names[0].item()!r}: without it nothing is left to fit")
    order = np.argsort(place, kind="stable")
    sizes = np.bincount(place)
    found = np.full((len(names), sizes.max()), rows, np.int32)
    within = np.arange(rows) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    found[place[order], within] = order
    return found


def row_numbers(subsets: Any, rows: int) -> np.ndarray:
    """Subsets of one size as row numbers `[S, n]` int32.

    Raises `ProbeError` for another shape, fewer than two a subset, or numbers that are no rows.

    >>> row_numbers([[0, 2]], 3).tolist()
    [[0, 2]]
    """
    found = np.asarray(subsets)
    if found.ndim != 2 or found.dtype.kind not in "iu" or not len(found) or found.shape[1] < 2:
        raise ProbeError(f"subsets are row numbers [S, n], n of 2 or more; found {found.dtype} {found.shape}")
    if int(found.min()) < 0 or int(found.max()) >= rows:
        raise ProbeError(f"subsets hold the row numbers {found.min()} to {found.max()}; expected 0..{rows - 1}")
    return found.astype(np.int32)
