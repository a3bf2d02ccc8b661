"""One thin singular value decomposition, from which most scores follow."""

from typing import NamedTuple

import jax.numpy as jnp

from tljax.scores.inputs import exact
from tljax.types import Array


class Spectrum(NamedTuple):
    """``X = u diag(s) vt`` for features `[N, D]`, of which the mean was taken off if asked; K = min(N, D).

    Directions that are rounding noise have `s` 0, so that nothing has to be cut off while tracing.
    """

    u: Array
    """`[N, K]`."""
    s: Array
    """`[K]`, descending."""
    vt: Array
    """`[K, D]`."""
    mean: Array
    """`[D]`, zeros where features were not centred."""

    @property
    def energy(self) -> Array:
        """`[K]`: the eigenvalues of ``X^T X``."""
        return self.s**2


def spectrum(x: Array, *, center: bool = True, like: Array | None = None) -> Spectrum:
    """The decomposition of `x` `[N, D]`; `like` is the matrix it was made of, whose rounding is to be expected in it.

    The matrix itself is decomposed rather than its Gram matrix, which in float32 would lose the small directions.

    >>> found = spectrum(jnp.array([[1.0, 1.0], [3.0, 3.0]]))
    >>> found.s.tolist(), found.mean.tolist()
    ([2.0, 0.0], [2.0, 2.0])
    """
    mean = jnp.mean(x, axis=0) if center else jnp.zeros_like(x[0])
    u, s, vt = jnp.linalg.svd(x - mean[None], full_matrices=False)
    # The largest entry of `x` says how much was lost when the mean was taken off.
    like = x if like is None else like
    size = jnp.maximum(s[0], jnp.max(jnp.abs(like))) * max(like.shape) * jnp.finfo(x.dtype).eps
    return Spectrum(u, jnp.where(s > size, s, 0), vt, mean)


def inverse(s: Array) -> Array:
    """``1 / s``, and 0 where `s` is 0.

    >>> inverse(jnp.array([2.0, 0.0])).tolist()
    [0.5, 0.0]
    """
    return jnp.where(s > 0, 1 / jnp.where(s > 0, s, 1), 0)


def coordinates(found: Spectrum, points: Array) -> Array:
    """`[M, K]`: `points` `[M, D]`, the mean taken off, along the singular directions.

    >>> x = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.5], [0.0, -0.5]])
    >>> jnp.abs(coordinates(spectrum(x), x)).round(3).tolist()[2]
    [0.0, 0.5]
    """
    return exact(points - found.mean[None], found.vt.T)
