"""LFC: whether features are alike where labels are."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from tljax.scores.inputs import Labelled, class_means, exact, labelled
from tljax.types import Array


def lfc(features: Any, labels: Any) -> float:
    """The correlation of the features' Gram matrix with that of the labels; -1..1, higher is better.

        cos(K - mean K, L - mean L),    K = F F^T,    L_ij = 1 where y_i = y_j, else -1

    Neither matrix is formed. With X the centred features and ``a = X mu``, ``K - mean K = X X^T + a 1^T + 1 a^T``, so

        |K - mean K|^2 = |X^T X|^2 + 2 N |a|^2,    <K, L - mean L> = 2 sum_c (|sum_c x|^2 + 2 n_c sum_c a).

    Invariant to the scale of the features, not to a shift.

    Args:
        features: `[N, D]`.
        labels: classes `[N]`.

    Raises `ScoreError` as `labelled` says.

    Reference: Deshpande et al. 2021, arXiv:2102.00084.

    >>> round(lfc([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], [0, 0, 1, 1]), 4)
    1.0
    """
    data = labelled(features, labels)
    return float(_lfc(data.x, data.y, data.classes))


@partial(jax.jit, static_argnums=2)
def _lfc(x: Array, y: Array, classes: int) -> Array:
    n, mean = len(x), jnp.mean(x, axis=0)
    centred = x - mean[None]
    a = exact(centred, mean[:, None])[:, 0]
    counts, means = class_means(centred, Labelled(x, y, classes).one_hot)
    within = counts**2 * jnp.sum(means**2, axis=1) + 2 * counts**2 * exact(means, mean[:, None])[:, 0]
    gram = exact(centred.T, centred) if x.shape[1] <= n else exact(centred, centred.T)
    features = jnp.sum(gram**2) + 2 * n * jnp.sum(a**2)
    same = jnp.sum(counts**2) / n**2
    labels = n**2 * 4 * same * (1 - same)
    return jnp.where(features > 0, 2 * jnp.sum(within) / jnp.sqrt(jnp.where(features > 0, features, 1) * labels), 0)
