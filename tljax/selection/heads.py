"""What heads predict for the example that they have not seen, from the cosines between examples alone."""

import jax
import jax.numpy as jnp

from tljax.probes.left_out import Fit, dot, left_out
from tljax.probes.ridge import GRID
from tljax.scores.spectrum import Spectrum
from tljax.types import Array


def gram_spectrum(gram: Array) -> Spectrum:
    """The centred spectrum of features of which the inner products `[N, N]` are given, turned so that V is 1.

    ``u * s`` are the centred features in another basis, in which nothing that is measured here differs. The inner
    products must be float64: they square what float32 cannot hold.

    >>> with jax.enable_x64(True):
    ...     found = gram_spectrum(jnp.array([[2.0, 6.0], [6.0, 18.0]]))
    ...     found.s.round(6).tolist()
    [2.0, 0.0]
    """
    rows = jnp.mean(gram, axis=0)
    centred = gram - rows[None] - rows[:, None] + jnp.mean(rows)
    squares, vectors = jnp.linalg.eigh(centred)
    squares, vectors = squares[::-1], vectors[:, ::-1]
    # What was taken off leaves rounding errors of its own size: one of them is the direction of the intercept, which
    # would be counted twice.
    size = jnp.maximum(squares[0], jnp.max(jnp.diagonal(gram)))
    real = squares > 10 * size * len(gram) * jnp.finfo(gram.dtype).eps
    s = jnp.sqrt(jnp.where(real, squares, 0))
    return Spectrum(vectors * real[None].astype(gram.dtype), s, jnp.eye(len(gram), dtype=gram.dtype), 0 * s)


def ridge_left_out(found: Spectrum, targets: Array, width: Array) -> Array:
    """`[N, C]`: what ridge regression without each example predicts for it, at the strength of least squared error.

    `found` is the centred spectrum of `width` features, `targets` `[N, C]`. See `tljax.probes.ridge`.

    >>> x, t = jnp.array([0.0, 1.0, 2.0, 3.0]), jnp.array([[1.0], [3.0], [5.0], [7.0]])
    >>> ridge_left_out(gram_spectrum(x[:, None] * x[None]), t, jnp.float32(1.0))[:, 0].round(1).tolist()
    [1.0, 3.0, 5.0, 7.0]
    """
    size = jnp.sum(found.energy) / jnp.minimum(width, len(targets))
    strengths = jnp.asarray(GRID, targets.dtype) * jnp.where(size > 0, size, 1)
    lacking = left_out(Fit(found.u, found.energy, targets - jnp.mean(targets, axis=0, keepdims=True)), strengths)
    errors = jnp.mean(lacking**2, axis=(1, 2))
    return targets - lacking[jnp.argmin(jnp.where(jnp.isnan(errors), jnp.inf, errors))]


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
    sums = dot(cosines, one_hot)  # with the sum of class c
    squares = jnp.sum(one_hot * sums, axis=0)  # the squared length of that sum
    length = jnp.maximum(squares[None] - 2 * sums * one_hot + own, 0)
    left = jnp.sum(one_hot, axis=0)[None] - one_hot > 0
    return jnp.where(left & (length > 1e-9), (sums - own) / jnp.sqrt(jnp.where(length > 1e-9, length, 1)), -1)
