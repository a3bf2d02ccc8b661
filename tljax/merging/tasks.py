"""Task vectors, the differences ``tuned - base``: arithmetic, TIES and DARE."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from tljax.merging.models import Aligned, MergingError, align, mean_statistics, wide
from tljax.tree import Spec
from tljax.tree.updates import drop, elect, trim
from tljax.types import Array, Key, Params


def task_arithmetic(base: Params, models: Sequence[Params], scale: Any = 0.4, *, where: Spec = None) -> Params:
    """``base + sum_i scale_i (theta_i - base)``: tasks added, or with a negative scale forgotten.

    Published: 0.3 .. 0.5 for several tasks (here 0.4), negative for forgetting one; tune it on held-out data. The
    running statistics stay those of `base`: the sum may lie far from all models, so `recalibrate`.

    Args:
        base: the pretrained parameters, which all models started from.
        models: the fine-tuned parameters.
        scale: one for all, or one for each model; may be traced.
        where: which leaves are merged; the others stay as in `base`.

    Raises:
        MergingError: the trees do not fit together, or the scales do not fit the models.

    Reference: Ilharco et al. 2023, arXiv:2212.04089.

    >>> base, tuned = {"w": jnp.array([1.0, 1.0])}, {"w": jnp.array([2.0, 1.0])}
    >>> task_arithmetic(base, [tuned], -1.0)
    {'w': Array([0., 1.], dtype=float32)}
    """
    scales = list(scale) if isinstance(scale, Sequence) or np.ndim(scale) else [scale] * len(models)
    if len(scales) != len(models):
        raise MergingError(f"{len(scales)} scales for {len(models)} models; expected one for each, or one for all")
    aligned = _against(base, models, where)
    merged = {}
    for name, (start, *tuned) in aligned.parameters.items():
        merged[name] = wide(start) + sum(_times(s, wide(t) - wide(start)) for s, t in zip(scales, tuned))
    return aligned.build(merged)


def ties(
    base: Params,
    models: Sequence[Params],
    *,
    density: float = 0.2,
    scale: Any = 1.0,
    per_tensor: bool = False,
    where: Spec = None,
) -> Params:
    """TIES: of each task vector the largest elements, of these the ones whose sign wins, and their mean.

    ``base + scale * mean`` over the models that, at that element, were not trimmed and have the sign of the sum; a sum
    of 0 takes the sign of the majority of all elements.

    Args:
        base: the pretrained parameters.
        models: the fine-tuned parameters.
        density: the share of each task vector that is kept: published 20 %; 1 keeps all. Exactly ``int(density * n)``
            elements, and those as large as the smallest of them.
        scale: published 1; may be traced.
        per_tensor: trim each tensor by itself, not the whole model by one threshold.
        where: which leaves are merged; the others stay as in `base`.

    Raises:
        MergingError: the trees do not fit together, or the density is not in (0, 1].

    Reference: Yadav et al. 2023, arXiv:2306.01708.

    >>> base = {"w": jnp.zeros(4)}
    >>> ties(base, [{"w": jnp.array([4.0, 1.0, 0.0, 2.0])}, {"w": jnp.array([2.0, 0.0, 1.0, -3.0])}], density=0.5)
    {'w': Array([ 3.,  0.,  0., -3.], dtype=float32)}
    """
    if not 0 < density <= 1:
        raise MergingError(f"density={density}; expected a share in (0, 1], as 0.2 for the largest 20 %")
    aligned = _against(base, models, where)
    kept = []
    for i in range(len(models)):
        vector = {name: wide(leaves[1 + i]) - wide(leaves[0]) for name, leaves in aligned.parameters.items()}
        parts = [{name: update} for name, update in vector.items()] if per_tensor else [vector]
        kept.append({name: update for part in parts for name, update in trim(part, density).items()})
    merged = {name: wide(aligned.parameters[name][0]) + _times(scale, update) for name, update in elect(kept).items()}
    return aligned.build(merged | mean_statistics(aligned, first=1))


def dare(base: Params, model: Params, *, key: Key, rate: float = 0.9, where: Spec = None) -> Params:
    """DARE: `model` with the share `rate` of its task vector dropped at random and the rest divided by ``1 - rate``.

    A model again, in expectation the same, and so one for any other merge: ``average([dare(base, m, key=k) ...])`` or
    ``ties(base, [...])``. Meant for small updates, around 0.005 or less; statistics are the model's own.

    Raises:
        MergingError: the trees do not fit together, or the rate is not in [0, 1).

    Reference: Yu et al. 2024, arXiv:2311.03099.

    >>> import jax
    >>> dare({"w": jnp.zeros(4)}, {"w": jnp.ones(4)}, key=jax.random.key(0), rate=0.5)
    {'w': Array([0., 2., 2., 2.], dtype=float32)}
    """
    if not 0 <= rate < 1:
        raise MergingError(f"rate={rate}; expected the share to drop, in [0, 1)")
    aligned = align([base, model], where, labels=("base", "model"))
    vector = {name: wide(tuned) - wide(start) for name, (start, tuned) in aligned.parameters.items()}
    dropped = drop(key, vector, rate)
    merged: dict[str, Array] = {name: wide(aligned.parameters[name][0]) + update for name, update in dropped.items()}
    return aligned.build(merged | {name: jnp.asarray(leaves[1]) for name, leaves in aligned.statistics.items()})


def task_vector(base: Params, model: Params, *, where: Spec = None) -> Params:
    """``model - base``, in float32 or wider, with holes where there is nothing to subtract: statistics, integers.

    >>> task_vector({"w": jnp.array(1.0), "step": jnp.array(3)}, {"w": jnp.array(3.0), "step": jnp.array(3)})
    {'step': None, 'w': Array(2., dtype=float32)}
    """
    aligned = align([base, model], where, labels=("base", "model"))
    return aligned.alone({name: wide(tuned) - wide(start) for name, (start, tuned) in aligned.parameters.items()})


def _times(scale: Any, update: Array) -> Array:
    return jnp.asarray(scale, update.dtype) * update


def _against(base: Params, models: Sequence[Params], where: Spec) -> Aligned:
    if not models:
        raise MergingError("there is nothing to merge into the base: expected one fine-tuned model or more")
    return align([base, *models], where, labels=("base", *(f"model {i}" for i in range(len(models)))))
