r"""Ridge regression on features: every strength, and exact leave-one-out predictions, from one decomposition.

With centred features :math:`X = U \operatorname{diag}(s) V^T`, centred targets T, and the shrinkage
:math:`g = s^2 / (s^2 + \lambda)`, the fit with an unpenalised intercept is

.. math:: \hat Y = \bar t + U (g \circ U^T T), \quad
   h_i = 1/N + \sum_k U_{ik}^2 g_k, \quad
   \hat y_{-i} = t_i - (t_i - \hat y_i) / (1 - h_i),

where the last is what the fit without example i predicts for it. Near interpolation both the residual and 1 - h are
differences of almost equal numbers; so they are computed from 1 - g, which is :math:`\lambda / (s^2 + \lambda)`, and
from what lies outside of the span of U.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax.types import Array, TljaxError

GRID = 10.0 ** np.linspace(-3, 3, 13)
"""The strengths that are tried, in units of the mean squared singular value of the centred features."""


class ProbeError(TljaxError):
    """Features or labels that no head can be fitted to."""


class Ridge(NamedTuple):
    """A linear head ``features @ weights + bias``, and how well it predicts what it has not seen."""

    weights: Array
    """`[D, C]`."""
    bias: Array
    """`[C]`."""
    loo: Array
    """`[N, C]`: for each example the prediction of the head that is fitted without it."""
    strength: Array
    """The chosen lambda, `[]`."""
    strengths: Array
    """All that were tried, `[L]`."""
    errors: Array
    """The mean squared leave-one-out error of each, `[L]`."""

    def predict(self, features: Any) -> Array:
        """The targets `[M, C]` that the head predicts for features `[M, D]`.

        >>> found = ridge([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0], strengths=[1e-6])
        >>> round(float(found.predict([[3.0]])[0, 0]), 3)
        7.0
        """
        x = jnp.asarray(features, self.weights.dtype)
        return jnp.matmul(x, self.weights, precision="highest") + self.bias[None]


def ridge(features: Any, labels: Any, *, num_classes: int | None = None, strengths: Any = None) -> Ridge:
    """The ridge regression from `features` to `labels` whose strength has the least squared leave-one-out error.

    Leave-one-out errors are exact, and cost one singular value decomposition together. Copies and augmented views of
    an example see one another: leave them out. A class without examples gets the weights 0 and the bias -1.

    Args:
      features: `[N, D]`, N of 2 or more; D may be larger.
      labels: classes `[N]` int, which become targets of +1 and -1; several labels `[N, C]` int or bool, likewise; or
        targets `[N]` or `[N, C]` float.
      num_classes: columns for classes; by default as many as the largest label needs.
      strengths: the lambdas to try, positive; default: 13 from 0.001 to 1000 times the mean squared singular value.

    Features of half precision are computed in float32, those of float64 in float64 where JAX has it.

    Raises `ProbeError` for shapes that do not fit, numbers that are not finite, labels outside of the classes, or
    strengths that are not positive.

    >>> found = ridge([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0], [0.9, 0.0]], [0, 0, 1, 1])
    >>> jnp.argmax(found.loo, -1).tolist()
    [0, 0, 1, 1]
    """
    x = _matrix(features, "features")
    targets = _targets(labels, num_classes, x)
    if strengths is None:
        tried = None
    else:
        tried = np.atleast_1d(np.asarray(strengths, float))
        if tried.ndim != 1 or not tried.size or not np.all((tried > 0) & np.isfinite(tried)):
            raise ProbeError(f"strengths are lambdas, one or more, positive and finite; found {strengths!r}")
    return _solve(x, targets, None if tried is None else jnp.asarray(tried, x.dtype))


@jax.jit
def _solve(x: Array, targets: Array, strengths: Array | None) -> Ridge:
    dot = functools.partial(jnp.matmul, precision="highest")
    n = x.shape[0]
    mean, offset = jnp.mean(x, axis=0), jnp.mean(targets, axis=0)
    centred, t = x - mean[None], targets - offset[None]
    size = jnp.max(jnp.abs(centred))
    unit = jnp.where(size > 0, size, 1)  # so that no square overflows
    u, s, vt = jnp.linalg.svd(centred / unit, full_matrices=False)
    real = s > s[:1] * max(x.shape) * jnp.finfo(s.dtype).eps  # centring takes a direction away, which SVD fills up
    u, s = u * real[None].astype(u.dtype), jnp.where(real, s, 0)
    if strengths is None:
        squared = jnp.sum(jnp.square(s)) / min(x.shape)
        tried = jnp.asarray(GRID, x.dtype) * jnp.where(squared > 0, squared, 1)
    else:
        tried = jnp.maximum(strengths / unit / unit, jnp.finfo(x.dtype).tiny)
    inside = dot(u.T, t)
    partial = jnp.sum(real) < n - 1  # else there is nothing outside, not even a rounding error
    outside = jnp.where(partial, t - dot(u, inside), 0)
    rest = jnp.maximum(1 - 1 / jnp.asarray(n, x.dtype) - jnp.sum(jnp.square(u), axis=1), 0)
    rest = jnp.where(partial, rest, 0)

    def left_out(strength: Array) -> Array:
        """What the prediction without each example lacks to its target."""
        kept = strength / (jnp.square(s) + strength)
        residual = outside + dot(u, kept[:, None] * inside)
        return residual / (rest + dot(jnp.square(u), kept))[:, None]

    errors = jax.lax.map(lambda strength: jnp.mean(jnp.square(left_out(strength))), tried)
    best = tried[jnp.argmin(jnp.where(jnp.isnan(errors), jnp.inf, errors))]
    weights = dot(vt.T, (s / (jnp.square(s) + best))[:, None] * inside) / unit
    bias = offset - dot(mean, weights)
    back = unit * unit
    return Ridge(weights, bias, targets - left_out(best), best * back, tried * back, errors)


def _matrix(features: Any, what: str) -> Array:
    given = features if isinstance(features, jax.Array) else np.asarray(features)
    if given.ndim != 2 or given.shape[0] < 2 or not given.shape[1]:
        raise ProbeError(f"{what} should be [N, D] with two examples or more; found the shape {given.shape}")
    x = jnp.asarray(given)
    x = x.astype(x.dtype if x.dtype == jnp.float64 else jnp.float32)
    if not bool(jnp.all(jnp.isfinite(x))):
        raise ProbeError(f"{what} have values that are NaN or infinite")
    return x


def _targets(labels: Any, num_classes: int | None, x: Array) -> Array:
    y = np.asarray(labels)
    if y.ndim not in (1, 2) or len(y) != x.shape[0]:
        raise ProbeError(f"there are {x.shape[0]} rows of features and labels of the shape {y.shape}")
    if np.issubdtype(y.dtype, np.floating):
        if not np.all(np.isfinite(y)):
            raise ProbeError("the targets have values that are NaN or infinite")
        return jnp.asarray(y.reshape(len(y), -1), x.dtype)
    top = int(y.max()) if y.ndim == 1 else 1
    width = num_classes or top + 1
    if int(y.min()) < 0 or top >= (width if y.ndim == 1 else 2) or int(y.max()) > top:
        raise ProbeError(f"labels go from {y.min()} to {y.max()}; expected 0..{width - 1 if y.ndim == 1 else 1}")
    hot = np.eye(width)[y] if y.ndim == 1 else y
    return jnp.asarray(2.0 * hot - 1.0, x.dtype)
