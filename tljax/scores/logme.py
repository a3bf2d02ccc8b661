"""LogME: the evidence of a Bayesian linear model on the features.

For one target column t, with ``w ~ N(0, 1/alpha)`` and ``t | w ~ N(F w, 1/beta)``, the log evidence per example
depends on the ratio ``r = alpha / beta`` alone once beta is at its best. With ``F = u diag(s) v^T`` and ``x = u^T t``:

    q(r) = |t - u x|^2 + sum_k x_k^2 / (1 + s_k^2 / r),    beta = N / q
    L(r) = -1/2 [ N log 2 pi + N + N log(q / N) + sum_k log(1 + s_k^2 / r) ]

so the published fixed point in two unknowns becomes a search along one line: exact, without a constant that ties the
result to the scale of the features, and right for D > N.

With an intercept (`center`), which is at its best when features and targets lose their means, L is the same of what is
left. One direction, the mean, is then fitted without a residual. So features that interpolate the rest (of rank N - 1,
as nearly all are where D >= N) would have evidence without bound; of those the "restricted" evidence is taken, which is
that of the N - 1 contrasts: N - 1 stands for N in L, as in restricted maximum likelihood.
"""

import math
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from tljax.scores.inputs import ScoreError, exact, floats, labelled
from tljax.scores.spectrum import Spectrum, spectrum
from tljax.types import Array

Form = Literal["exact", "restricted", "fixed_point", "published"]
FORMS = ("exact", "restricted", "fixed_point", "published")

_GRID = 257
_FINE = 9


def logme(
    features: Any,
    labels: Any,
    *,
    regression: bool = False,
    center: bool = True,
    form: Form = "exact",
) -> float:
    """The greatest log evidence per example, averaged over classes (one against the rest) or targets.

    Higher is better. It is no probability of anything, and compares models on the same labels only.

    Args:
        features: `[N, D]`.
        labels: classes `[N]`; with `regression` targets `[N]` or `[N, K]`.
        regression: whether `labels` are numbers to predict.
        center: allow an intercept. The published score has none, and changes when a constant is added to a feature.
        form: "exact", the maximum. "restricted", with `center` the maximum of the evidence of the N - 1 contrasts: the
            same for features that interpolate and others, so it compares models that are narrower than N with wider
            ones. "fixed_point", the authors' at most 11 iterations from alpha = beta = 1, with the log-determinant over
            all D eigenvalues. "published", what the authors' code returns: it leaves out the eigenvalues that are zero
            where D > N, and so adds ``(D - N) / (2 N) log alpha``, by which wide features look better the less they
            say. The last two have an absolute constant in them, and depend on the scale of the features.

    Raises `ScoreError` for shapes that do not fit, values that are not finite, and another form.

    Reference: You et al. 2021, arXiv:2102.11005; 2022, arXiv:2110.10545.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 3, 60)
    >>> good, noise = np.eye(3)[labels] + 0.1 * rng.normal(size=(60, 3)), rng.normal(size=(60, 3))
    >>> logme(good, labels) > logme(noise, labels)
    True
    """
    if form not in FORMS:
        raise ScoreError(f"form is one of {', '.join(map(repr, FORMS))}; found {form!r}")
    if regression:
        x, targets = floats(features, "features"), columns(labels)
        if len(targets) != len(x):
            raise ScoreError(f"features of {len(x)} examples need as many targets; found {len(targets)}")
        targets = targets.astype(x.dtype)
    else:
        data = labelled(features, labels)
        x, targets = data.x, data.one_hot
    return float(_logme(x, targets, center, form))


def columns(targets: Any) -> Array:
    """The targets of a regression as a matrix `[N, K]`.

    Raises `ScoreError` unless they are finite numbers.

    >>> columns([1.0, 2.0]).shape
    (2, 1)
    """
    given = jnp.asarray(targets)
    return floats(given[:, None] if given.ndim == 1 else given, "targets")


@partial(jax.jit, static_argnums=(2, 3))
def _logme(x: Array, targets: Array, center: bool, form: Form) -> Array:
    if center:
        targets = targets - jnp.mean(targets, axis=0, keepdims=True)
    found, targets, outside = _reduced(x, targets, center)
    size, free = jnp.asarray(len(x), x.dtype), jnp.asarray(len(x) - center, x.dtype)
    interpolates = jnp.sum(found.s > 0).astype(x.dtype) >= free
    if form in ("exact", "restricted"):
        n = free if form == "restricted" else jnp.where(interpolates, free, size)
        return jnp.mean(evidence(found, n, targets, outside))
    x2, rest = _projected(found, targets)
    rest += outside
    one = partial(_fixed_point, found.energy, len(x), x.shape[1], form == "fixed_point")
    return jnp.mean(jax.vmap(one, in_axes=(1, 0))(x2, rest))


def _reduced(x: Array, targets: Array, center: bool) -> tuple[Spectrum, Array, Array | float]:
    """The spectrum, the targets in a basis of at least its span, and the squares `[C]` of what lies outside of it.

    Many examples are first turned into as many rows as there are features, which a decomposition needs less time for.
    """
    if len(x) <= 2 * x.shape[1]:
        return spectrum(x, center=center), targets, 0.0
    q, r = jnp.linalg.qr(x - jnp.mean(x, axis=0, keepdims=True) if center else x)
    inside = exact(q.T, targets)
    outside = jnp.sum((targets - exact(q, inside)) ** 2, axis=0)
    return spectrum(r, center=False, like=x), inside, outside


def _projected(found: Spectrum, targets: Array) -> tuple[Array, Array]:
    """The squares of the targets along the directions that are there `[K, C]`, and what is left of ``|t|^2`` `[C]`.

    The rest is that of an explicit residual: a difference of sums of squares would cancel in float32.
    """
    u = jnp.where(found.s > 0, found.u, 0)
    x = exact(u.T, targets)
    return x**2, jnp.sum((targets - exact(u, x)) ** 2, axis=0)


def evidence(found: Spectrum, n: Any, targets: Array, outside: Array | float = 0.0) -> Array:
    """The maximum of L, over `n`, for each of the `targets` `[N, C]`: `[C]`.

    `outside` are squares `[C]` of the targets that `targets` do not hold, since no feature tells them.

    It is sought on a grid over log r, then on finer ones around the best point. The first grid is one for all targets,
    so that they share its logarithms. Features of rank `n` leave no residual but rounding.

    >>> x, t = jnp.array([[-1.0], [0.0], [1.0]]), jnp.array([[-1.0], [0.5], [0.5]])
    >>> evidence(spectrum(x), 2, t).round(3).tolist()
    [-1.203...]
    """
    energy, n = found.energy, jnp.asarray(n, found.s.dtype)
    x2, rest = _projected(found, targets)
    rest = jnp.where(jnp.sum(found.s > 0).astype(n.dtype) >= n, 0, rest + outside)
    single = energy.dtype == jnp.float32
    width, rounds = (18.0, 6) if single else (40.0, 12)
    top = jnp.max(energy)
    middle = jnp.log(jnp.where(top > 0, top, 1))  # features that are constant: the evidence of no model
    grid = middle + width * jnp.linspace(-1, 1, _GRID, dtype=energy.dtype)
    ratio = energy[None] / jnp.exp(grid)[:, None]
    volume = jnp.sum(jnp.log1p(ratio), axis=1)
    coarse = _evidence(exact(1 / (1 + ratio), x2) + rest[None], volume[:, None], n)

    def value(log_r: Array) -> Array:
        """L of each target at a place of its own, `[C]`."""
        ratio = energy[:, None] / jnp.exp(log_r)[None]
        return _evidence(jnp.sum(x2 / (1 + ratio), axis=0) + rest, jnp.sum(jnp.log1p(ratio), axis=0), n)

    def narrow(_: Any, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        best, greatest, half = state
        places = best[None] + half * jnp.linspace(-1, 1, _FINE, dtype=energy.dtype)[:, None]
        values = jax.lax.map(value, places)
        chosen = jnp.argmax(values, axis=0)[None]
        best, greatest = (jnp.take_along_axis(a, chosen, axis=0)[0] for a in (places, values))
        return best, greatest, half * (2 / (_FINE - 1))

    start = grid[jnp.argmax(coarse, axis=0)]
    step = jnp.asarray(2 * width / (_GRID - 1), energy.dtype)
    return jax.lax.fori_loop(0, rounds, narrow, (start, jnp.max(coarse, axis=0), step))[1]


def _evidence(q: Array, volume: Array, n: Array) -> Array:
    return -0.5 * (math.log(2 * math.pi) + 1 + jnp.log(q / n) + volume / n)


def _fixed_point(energy: Array, n: int, dimension: int, whole: bool, x2: Array, rest: Array) -> Array:
    """The published iteration for one target; the determinant is the `whole` one, or of min(N, D) eigenvalues."""

    def again(state: Any) -> Any:
        i, _, alpha, beta, _, _ = state
        ratio = alpha / beta
        gamma = jnp.sum(energy / (energy + ratio))
        m2 = jnp.sum(energy / (ratio + energy) * (x2 / (ratio + energy)))
        residual = jnp.sum(x2 / (1 + energy / ratio) ** 2) + rest
        # Of features that are constant gamma is 0, and so would be alpha.
        new = jnp.maximum(gamma / (m2 + 1e-5), 1e-25), (n - gamma) / (residual + 1e-5)
        done = jnp.abs(new[0] / new[1] - ratio) / ratio <= 1e-3
        return i + 1, done, *new, m2, residual

    one, zero = jnp.ones((), energy.dtype), jnp.zeros((), energy.dtype)
    start = (0, jnp.bool_(False), one, one, zero, zero)
    _, _, alpha, beta, m2, residual = jax.lax.while_loop(lambda s: (s[0] < 11) & ~s[1], again, start)
    determinant = jnp.sum(jnp.log(alpha + beta * energy))
    determinant += (dimension - len(energy)) * jnp.log(alpha) if whole else 0
    fit = dimension * jnp.log(alpha) + n * jnp.log(beta) - determinant - beta * residual - alpha * m2
    return 0.5 * (fit - n * math.log(2 * math.pi)) / n
