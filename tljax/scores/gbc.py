"""GBC: how much the classes overlap, each taken for a Gaussian."""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from tljax.scores.inputs import Labelled, ScoreError, class_means, exact, labelled
from tljax.types import Array


def gbc(
    features: Any, labels: Any, *, covariance: Literal["spherical", "diagonal"] = "spherical", floor: float = 1e-4
) -> float:
    """Minus the sum of the Bhattacharyya coefficients of all ordered pairs of classes; at most 0, higher is better.

        - sum_{a != b} exp(-D_ab),
        D_ab = 1/8 sum_d (mu_a - mu_b)^2 / v + 1/2 sum_d [ln v - 1/2 ln v_a - 1/2 ln v_b],    v = (v_a + v_b) / 2

    The paper takes 64 principal components first. A class of one example has no variance but the floor, so at one
    example a class the score is next to 0 whatever the features are.

    Args:
        features: `[N, D]`.
        labels: classes `[N]`.
        covariance: "spherical", one variance a class, the mean over the dimensions; or "diagonal".
        floor: the least variance of a dimension.

    Raises `ScoreError` as `labelled` says, and for another covariance or a floor that is not positive.

    Reference: Pándy et al. 2022, arXiv:2111.12780.

    >>> round(gbc([[0.0], [2.0], [0.0], [2.0]], [0, 0, 1, 1]), 4)
    -2.0
    """
    if covariance not in ("spherical", "diagonal") or not floor > 0:
        raise ScoreError(
            f"covariance is 'spherical' or 'diagonal' and floor positive; found {covariance!r} and {floor!r}"
        )
    data = labelled(features, labels)
    return float(_gbc(data.x, data.y, data.classes, covariance == "spherical", floor))


@partial(jax.jit, static_argnums=(2, 3))
def _gbc(x: Array, y: Array, classes: int, spherical: bool, floor: float) -> Array:
    one_hot = Labelled(x, y, classes).one_hot
    counts, means = class_means(x, one_hot)
    variance = exact(one_hot.T, (x - means[y]) ** 2) / counts[:, None]
    variance = jnp.maximum(variance, jnp.asarray(floor, x.dtype))
    if spherical:
        variance = jnp.broadcast_to(jnp.mean(variance, axis=1, keepdims=True), variance.shape)
    logs = jnp.log(variance)

    def overlap(a: Array) -> Array:
        """The sum over b of the coefficients of class `a` with the others."""
        v = 0.5 * (variance[a][None] + variance)
        shape = 0.5 * jnp.sum(jnp.log(v) - 0.5 * logs[a][None] - 0.5 * logs, axis=1)
        distance = jnp.sum((means[a][None] - means) ** 2 / v, axis=1) / 8 + shape
        return jnp.sum(jnp.where(jnp.arange(classes) == a, 0, jnp.exp(-distance)))

    return -jnp.sum(jax.lax.map(overlap, jnp.arange(classes)))
