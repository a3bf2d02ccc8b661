"""LogME: the evidence of a Bayesian linear model on the features.

For one target column t, with ``w ~ N(0, 1/alpha)`` and ``t | w ~ N(F w, 1/beta)``, the log evidence per example
depends on the ratio ``r = alpha / beta`` alone once beta is at its best. With ``F = u diag(s) v^T`` and ``x = u^T t``:

    q(r) = |t - u x|^2 + sum_k x_k^2 / (1 + s_k^2 / r),    beta = N / q
    L(r) = -1/2 [ N log 2 pi + N + N log(q / N) + sum_k log(1 + s_k^2 / r) ]

so the published fixed point in two unknowns becomes a search along one line: exact, without a constant that ties the
result to the scale of the features, and right for D > N.

An intercept takes one direction, the mean, out of the data, so with `center` N - 1 stands for N above: the evidence of
the N - 1 contrasts. With N left in its place the evidence of features that interpolate (D >= N) would have no bound.
"""

import math
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from tljax.scores.inputs import ScoreError, exact, floats, labelled
from tljax.scores.spectrum import Spectrum, spectrum
from tljax.types import Array

_GRID = 129
_ROUNDS = 6


def logme(
    features: Any,
    labels: Any,
    *,
    regression: bool = False,
    center: bool = True,
    form: Literal["exact", "fixed_point"] = "exact",
) -> float:
    """The greatest log evidence per example, averaged over classes (one against the rest) or targets.

    Higher is better. It is no probability of anything, and compares models on the same labels only.

    Args:
        features: `[N, D]`.
        labels: classes `[N]`; with `regression` targets `[N]` or `[N, K]`.
        regression: whether `labels` are numbers to predict.
        center: allow an intercept. The published score has none, and changes when a constant is added to a feature.
        form: "exact", or the authors' "fixed_point" of at most 11 iterations for comparison with published figures,
            with the log-determinant over all D eigenvalues (their code leaves out those that are zero where D > N).

    Raises `ScoreError` for shapes that do not fit and values that are not finite.

    Reference: You et al. 2021, arXiv:2102.11005; 2022, arXiv:2110.10545.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 3, 60)
    >>> good, noise = np.eye(3)[labels] + 0.1 * rng.normal(size=(60, 3)), rng.normal(size=(60, 3))
    >>> logme(good, labels) > logme(noise, labels)
    True
    """
    if form not in ("exact", "fixed_point"):
        raise ScoreError(f"form is 'exact' or 'fixed_point'; found {form!r}")
    if regression:
        x, targets = floats(features, "features"), _targets(labels)
        if len(targets) != len(x):
            raise ScoreError(f"features of {len(x)} examples need as many targets; found {len(targets)}")
        targets = targets.astype(x.dtype)
    else:
        data = labelled(features, labels)
        x, targets = data.x, data.one_hot
    return float(_logme(x, targets, center, form == "exact"))


def _targets(labels: Any) -> Array:
    targets = jnp.asarray(labels)
    return floats(targets[:, None] if targets.ndim == 1 else targets, "targets")


@partial(jax.jit, static_argnums=(2, 3))
def _logme(x: Array, targets: Array, center: bool, best: bool) -> Array:
    if center:
        targets = targets - jnp.mean(targets, axis=0, keepdims=True)
    found = spectrum(x, center=center)
    one = partial(evidence if best else _fixed_point, found, len(x) - center)
    return jnp.mean(jax.vmap(one, in_axes=1)(targets))


def evidence(found: Spectrum, n: int, t: Array) -> Array:
    """The maximum of L, over `n`, by a grid over log r that narrows around its best point; `t` `[N]` is one target.

    >>> x, t = jnp.array([[-1.0], [0.0], [1.0]]), jnp.array([-1.0, 0.5, 0.5])
    >>> round(float(evidence(spectrum(x), 2, t)), 3)
    -1.203
    """
    x2, rest = _projected(found, t)
    width = 18.0 if t.dtype == jnp.float32 else 40.0

    def value(log_r: Array) -> Array:
        ratio = found.energy / jnp.exp(log_r)
        q = rest + jnp.sum(x2 / (1 + ratio))
        return -0.5 * (n * (math.log(2 * math.pi) + 1) + n * jnp.log(q / n) + jnp.sum(jnp.log1p(ratio)))

    def narrow(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        middle, half = state
        grid = middle + half * jnp.linspace(-1, 1, _GRID, dtype=t.dtype)
        return grid[jnp.argmax(jax.lax.map(value, grid))], half * (4 / (_GRID - 1))

    top = jnp.max(found.energy)
    start = jnp.log(jnp.where(top > 0, top, 1))  # features that are constant: the evidence of no model
    best, _ = jax.lax.fori_loop(0, _ROUNDS, narrow, (start, jnp.asarray(width, t.dtype)))
    return value(best) / n


def _fixed_point(found: Spectrum, n: int, t: Array) -> Array:
    energy, dimension, (x2, rest) = found.energy, found.vt.shape[1], _projected(found, t)

    def again(state: Any) -> Any:
        i, _, alpha, beta, _, _ = state
        ratio = alpha / beta
        gamma = jnp.sum(energy / (energy + ratio))
        m2 = jnp.sum(energy * x2 / (ratio + energy) ** 2)
        residual = jnp.sum(x2 / (1 + energy / ratio) ** 2) + rest
        new = gamma / (m2 + 1e-5), (n - gamma) / (residual + 1e-5)
        done = jnp.abs(new[0] / new[1] - ratio) / ratio <= 1e-3
        return i + 1, done, *new, m2, residual

    one, zero = jnp.ones((), t.dtype), jnp.zeros((), t.dtype)
    start = (0, jnp.bool_(False), one, one, zero, zero)
    _, _, alpha, beta, m2, residual = jax.lax.while_loop(lambda s: (s[0] < 11) & ~s[1], again, start)
    determinant = jnp.sum(jnp.log(alpha + beta * energy)) + (dimension - len(energy)) * jnp.log(alpha)
    fit = dimension * jnp.log(alpha) + n * jnp.log(beta) - determinant - beta * residual - alpha * m2
    return 0.5 * (fit - n * math.log(2 * math.pi)) / n


def _projected(found: Spectrum, t: Array) -> tuple[Array, Array]:
    """The squares of t along the directions that are there `[K]`, and what is left of ``|t|^2``.

    The rest is that of an explicit residual: a difference of sums of squares would cancel in float32.
    """
    u = jnp.where(found.s > 0, found.u, 0)
    x = exact(u.T, t)
    return x**2, jnp.sum((t - exact(u, x)) ** 2)
