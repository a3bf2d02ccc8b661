"""SFDA: discriminant analysis that is made harder where it is sure."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from tljax.scores.inputs import Labelled, class_means, exact, labelled
from tljax.types import Array


def sfda(features: Any, labels: Any) -> float:
    """The mean probability of the right class under a self-challenging linear discriminant; 0..1, higher is better.

        S = (1 - l) S_w + l tr(S_w) / D I,    l = max(exp(-5 s), 1e-10), s the largest eigenvalue of S_w
        p = softmax_c(x^T S^-1 mu_c - 1/2 mu_c^T S^-1 mu_c + ln pi_c)

    A second softmax of p says how sure the model is of an example, which is mixed with the mean of the other classes'
    means in proportion; the discriminant is fitted anew with the same l, and scored. As in the authors' code, s comes
    of three power iterations from the row sums of S_w, so the score depends on the units of the features. It is
    measured on the examples that it is fitted to: with D near N or above it says 1 of anything.

    Args:
        features: `[N, D]`.
        labels: classes `[N]`.

    Raises `ScoreError` as `labelled` says.

    Reference: Shao et al. 2022, arXiv:2207.03036.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 3, 60)
    >>> sfda(np.eye(3)[labels] + 0.1 * rng.normal(size=(60, 3)), labels) > sfda(rng.normal(size=(60, 3)), labels)
    True
    """
    data = labelled(features, labels)
    return float(_sfda(data.x, data.y, data.classes))


@partial(jax.jit, static_argnums=2)
def _sfda(x: Array, y: Array, classes: int) -> Array:
    one_hot = Labelled(x, y, classes).one_hot
    first, means, amount = _posterior(x, y, one_hot, None)
    sure = _of(jax.nn.softmax(first, axis=1), y)[:, None]
    others = (jnp.sum(means, axis=0, keepdims=True) - means) / (classes - 1)
    second, _, _ = _posterior(sure * x + (1 - sure) * others[y], y, one_hot, amount)
    return jnp.mean(_of(second, y))


def _of(probabilities: Array, y: Array) -> Array:
    return jnp.take_along_axis(probabilities, y[:, None], axis=1)[:, 0]


def _posterior(x: Array, y: Array, one_hot: Array, amount: Array | None) -> tuple[Array, Array, Array]:
    """Class probabilities `[N, C]`, class means `[C, D]`, and the shrinkage."""
    counts, means = class_means(x, one_hot)
    n, d = x.shape
    within = x - means[y]
    _, s, vt = jnp.linalg.svd(within, full_matrices=False)
    variance = s**2 / n
    if amount is None:
        amount = jnp.maximum(jnp.exp(-5 * _largest(within)), 1e-10)
    # Never zero, so that classes of one example each, and features that are constant, have a score too.
    least = jnp.finfo(x.dtype).eps * jnp.mean(x**2) + jnp.finfo(x.dtype).tiny
    sphere = jnp.maximum(amount * jnp.sum(variance) / d, least)
    # S^-1 mu, along the directions of the examples and across them.
    along = exact(means, vt.T)
    across = (means - exact(along, vt)) / sphere
    weights = exact(along / ((1 - amount) * variance + sphere)[None], vt) + (across if d > len(s) else 0)
    bias = jnp.log(counts / n) - 0.5 * jnp.sum(means * weights, axis=1)
    return jax.nn.softmax(exact(x, weights.T) + bias[None], axis=1), means, amount


def _largest(within: Array) -> Array:
    """The largest eigenvalue of ``within^T within / N`` as the authors estimate it."""

    def times(v: Array) -> Array:
        return exact(within.T, exact(within, v[:, None]))[:, 0] / len(within)

    def unit(v: Array) -> Array:
        length = jnp.linalg.norm(v)
        return v / jnp.where(length > 0, length, 1)

    v = times(jnp.ones_like(within[0]))
    before = v
    for _ in range(3):
        before = unit(times(v))
        v = unit(times(before))
    return jnp.sum(v * times(before))
