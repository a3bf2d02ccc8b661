"""N-LEEP: LEEP without a source head, on the components of a mixture of Gaussians."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tljax.scores.inputs import ScoreError, exact, labelled
from tljax.scores.leep import leep
from tljax.scores.spectrum import coordinates, spectrum
from tljax.types import Array, Key


def nleep(
    features: Any,
    labels: Any,
    *,
    per_class: int = 5,
    energy: float = 0.8,
    iterations: int = 100,
    tolerance: float = 1e-3,
    regularization: float = 1e-6,
    init: Any = None,
    key: Key | None = None,
) -> float:
    """LEEP of the responsibilities of a Gaussian mixture with ``per_class * C`` components; at most 0.

    Higher is better. The features are reduced to the principal components that hold more than `energy` of the variance;
    the mixture has full covariances and is fitted by EM from the variance of the features as every covariance.

    Args:
        features: `[N, D]`.
        labels: classes `[N]`.
        per_class: components for each class; no more in all than there are examples.
        energy: the share of variance to keep, below 1.
        iterations, tolerance: EM ends after so many rounds, or once the mean log-likelihood grows by less.
        regularization: added to the diagonal of every covariance, in the units of the features.
        init: the examples `[K]`, as indices, whose features are the first means; by default drawn by k-means++.
        key: of that draw; by default ``jax.random.key(0)``, so that a score is the same every time.

    Raises `ScoreError` as `labelled` says, and for options outside their range.

    Reference: Li et al. 2021, arXiv:2102.10219; k-means++: Arthur and Vassilvitskii 2007.

    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat([0, 1], 20)
    >>> nleep(3.0 * labels[:, None] + rng.normal(size=(40, 2)), labels, per_class=1) > -0.3
    True
    """
    if per_class < 1 or not 0 < energy < 1 or iterations < 1 or not regularization > 0:
        raise ScoreError(
            "per_class and iterations must be 1 or more, energy between 0 and 1, regularization positive; found "
            f"{per_class!r}, {iterations!r}, {energy!r}, {regularization!r}"
        )
    data = labelled(features, labels)
    x = _reduced(data.x, energy)
    components = min(per_class * data.classes, len(x))
    if init is None:
        init = _spread(x, components, jax.random.key(0) if key is None else key)
    init = jnp.asarray(init, jnp.int32)
    if init.ndim != 1 or len(init) < 1 or not 0 <= int(init.min()) <= int(init.max()) < len(x):
        raise ScoreError(f"init must be indices of examples [K], 0 to {len(x) - 1}; found {init}")
    return leep(_mixture(x, x[init], iterations, tolerance, regularization), data.y)


def _reduced(x: Array, energy: float) -> Array:
    found = spectrum(x)
    share = np.cumsum(np.asarray(found.energy, np.float64))
    if share[-1] == 0:
        raise ScoreError(f"features do not vary: all {len(x)} examples are the same")
    kept = int(np.searchsorted(share / share[-1], energy, side="right")) + 1
    return coordinates(found, x)[:, :kept]


@partial(jax.jit, static_argnums=1)
def _spread(x: Array, count: int, key: Key) -> Array:
    """Indices of examples that lie apart: each is drawn in proportion to its squared distance to those before."""

    def draw(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        chosen, distance = state
        one = jax.random.categorical(jax.random.fold_in(key, i), jnp.log(distance)).astype(jnp.int32)
        gap = jnp.sum((x - x[one][None]) ** 2, axis=1)
        return chosen.at[i].set(one), jnp.minimum(distance, gap)

    start = (jnp.zeros(count, jnp.int32), jnp.full(len(x), jnp.finfo(x.dtype).max))
    return jax.lax.fori_loop(0, count, draw, start)[0]


def _root(covariance: Array) -> Array:
    """The Cholesky factor; where rounding hides that a matrix is positive definite, that of one just above it."""
    root = jnp.linalg.cholesky(covariance)
    more = jnp.finfo(root.dtype).eps * len(root) * jnp.trace(covariance)

    def above() -> Array:
        return jnp.linalg.cholesky(covariance + more * jnp.eye(len(root), dtype=root.dtype))

    return jax.lax.cond(jnp.all(jnp.isfinite(root)), lambda: root, above)


@jax.jit
def _mixture(x: Array, means: Array, iterations: Array, tolerance: Array, regularization: Array) -> Array:
    """The responsibilities `[N, K]` of the fitted components."""
    k, d = means.shape
    ridge = jnp.asarray(regularization, x.dtype) * jnp.eye(d, dtype=x.dtype)

    def expect(weights: Array, means: Array, covariances: Array) -> tuple[Array, Array]:
        def log_density(one: tuple[Array, Array]) -> Array:
            root = _root(one[1])
            away = jax.scipy.linalg.solve_triangular(root, (x - one[0][None]).T, lower=True)
            volume = jnp.sum(jnp.log(jnp.diagonal(root)))
            return -0.5 * (d * math.log(2 * math.pi) + jnp.sum(away**2, axis=0)) - volume

        joint = jnp.log(weights)[None] + jax.lax.map(log_density, (means, covariances)).T
        total = jax.nn.logsumexp(joint, axis=1, keepdims=True)
        return jnp.exp(joint - total), jnp.mean(total)

    def fitted(shares: Array) -> tuple[Array, Array, Array]:
        mass = jnp.sum(shares, axis=0) + 10 * jnp.finfo(x.dtype).eps
        means = exact(shares.T, x) / mass[:, None]

        def covariance(one: tuple[Array, Array, Array]) -> Array:
            away = x - one[1][None]
            return exact((one[0][:, None] * away).T, away) / one[2] + ridge

        return mass / jnp.sum(mass), means, jax.lax.map(covariance, (shares.T, means, mass))

    def going(state: Any) -> Array:
        i, _, now, before = state
        return (i < iterations) & (jnp.abs(now - before) > tolerance)

    def again(state: Any) -> Any:
        i, mixture, now, _ = state
        shares, _ = expect(*mixture)
        mixture = fitted(shares)
        return i + 1, mixture, expect(*mixture)[1], now

    spherical = jnp.broadcast_to(jnp.diag(jnp.var(x, axis=0)), (k, d, d))
    first = (jnp.full(k, 1 / k, x.dtype), means, spherical)
    far = jnp.asarray(jnp.inf, x.dtype)
    _, mixture, _, _ = jax.lax.while_loop(going, again, (0, first, far, -far))
    return expect(*mixture)[0]
