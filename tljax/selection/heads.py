"""What heads predict for the example that they have not seen, from one decomposition or one matrix of cosines."""

import jax
import jax.numpy as jnp

from tljax.probes.ridge import GRID
from tljax.scores.inputs import exact
from tljax.scores.spectrum import Spectrum
from tljax.types import Array


def ridge_left_out(found: Spectrum, targets: Array) -> Array:
    """`[N, C]`: what ridge regression without each example predicts for it, at the strength of least squared error.

    `found` is the centred spectrum of the features, `targets` `[N, C]`. See `tljax.probes.ridge` for the formula.

    >>> from tljax.scores.spectrum import spectrum
    >>> x, t = jnp.array([[0.0], [1.0], [2.0], [3.0]]), jnp.array([[1.0], [3.0], [5.0], [7.0]])
    >>> ridge_left_out(spectrum(x), t)[:, 0].round(1).tolist()
    [1.0, 3.0, 5.0, 7.0]
    """
    n, dtype = len(targets), targets.dtype
    t = targets - jnp.mean(targets, axis=0, keepdims=True)
    u = jnp.where(found.s > 0, found.u, 0)
    partial = jnp.sum(found.s > 0) < n - 1  # else nothing lies outside of the features' span
    inside = exact(u.T, t)
    outside = jnp.where(partial, t - exact(u, inside), 0)
    rest = jnp.where(partial, jnp.maximum(1 - 1 / jnp.asarray(n, dtype) - jnp.sum(u**2, axis=1), 0), 0)
    size = jnp.sum(found.energy) / jnp.maximum(jnp.sum(found.s > 0), 1).astype(dtype)
    strengths = jnp.asarray(GRID, dtype) * jnp.where(size > 0, size, 1)

    def lacking(strength: Array) -> Array:
        kept = strength / (found.energy + strength)
        residual = outside + exact(u, kept[:, None] * inside)
        return residual / (rest + exact(u**2, kept[:, None])[:, 0])[:, None]

    errors = jax.lax.map(lambda strength: jnp.mean(lacking(strength) ** 2), strengths)
    return targets - lacking(strengths[jnp.argmin(jnp.where(jnp.isnan(errors), jnp.inf, errors))])


def neighbours_left_out(cosines: Array, one_hot: Array, k: int) -> Array:
    """`[N, C]`: the votes of the `k` nearest others; of classes with equally many, the nearer ones have a bit more.

    >>> cosines = jnp.array([[1.0, 0.9, 0.1], [0.9, 1.0, 0.2], [0.1, 0.2, 1.0]])
    >>> neighbours_left_out(cosines, jnp.eye(2)[jnp.array([0, 0, 1])], 1).argmax(-1).tolist()
    [0, 0, 0]
    """
    near = jnp.where(jnp.eye(len(cosines), dtype=bool), -jnp.inf, cosines)
    best, found = jax.lax.top_k(near, k)
    return jnp.sum((1 + best / (4 * k))[:, :, None] * one_hot[found], axis=1)


def centroids_left_out(cosines: Array, one_hot: Array) -> Array:
    """`[N, C]`: the cosine to the mean of each class's normalised features, the example itself left out of its own.

    A class of which nothing is left has -1.

    >>> cosines = jnp.array([[1.0, 0.9, 0.1], [0.9, 1.0, 0.2], [0.1, 0.2, 1.0]])
    >>> found = centroids_left_out(cosines, jnp.eye(2)[jnp.array([0, 0, 1])])
    >>> [[round(value, 2) for value in row] for row in found.tolist()]
    [[0.9, 0.1], [0.9, 0.2], [0.15, -1.0]]
    """
    own = jnp.diagonal(cosines)[:, None] * one_hot
    sums = exact(cosines, one_hot)  # with the sum of class c
    squares = jnp.sum(one_hot * sums, axis=0)  # the squared length of that sum
    inner = sums - own
    length = jnp.maximum(squares[None] - 2 * sums * one_hot + own, 0)
    left = jnp.sum(one_hot, axis=0)[None] - one_hot > 0
    return jnp.where(left & (length > 1e-9), inner / jnp.sqrt(jnp.where(length > 1e-9, length, 1)), -1)
