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

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax.probes.inputs import (
    Names,
    ProbeError,
    Scaling,
    class_labels,
    finite_features,
    group_members,
    positive,
    scaling,
)
from tljax.probes.left_out import Fit, centred, dot, left_out, left_out_groups
from tljax.types import Array

GRID = 10.0 ** np.linspace(-3, 3, 13)
"""The strengths that are tried, in units of the mean squared singular value of the centred features."""


class Ridge(NamedTuple):
    """A linear head ``features @ weights + bias``, and how well it predicts what it has not seen."""

    weights: Array
    """`[D, C]`."""
    bias: Array
    """`[C]`."""
    loo: Array
    """`[N, C]`: for each example the prediction of the head that is fitted without it, or without its group."""
    strength: Array
    """The chosen lambda, `[]`."""
    strengths: Array
    """All that were tried, `[L]`."""
    errors: Array
    """The mean squared leave-one-out error of each, `[L]`."""
    classes: Names = Names()
    """The names of the columns; none where the labels are no classes."""

    def predict(self, features: Any) -> Array:
        """The targets `[M, C]` that the head predicts for features `[M, D]`.

        >>> found = ridge([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0], strengths=[1e-6])
        >>> round(float(found.predict([[3.0]])[0, 0]), 3)
        7.0
        """
        x = jnp.asarray(features, self.weights.dtype)
        return jnp.matmul(x, self.weights, precision="highest") + self.bias[None]


def ridge(
    features: Any,
    labels: Any,
    *,
    num_classes: int | None = None,
    strengths: Any = None,
    groups: Any = None,
    scale: Scaling | None = None,
) -> Ridge:
    """The ridge regression from `features` to `labels` whose strength has the least squared leave-one-out error.

    Leave-one-out errors are exact, and cost one singular value decomposition together. Copies and augmented views of
    an example would see one another: give each family a group, and whole groups are left out, as exactly. A class
    without examples gets the weights 0 and the bias -1.

    Args:
      features: `[N, D]`, N of 2 or more; D may be larger.
      labels: classes `[N]`, integers or names, which become targets of +1 and -1; several labels `[N, C]` int or bool,
        likewise; or targets `[N]` or `[N, C]` float.
      num_classes: columns for classes; by default as many as the largest label needs.
      strengths: the lambdas to try, positive; default: 13 from 0.001 to 1000 times the mean squared singular value.
      groups: `[N]` of any kind; examples of one group are left out together.
      scale: "features" fits on features of deviation 1, "global" on one deviation for all; the head takes raw ones.

    Features of half precision are computed in float32, those of float64 in float64 where JAX has it.

    Raises `ProbeError` for shapes that do not fit, numbers that are not finite, labels outside of the classes or all
    of one class, a single group, or strengths that are not positive.

    >>> found = ridge([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0], [0.9, 0.0]], ["cat", "cat", "dog", "dog"])
    >>> [found.classes[i] for i in jnp.argmax(found.loo, -1)]
    ['cat', 'cat', 'dog', 'dog']
    """
    x = finite_features(features)
    targets, classes = _targets(labels, num_classes, x)
    tried = None if strengths is None else jnp.asarray(positive(strengths, "strengths are lambdas"), x.dtype)
    members = None if groups is None else jnp.asarray(group_members(groups, len(x)))
    by = scaling(x, scale)
    found = _solve(x / by[None], targets, tried, members)
    return found._replace(weights=found.weights / by[:, None], classes=classes)


@jax.jit
def _solve(x: Array, targets: Array, strengths: Array | None, members: Array | None) -> Ridge:
    (mean, features), offset = centred(x), jnp.mean(targets, axis=0)
    t = targets - offset[None]
    size = jnp.max(jnp.abs(features))
    unit = jnp.where(size > 0, size, 1)  # so that no square overflows
    u, s, vt = jnp.linalg.svd(features / unit, full_matrices=False)
    real = s > s[:1] * max(x.shape) * jnp.finfo(s.dtype).eps  # centring takes a direction away, which SVD fills up
    u, s = u * real[None].astype(u.dtype), jnp.where(real, s, 0)
    if strengths is None:
        squared = jnp.sum(jnp.square(s)) / min(x.shape)
        tried = jnp.asarray(GRID, x.dtype) * jnp.where(squared > 0, squared, 1)
    else:
        tried = jnp.maximum(strengths / unit / unit, jnp.finfo(x.dtype).tiny)
    fit = Fit(u, jnp.square(s), t)
    lack = left_out(fit, tried) if members is None else left_out_groups(fit, tried, members)
    errors = jnp.mean(jnp.square(lack), axis=(1, 2))
    best = jnp.argmin(jnp.where(jnp.isnan(errors), jnp.inf, errors))
    weights = dot(vt.T, (s / (jnp.square(s) + tried[best]))[:, None] * dot(u.T, t)) / unit
    bias = offset - dot(mean, weights)
    back = unit * unit
    return Ridge(weights, bias, targets - lack[best], tried[best] * back, tried * back, errors)


def _targets(labels: Any, num_classes: int | None, x: Array) -> tuple[Array, Names]:
    y = np.asarray(labels)
    if y.ndim not in (1, 2) or len(y) != x.shape[0]:
        raise ProbeError(f"there are {x.shape[0]} rows of features and labels of the shape {y.shape}")
    if np.issubdtype(y.dtype, np.floating):
        if not np.all(np.isfinite(y)):
            raise ProbeError("the targets have values that are NaN or infinite")
        return jnp.asarray(y.reshape(len(y), -1), x.dtype), Names()
    if y.ndim == 1:
        y, classes = class_labels(y, len(y), num_classes)
        return jnp.asarray(2.0 * np.eye(len(classes))[y] - 1.0, x.dtype), classes
    if y.dtype.kind not in "iub" or int(y.min()) < 0 or int(y.max()) > 1:
        raise ProbeError(f"labels go from {y.min()} to {y.max()}; expected 0..1")
    return jnp.asarray(2.0 * y - 1.0, x.dtype), Names()
