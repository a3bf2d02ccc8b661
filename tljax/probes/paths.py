r"""Ridge regression on many subsets of one set of features, at every strength, in one compiled program.

Few-shot experiments ask for thousands of heads: draws of labelled examples times strengths. For each subset one
eigendecomposition of the smaller Gram matrix, :math:`X X^T` or :math:`X^T X`, gives all strengths, their exact
leave-one-out errors and their test predictions. A Gram matrix squares what single precision cannot hold, so it is
formed and decomposed in double precision, which is the cheap part; test predictions are in single precision.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax.probes.inputs import ProbeError, class_labels, finite_features, known_labels, positive, row_numbers
from tljax.probes.left_out import Fit, centred, dot
from tljax.probes.ridge import GRID
from tljax.types import Array


class RidgePaths(NamedTuple):
    """How well each of S subsets does at each of L strengths."""

    strengths: Array
    """The lambdas `[S, L]`."""
    errors: Array
    """Mean squared leave-one-out errors `[S, L]`."""
    loo_accuracy: Array
    """The share of a subset's examples whose class is predicted without them, `[S, L]`."""
    test_accuracy: Array
    """The share of the test examples whose class is predicted, `[S, L]`; NaN without any."""

    @property
    def chosen(self) -> np.ndarray:
        """The strength with the least leave-one-out error of each subset, as a position `[S]`."""
        return np.argmin(np.asarray(self.errors), axis=1)


def ridge_paths(
    features: Any,
    labels: Any,
    subsets: Any,
    *,
    test_features: Any = None,
    test_labels: Any = None,
    num_classes: int | None = None,
    strengths: Any = None,
) -> RidgePaths:
    """`ridge` on each of `subsets` at every strength: leave-one-out error, leave-one-out and test accuracy.

    Each row is what `ridge(features[rows], labels[rows])` finds, but for rounding. Subsets are mapped one after the
    other on CPUs, and batched on accelerators.

    Args:
      features: `[N, D]`, from which subsets are drawn.
      labels: classes `[N]`, integers or names.
      subsets: row numbers `[S, n]`, n of 2 or more; a subset may lack classes.
      test_features: `[M, D]`.
      test_labels: classes `[M]`, as `labels` name them.
      num_classes: as `ridge` takes it.
      strengths: lambdas `[L]` for all subsets; default: for each subset as in `ridge`.

    Raises `ProbeError` as `ridge` does, for row numbers that do not exist, and for test data that do not fit.

    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(40) % 2
    >>> x = rng.normal(size=(40, 3)) + 3 * y[:, None]
    >>> found = ridge_paths(x[:20], y[:20], [[0, 1, 2, 3], [4, 5, 6, 7]], test_features=x[20:], test_labels=y[20:])
    >>> found.test_accuracy.shape, bool((found.test_accuracy[:, 4:] > 0.9).all())
    ((2, 13), True)
    """
    x = finite_features(features)
    y, classes = class_labels(labels, len(x), num_classes)
    rows = row_numbers(subsets, len(x))
    tried = None if strengths is None else positive(strengths, "strengths are lambdas")
    if test_features is None:
        test, known = jnp.zeros((0, x.shape[1]), x.dtype), np.zeros(0, np.int32)
    else:
        test = finite_features(test_features, "test_features")
        known = known_labels(test_labels, len(test), classes)
    if test.shape[1] != x.shape[1]:
        raise ProbeError(f"test_features should be [M, {x.shape[1]}]; found the shape {test.shape}")
    batched = jax.default_backend() != "cpu"
    with jax.enable_x64(True):
        found = _paths(x, y, rows, test, known, tried, len(classes), batched)
    return RidgePaths(*(jnp.asarray(np.asarray(value), x.dtype) for value in found))


@functools.partial(jax.jit, static_argnums=(6, 7))
def _paths(
    x: Array, y: Array, rows: Array, test: Array, known: Array, strengths: Array | None, classes: int, batched: bool
) -> tuple[Array, ...]:
    def one(rows: Array) -> tuple[Array, ...]:
        return _subset(x[rows].astype(jnp.float64), y[rows], test, known, strengths, classes)

    return jax.vmap(one)(rows) if batched else jax.lax.map(one, rows)


def _subset(x: Array, y: Array, test: Array, known: Array, strengths: Array | None, classes: int) -> tuple[Array, ...]:
    targets = 2 * jax.nn.one_hot(y, classes, dtype=x.dtype) - 1
    (mean, around), offset = centred(x), jnp.mean(targets, axis=0)
    wide = len(x) <= x.shape[1]
    squares, vectors = jnp.linalg.eigh(dot(around, around.T) if wide else dot(around.T, around))
    squares = jnp.where(squares > squares[-1] * max(x.shape) * jnp.finfo(x.dtype).eps, squares, 0)
    inverse = jnp.where(squares > 0, 1 / jnp.where(squares > 0, squares, 1), 0)
    u = vectors * (inverse > 0)[None].astype(x.dtype) if wide else dot(around, vectors) * jnp.sqrt(inverse)[None]
    if strengths is None:
        total = jnp.sum(squares) / min(x.shape)
        strengths = jnp.asarray(GRID, x.dtype) * jnp.where(total > 0, total, 1)
    fit = Fit(u, squares, targets - offset[None])
    # One product for all strengths: U (U^T T / (s^2 + lambda)), [n, L, C]; times lambda, what is lacking inside.
    both = squares[:, None] + strengths[None]  # [R, L]
    shrunk = fit.inside[:, None, :] / both[..., None]
    dual = dot(u, shrunk.reshape(len(squares), -1))
    lack = fit.outside[:, None, :] + strengths[None, :, None] * dual.reshape(len(x), len(strengths), classes)
    lack = lack / (fit.rest[:, None] + dot(jnp.square(u), strengths[None] / both))[..., None]
    hits = jnp.argmax(targets[:, None, :] - lack, axis=-1).astype(y.dtype) == y[:, None]
    scaled = (jnp.sqrt(squares)[:, None, None] * shrunk).reshape(len(squares), -1)
    weights = dot(around.T, dual) if wide else dot(vectors, scaled)  # [D, L C]
    biases = jnp.tile(offset, len(strengths)) - dot(mean, weights)
    said = dot(test, weights.astype(test.dtype)) + biases.astype(test.dtype)[None]
    said = said.reshape(len(test), len(strengths), classes)
    right = jnp.argmax(said, axis=-1).astype(known.dtype) == known[:, None]
    errors = jnp.mean(jnp.square(lack), axis=(0, 2))
    return strengths, errors, jnp.mean(hits.astype(x.dtype), axis=0), jnp.mean(right.astype(x.dtype), axis=0)
