r"""Multinomial logistic regression: many strengths and many weightings of the examples in one compiled program.

The loss is scikit-learn's, with its C and an intercept that is not penalised,

.. math:: \sum_i w_i \, \ell_i + \frac{1}{2 C} \|W\|^2,

whose gradient L-BFGS needs a thousand steps for where features have different sizes or repeat one another. So features
are rotated to their singular vectors, :math:`X = U S V^T` (there are never more of these than examples), and weights
along each are measured in units of the curvature at W = 0, :math:`s^2 / K + 1 / C` with K classes: there the problem
starts out round. A rotation leaves the penalty as it is.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax.probes.inputs import (
    ABSENT,
    Names,
    ProbeError,
    Scaling,
    class_labels,
    finite_features,
    positive,
    row_numbers,
    scaling,
)
from tljax.probes.left_out import dot
from tljax.probes.rounded import Problem, minimised
from tljax.types import Array


class Logistic(NamedTuple):
    """Heads ``features @ weights + bias`` and how their fits ended; leading axes `...` for subsets and strengths."""

    weights: Array
    """`[..., D, C]`."""
    bias: Array
    """`[..., C]`."""
    strengths: Array
    """The C of each, `[...]`."""
    loss: Array
    """What was minimised over the sum of the weights of examples: mean loss and penalty, `[...]`."""
    steps: Array
    """L-BFGS steps that were taken, `[...]`."""
    converged: Array
    """Whether the gradient became small enough, `[...]`."""
    classes: Names
    """The names of the columns."""

    def predict(self, features: Any) -> Array:
        """The logits `[..., M, C]` of features `[M, D]`.

        >>> found = logistic([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
        >>> jnp.argmax(found.predict([[-1.0], [9.0]]), axis=-1).tolist()
        [0, 1]
        """
        x = jnp.asarray(features, self.weights.dtype)
        logits = jnp.einsum("md,...dc->...mc", x, self.weights, precision="highest")
        return logits + self.bias[..., None, :]


def logistic(
    features: Any,
    labels: Any,
    *,
    num_classes: int | None = None,
    strengths: Any = 1.0,
    weight: Any = None,
    subsets: Any = None,
    scale: Scaling | None = None,
    tolerance: float = 1e-5,
    steps: int = 500,
) -> Logistic:
    r"""The logistic regression from `features` to `labels`, at one strength or several, on all examples or on subsets.

    Everything is one compiled program. On CPUs a path goes along the strengths, from the smallest C, each fit starting
    where the one before ended; on accelerators all fits run side by side, and wait for the last. Probabilities are
    those of scikit-learn's ``LogisticRegression(C)``. So are the coefficients, which sum to 0 over the classes; of two
    classes it keeps only the difference of the two columns, and penalises that, as is done here.

    Args:
      features: `[N, D]`, N of 2 or more; D may be larger.
      labels: classes `[N]`, integers or names.
      num_classes: columns; by default as many as the largest label needs. A class without examples gets probability 0.
      strengths: C, the inverse of the penalty: a number, or `[L]`, which gives the result an axis L.
      weight: of the examples, 0 or more: `[N]`, or `[S, N]`, which gives the result an axis S before that.
      subsets: row numbers `[S, n]` in place of weights, likewise.
      scale: "features" fits on features of deviation 1, "global" on one deviation for all; the head takes raw ones.
      tolerance: what the gradient is to fall to, relative to that of a head that knows the shares of the classes only.
      steps: at most so many L-BFGS steps a fit.

    Raises `ProbeError` for shapes that do not fit, numbers that are not finite, labels outside of the classes or all
    of one class, weights below 0, or strengths, tolerance or steps that are not positive.

    Reference: Liu and Nocedal 1989, On the limited memory BFGS method, doi:10.1007/BF01589116.

    >>> x, y = np.array([[0.0, 1.0], [1.0, 0.5], [2.0, 1.5], [3.0, 0.0]]), ["a", "b", "a", "b"]
    >>> found = logistic(x, y, strengths=[0.1, 1.0, 10.0])
    >>> found.weights.shape, bool(found.converged.all())
    ((3, 2, 2), True)
    """
    x = finite_features(features)
    y, classes = class_labels(labels, len(x), num_classes)
    tried = positive(strengths, "strengths are C, the inverse of the penalty")
    if not tolerance > 0 or steps < 1:
        raise ProbeError(f"tolerance should be above 0, and steps 1 or more; found {tolerance} and {steps}")
    by = scaling(x, scale)
    if subsets is None:
        rows = np.arange(len(x))[None]
        lanes, axis = _weights(weight, len(x))
    elif weight is not None:
        raise ProbeError("give weight or subsets, not both")
    else:
        rows, axis = row_numbers(subsets, len(x)), True
        lanes = np.ones((1, rows.shape[1]))
    order = np.argsort(tried, kind="stable")
    back = np.argsort(order)  # to the order of the strengths given
    with jax.enable_x64(True):
        rotated = _rotated(x / by[None], rows)
    limits = jnp.asarray(tolerance, x.dtype), jnp.int32(steps)
    given = jnp.asarray(lanes, x.dtype), jnp.asarray(tried[order], x.dtype)
    batched = jax.default_backend() != "cpu"
    found = _fits(rotated, jnp.asarray(y[rows]), *given, *limits, len(classes), batched)
    # [G, K, L, ...]: subsets or weights are one axis S, the other is 1.
    weights, bias, *rest = (value.reshape(-1, *value.shape[2:])[:, back] for value in found)
    c = jnp.broadcast_to(jnp.asarray(tried, x.dtype)[None], rest[0].shape)
    lead = ((len(c),) if axis else ()) + ((len(tried),) if np.ndim(strengths) else ())
    each = (value.reshape(lead + value.shape[2:]) for value in (weights / by[None, None, :, None], bias, c, *rest))
    return Logistic(*each, classes=classes)  # type: ignore[misc]  # six arrays


def _weights(weight: Any, rows: int) -> tuple[np.ndarray, bool]:
    """Weights `[S, N]`, and whether they had that axis S."""
    given = np.ones(rows) if weight is None else np.asarray(weight, float)
    if given.ndim not in (1, 2) or given.shape[-1] != rows or not len(given):
        raise ProbeError(f"weight is [{rows}] or [S, {rows}], one an example; found the shape {given.shape}")
    if not np.all(np.isfinite(given) & (given >= 0)) or not np.all(given.sum(-1) > 0):
        raise ProbeError("weight is finite and 0 or more, and not 0 everywhere")
    return np.atleast_2d(given), given.ndim == 2


class _Rotated(NamedTuple):
    """Features in their own axes, of a common size."""

    z: Array
    """`[G, n, R]`: centred features along their singular vectors, over `unit`."""
    axes: Array
    """`[G, R, D]`: the singular vectors."""
    spread: Array
    """`[G, R]`: the mean square of each column of z."""
    mean: Array
    """`[G, D]`."""
    unit: Array
    """`[G]`."""


@jax.jit
def _rotated(x: Array, rows: Array) -> _Rotated:
    """The features of each of the subsets `rows` `[G, n]`; in double precision, since features of small size count."""

    def one(rows: Array) -> _Rotated:
        given = x[rows].astype(jnp.float64)
        mean = jnp.mean(given, axis=0)
        centred = given - mean[None]
        wide = len(rows) <= x.shape[1]
        squares, vectors = jnp.linalg.eigh(dot(centred, centred.T) if wide else dot(centred.T, centred))
        real = squares > squares[-1] * max(centred.shape) * jnp.finfo(jnp.float64).eps
        squares = jnp.where(real, squares, 0)
        size = jnp.sqrt(jnp.where(real, squares, 1))
        vectors = vectors * real[None].astype(jnp.float64)
        axes = dot(vectors.T, centred) / size[:, None] if wide else vectors.T
        z = vectors * size[None] if wide else dot(centred, vectors)
        unit = jnp.sqrt(jnp.where(real[-1], squares[-1] / len(rows), 1))
        found = z / unit, axes, squares / len(rows) / unit / unit, mean, unit
        return _Rotated(*(value.astype(x.dtype) for value in found))

    return jax.lax.map(one, rows)


@functools.partial(jax.jit, static_argnums=(6, 7))
def _fits(
    rotated: _Rotated,
    y: Array,
    lanes: Array,
    strengths: Array,
    tolerance: Array,
    steps: Array,
    classes: int,
    batched: bool,
) -> tuple[Array, ...]:
    """The fits of subsets `[G, n]` under weights `[K, n]` at all strengths: arrays `[G, K, L, ...]`."""

    def every(one: Any, many: Any) -> Any:
        return jax.vmap(one)(many) if batched else jax.lax.map(one, many)

    def subset(given: tuple[_Rotated, Array]) -> tuple[Array, ...]:
        here, labels = given
        hot = jax.nn.one_hot(labels, classes, dtype=here.z.dtype)

        def lane(weight: Array) -> tuple[Array, ...]:
            problem = Problem.of(here.z, hot, weight, here.spread)
            w, b, *rest = minimised(problem, strengths * here.unit * here.unit, tolerance, steps, batched)
            weights = jnp.einsum("rd,lrc->ldc", here.axes, w, precision="highest") / here.unit
            bias = b - jnp.einsum("d,ldc->lc", here.mean, weights, precision="highest")
            return weights, jnp.where(problem.present[None], bias, jnp.asarray(ABSENT, bias.dtype)), *rest

        return every(lane, lanes)

    return every(subset, (rotated, y))
