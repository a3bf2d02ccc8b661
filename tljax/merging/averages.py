"""Means of models and paths between two of them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tljax.merging.models import MergingError, align, mean_statistics, wide
from tljax.tree import Spec
from tljax.types import Array, Params

_PARALLEL = 0.9995


def average(models: Sequence[Params], weights: Sequence[float] | None = None, *, where: Spec = None) -> Params:
    """``sum_i w_i theta_i / sum_i w_i``; without weights the mean, which is the uniform soup.

    Args:
        models: parameter trees of one architecture, statistics included.
        weights: one for each model; their sum must not be 0.
        where: which leaves are merged, as a selector; the others stay as in the first model.

    Raises:
        MergingError: the trees do not fit together, or the weights do not fit the trees.

    Reference: Wortsman et al. 2022, arXiv:2203.05482 (model soups).

    >>> average([{"w": jnp.array([0.0, 1.0])}, {"w": jnp.array([2.0, 1.0])}])
    {'w': Array([1., 1.], dtype=float32)}
    """
    shares = _shares(weights, len(models))
    aligned = align(models, where)
    leaves = aligned.parameters | aligned.statistics
    return aligned.build({name: sum(s * wide(x) for s, x in zip(shares, found)) for name, found in leaves.items()})


def interpolate(start: Params, tuned: Params, alpha: Any, *, where: Spec = None) -> Params:
    """``(1 - alpha) start + alpha tuned``: WiSE-FT at one alpha, which may be traced.

    The published alpha, where none can be tuned, is 0.5. Both ends need the same head: that of a zero-shot model, or
    one trained on the frozen features.

    Reference: Wortsman et al. 2022, arXiv:2109.01903.

    >>> interpolate({"w": jnp.array(0.0)}, {"w": jnp.array(4.0)}, 0.25)
    {'w': Array(1., dtype=float32)}
    """
    aligned = align([start, tuned], where, labels=("start", "tuned"))
    leaves = aligned.parameters | aligned.statistics
    return aligned.build({name: _between(wide(pair[0]), wide(pair[1]), alpha) for name, pair in leaves.items()})


def wise_ft(start: Params, tuned: Params, alphas: Any = None, *, where: Spec = None) -> Params:
    """The models on the line from `start` to `tuned` as one stacked tree, leaves `[A, ...]`.

    `alphas` are by default 0, 0.1 ... 1. See `interpolate`, and `evaluate_stacked` for scoring them.

    >>> wise_ft({"w": jnp.array(0.0)}, {"w": jnp.array(1.0)}, [0.0, 0.5, 1.0])
    {'w': Array([0. , 0.5, 1. ], dtype=float32)}
    """
    points = jnp.asarray(np.linspace(0.0, 1.0, 11) if alphas is None else alphas, jnp.float32)
    return jax.vmap(lambda alpha: interpolate(start, tuned, alpha, where=where))(points)


def slerp(start: Params, tuned: Params, t: Any = 0.5, *, where: Spec = None) -> Params:
    """Spherical interpolation, tensor by tensor: ``(sin((1-t)w) a + sin(tw) b) / sin w``, w the angle of a and b.

    Where ``|cos w| > 0.9995`` and the tensors point the same way, or one is zero or a single number, there is no arc to
    follow and the line is taken. Where they point opposite ways every arc is as short as any other, and the line leads
    through 0: that is an error.

    Raises:
        MergingError: two tensors are opposite. Under a transformation, where values are not known, the leaf is NaN.

    >>> quarter = slerp({"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([0.0, 1.0])}, 0.5)["w"]
    >>> print(jnp.round(quarter, 4))
    [0.7071 0.7071]
    """
    aligned = align([start, tuned], where, labels=("start", "tuned"))
    merged = {}
    for name, pair in aligned.parameters.items():
        if _opposite(*pair):
            raise MergingError(
                f"{name!r} points opposite ways in the two models (cosine below -{_PARALLEL}), so there is no shortest "
                f"arc between them; write where=~select({name!r}) to keep that of the first, or use interpolate()"
            )
        merged[name] = _arc(wide(pair[0]), wide(pair[1]), t)
    still = {name: _between(wide(pair[0]), wide(pair[1]), t) for name, pair in aligned.statistics.items()}
    return aligned.build(merged | still)


def model_stock(base: Params, models: Sequence[Params], *, where: Spec = None) -> Params:
    """Model Stock: each tensor as far from `base` towards the mean as the angle between the models suggests.

    ``base + t (mean - base)`` with ``t = N c / (1 + (N - 1) c)``, where c is the mean cosine over the pairs of updates
    ``theta_i - base``, kept within 0 .. 1; two models are enough.

    Raises:
        MergingError: fewer than two models, or trees that do not fit together.

    Reference: Jang et al. 2024, arXiv:2403.19522.

    >>> model_stock({"w": jnp.zeros(2)}, [{"w": jnp.array([2.0, 0.0])}, {"w": jnp.array([2.0, 0.0])}])
    {'w': Array([2., 0.], dtype=float32)}
    """
    if len(models) < 2:
        raise MergingError(
            f"model_stock() reads the angle between models, so it needs two or more; found {len(models)}"
        )
    aligned = align([base, *models], where, labels=("base", *(f"model {i}" for i in range(len(models)))))
    merged = {name: _stock(*map(wide, leaves)) for name, leaves in aligned.parameters.items()}
    return aligned.build(merged | mean_statistics(aligned, first=1))


def _shares(weights: Sequence[float] | None, count: int) -> list[float]:
    found = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(found) != count:
        raise MergingError(f"{len(found)} weights for {count} models; expected one for each")
    if count and not np.isfinite(1 / sum(found) if sum(found) else np.inf):
        raise MergingError(f"the weights {found} add up to 0, so they make no mean")
    return [weight / sum(found) for weight in found]


def _between(a: Array, b: Array, t: Any) -> Array:
    t = jnp.asarray(t, a.dtype)
    return (1 - t) * a + t * b


def _cosine(a: Array, b: Array) -> Array:
    """The cosine of the angle between two tensors; 0 where one is zero."""
    norms = jnp.linalg.norm(a.ravel()) * jnp.linalg.norm(b.ravel())
    return jnp.where(norms > 0, jnp.vdot(a, b) / jnp.where(norms > 0, norms, 1.0), 0.0)


def _arc(a: Array, b: Array, t: Any) -> Array:
    if a.size < 2:
        return _between(a, b, t)
    t = jnp.asarray(t, a.dtype)
    cosine = _cosine(a, b)
    angle = jnp.arccos(jnp.clip(cosine, -_PARALLEL, _PARALLEL))
    arc = (jnp.sin((1 - t) * angle) * a + jnp.sin(t * angle) * b) / jnp.sin(angle)
    straight = (cosine > _PARALLEL) | ~jnp.any(a) | ~jnp.any(b)
    return jnp.where(straight, _between(a, b, t), jnp.where(cosine < -_PARALLEL, jnp.nan, arc))


def _opposite(a: Any, b: Any) -> bool:
    if np.size(a) < 2 or isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer):
        return False
    with jax.ensure_compile_time_eval():
        return bool(_cosine(wide(a), wide(b)) < -_PARALLEL)


def _stock(base: Array, *models: Array) -> Array:
    updates = [model - base for model in models]
    n = len(updates)
    cosines = [_cosine(updates[i], updates[j]) for i in range(n) for j in range(i)]
    c = jnp.clip(sum(cosines) / len(cosines), 0.0, 1.0)
    t = n * c / (1 + (n - 1) * c)
    return base + t * sum(updates) / n
