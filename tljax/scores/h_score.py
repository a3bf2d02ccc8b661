"""H-score: the share of the features' spread that lies between classes, summed over directions."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from tljax.scores.inputs import Labelled, class_means, labelled
from tljax.scores.spectrum import Spectrum, coordinates, inverse, spectrum
from tljax.types import Array


def h_score(features: Any, labels: Any) -> float:
    """``tr(cov(F)^+ cov(E[F | y]))``: the sum of squared canonical correlations of features and classes.

    Between 0 and ``min(C - 1, rank)``; higher is better; invariant to invertible linear maps of the features. With
    D >= N it is C - 1 whatever the features are: use `shrinkage_h_score` there.

    Args:
        features: `[N, D]`.
        labels: classes `[N]`.

    Raises `ScoreError` as `labelled` says.

    Reference: Bao et al. 2019, arXiv:2212.10082.

    >>> round(h_score([[0.0, 0.1], [0.0, -0.1], [1.0, 0.1], [1.0, -0.1]], [0, 0, 1, 1]), 4)
    1.0
    """
    data = labelled(features, labels)
    return float(_h_score(data.x, data.y, data.classes))


@partial(jax.jit, static_argnums=2)
def _h_score(x: Array, y: Array, classes: int) -> Array:
    found = spectrum(x)
    counts, means = class_means(x, Labelled(x, y, classes).one_hot)
    whitened = coordinates(found, means) * inverse(found.s)[None]
    return jnp.sum(counts[:, None] * whitened**2)


def shrinkage_h_score(features: Any, labels: Any) -> float:
    """The H-score with the covariance shrunk by Ledoit and Wolf: ``(1 - a) tr(S_a^-1 cov(E[F | y]))``.

        S_a = (1 - a) S + a tr(S) / D I

    Useful for D >= N too. Higher is better.

    Args:
        features: `[N, D]`.
        labels: classes `[N]`.

    Raises `ScoreError` as `labelled` says.

    Reference: Ibrahim et al. 2021, arXiv:2110.06893; Ledoit and Wolf 2004.

    >>> round(shrinkage_h_score([[0.0, 0.1], [0.0, -0.1], [1.0, 0.1], [1.0, -0.1]], [0, 0, 1, 1]), 4)
    1.3026
    """
    data = labelled(features, labels)
    return float(_shrunk(data.x, data.y, data.classes))


@partial(jax.jit, static_argnums=2)
def _shrunk(x: Array, y: Array, classes: int) -> Array:
    return shrunk(x, spectrum(x), Labelled(x, y, classes).one_hot)


def shrunk(x: Array, found: Spectrum, one_hot: Array, width: Array | None = None) -> Array:
    """The shrinkage H-score of `x` `[N, D]`, whose centred spectrum is `found`, and classes `[N, C]`.

    `width` is the number of features where columns of zeros pad them.

    >>> x, classes = jnp.array([[0.0, 0.1], [0.0, -0.1], [1.0, 0.1], [1.0, -0.1]]), jnp.eye(2)[jnp.array([0, 0, 1, 1])]
    >>> round(float(shrunk(x, spectrum(x), classes)), 4)
    1.3026
    """
    n, d = len(x), jnp.asarray(x.shape[1], x.dtype) if width is None else width
    amount = shrinkage(x, found, d)
    counts, means = class_means(x, one_hot)
    # Outside the span of the examples the class means have no part, so K directions are enough.
    spread = (1 - amount) * found.energy / n + amount * jnp.sum(found.energy) / (n * d)
    between = jnp.sum(counts[:, None] * coordinates(found, means) ** 2, axis=0) / (n - 1)
    return (1 - amount) * jnp.sum(jnp.where(spread > 0, between / jnp.where(spread > 0, spread, 1), 0))


def shrinkage(x: Array, found: Spectrum, width: Array | None = None) -> Array:
    """How much to shrink the covariance of `x` `[N, D]` towards a sphere, 0..1; `found` is its centred spectrum.

    `width` is the number of features where columns of zeros pad them.

    >>> x = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> shrinkage(x, spectrum(x)).item()
    0.0
    """
    n, d = len(x), jnp.asarray(x.shape[1], x.dtype) if width is None else width
    total, square = jnp.sum(found.energy) / n, jnp.sum(found.energy**2) / n**2  # tr(S), |S|^2
    delta = (square - total**2 / d) / d
    # sum_jk (X^2)^T (X^2) is the sum over examples of the squared length to the fourth power.
    fourth = jnp.sum(jnp.sum((x - found.mean[None]) ** 2, axis=1) ** 2)
    beta = jnp.minimum((fourth / n - square) / (d * n), delta)
    return jnp.where(delta > 0, jnp.maximum(beta, 0) / jnp.where(delta > 0, delta, 1), 0)
