"""PARC: whether examples of different classes lie further apart than those of one."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tljax.scores.inputs import ScoreError, exact, labelled
from tljax.scores.spectrum import coordinates, spectrum
from tljax.types import Array


def parc(features: Any, labels: Any, *, components: int | None = None) -> float:
    """100 times Spearman's correlation, over pairs of examples, of the features' distance and "of different classes".

    The distance is 1 - Pearson's correlation of standardised features. As the labels' distance has two values alone,
    the correlation is that of a rank test: with A the probability that a pair of different classes is further apart
    than one of the same class (ties count half), p the share of pairs of different classes, q = 1 - p, and M pairs,

        PARC = 100 (2 A - 1) sqrt(3 p q) M / sqrt(M^2 - 1)   when no two distances are equal.

    Ties of labels are exact here; published code computes them in floating point and breaks them by rounding. Costs
    O(N^2 log N): take a few hundred examples.

    Args:
        features: `[N, D]`.
        labels: classes `[N]`.
        components: principal components to reduce to first (32 in the paper); None for none.

    Raises `ScoreError` as `labelled` says, for fewer than three examples or no two of one class, and for fewer than
    one component.

    Reference: Bolya et al. 2021, arXiv:2111.06977.

    >>> round(parc([[1.0, 0.0, 0.1], [0.9, 0.1, 0.0], [0.0, 1.0, 0.9], [0.1, 0.9, 1.0]], [0, 0, 1, 1]), 1)
    85.3
    """
    data = labelled(features, labels)
    if data.classes == len(data.x):
        raise ScoreError(f"parc compares pairs of one class with others; all {len(data.x)} examples differ in class")
    if components is not None and components < 1:
        raise ScoreError(f"components must be 1 or more, or None; found {components!r}")
    x = data.x
    if components is not None:
        found = spectrum(x)
        x = coordinates(found, x)[:, :components]
    pairs = np.triu_indices(len(x), 1)
    distance, y = np.asarray(_distances(x))[pairs], np.asarray(data.y)
    return _spearman(distance, y[pairs[0]] != y[pairs[1]])


@partial(jax.jit)
def _distances(x: Array) -> Array:
    z = _over(x - jnp.mean(x, axis=0, keepdims=True), jnp.std(x, axis=0, keepdims=True))
    z = z - jnp.mean(z, axis=1, keepdims=True)
    z = _over(z, jnp.linalg.norm(z, axis=1, keepdims=True))
    return 1 - exact(z, z.T)


def _over(x: Array, scale: Array) -> Array:
    """`x` over `scale`; what does not vary becomes 0."""
    return jnp.where(scale > 0, x / jnp.where(scale > 0, scale, 1), 0)


def _spearman(values: np.ndarray, marked: np.ndarray) -> float:
    """100 times the rank correlation of `values` with a mark."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - 0.5 * (counts - 1))[inverse.reshape(-1)]
    spread, p = ranks.std(), marked.mean()
    if spread == 0 or p in (0, 1):
        return 0.0
    return float(100 * (ranks[marked].mean() - ranks[~marked].mean()) * math.sqrt(p * (1 - p)) / spread)
