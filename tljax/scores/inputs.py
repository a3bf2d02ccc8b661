"""What every score is given: features and labels that have been checked."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax.types import Array, TljaxError


class ScoreError(TljaxError):
    """Features or labels that have no score."""


class Labelled(NamedTuple):
    """Features and classes; classes that do not occur are left out, the others counted from 0."""

    x: Array
    """`[N, D]` in float32, or float64 where that is enabled and given."""
    y: Array
    """`[N]` int32 in 0..C-1; every class occurs."""
    classes: int
    """C."""

    @property
    def one_hot(self) -> Array:
        """`[N, C]`, 1 at the class of each example."""
        return jax.nn.one_hot(self.y, self.classes, dtype=self.x.dtype)


def labelled(features: Any, labels: Any, *, what: str = "features") -> Labelled:
    """`features` `[N, D]` and `labels` `[N]` of any kind, integers or names, as the scores read them.

    Raises `ScoreError` for other shapes, values that are not finite, and labels of fewer than two classes.

    >>> data = labelled([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], ["cat", "dog", "cat"])
    >>> data.x.shape, data.y.tolist(), data.classes
    ((3, 2), [0, 1, 0], 2)
    """
    x, names = floats(features, what), np.asarray(labels)
    if names.ndim != 1 or len(names) != len(x):
        raise ScoreError(f"{what} {x.shape} need one label each, [{len(x)}]; found labels of shape {names.shape}")
    if names.dtype.kind == "f":
        if not np.all(names == np.round(names)):
            raise ScoreError(
                "labels are classes, integers or names; found numbers with a fraction: a regression has no classes"
            )
        names = names.astype(np.int64)
    present, y = np.unique(names, return_inverse=True)
    if len(present) < 2:
        raise ScoreError(f"a score compares classes; all {len(x)} labels are {present.tolist()}")
    return Labelled(x, jnp.asarray(y.reshape(-1), jnp.int32), len(present))


def floats(features: Any, what: str) -> Array:
    """`features` as a floating matrix.

    Raises `ScoreError` unless it is `[N, D]`, not empty, and finite.

    >>> floats([[1, 2], [3, 4]], "features").dtype
    dtype('float32')
    """
    x = jnp.asarray(features)
    if x.ndim != 2 or 0 in x.shape:
        raise ScoreError(f"{what} must be [N, D], one row an example; found the shape {x.shape}")
    if x.dtype not in (jnp.float32, jnp.float64):
        x = x.astype(jnp.float32)
    bad = int(jnp.sum(~jnp.all(jnp.isfinite(x), axis=1)))
    if bad:
        raise ScoreError(f"{what} of {bad} of {len(x)} examples hold NaN or infinity; drop or repair them first")
    return x


def class_means(x: Array, one_hot: Array) -> tuple[Array, Array]:
    """The number `[C]` and the mean `[C, D]` of the examples of each class; of none, the mean is 0.

    >>> class_means(jnp.array([[1.0], [3.0]]), jnp.array([[1.0, 0.0], [1.0, 0.0]]))[1].tolist()
    [[2.0], [0.0]]
    """
    counts = jnp.sum(one_hot, axis=0)
    return counts, exact(one_hot.T, x) / jnp.maximum(counts, 1)[:, None]


def exact(a: Array, b: Array) -> Array:
    """The product of two matrices at full precision, where accelerators would round to fewer bits.

    >>> exact(jnp.ones((1, 2)), jnp.ones((2, 1))).item()
    2.0
    """
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
