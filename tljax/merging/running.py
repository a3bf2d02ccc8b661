"""Averages over training: SWA and EMA, as pure values that a step carries along."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from tljax.merging.models import check_names, check_shape, is_float, wide, with_leaves
from tljax.tree import map_named, named_leaves
from tljax.types import Array, Params


class Running(NamedTuple):
    """An average so far. Its floats are kept in float32 at least: in bfloat16 small steps would be lost."""

    mean: Params
    """Integers are those of the newest model."""
    count: Array  # type: ignore[assignment]  # as every tuple has, and nobody needs here
    """How many models are in it, int32 `[]`."""

    def like(self, params: Params) -> Params:
        """The average in the dtypes of `params`. After it, `recalibrate` a model with BatchNorm."""
        return with_leaves(params, named_leaves(self.mean))


def running(params: Params) -> Running:
    """The average of one model, from which `swa` or `ema` go on.

    >>> running({"w": jnp.ones(2, jnp.bfloat16)})
    Running(mean={'w': Array([1., 1.], dtype=float32)}, count=Array(1, dtype=int32))
    """
    mean = map_named(lambda _, leaf: wide(leaf) if is_float(leaf) else leaf, params)
    return Running(mean, jnp.ones((), jnp.int32))


def swa(average: Running, params: Params) -> Running:
    """One more model in the plain average: ``mean + (params - mean) / (n + 1)``.

    Reference: Izmailov et al. 2018, arXiv:1803.05407.

    >>> average = running({"w": jnp.array(1.0)})
    >>> swa(swa(average, {"w": jnp.array(2.0)}), {"w": jnp.array(6.0)}).mean
    {'w': Array(3., dtype=float32)}
    """
    return _towards(average, params, 1.0 / (average.count + 1).astype(jnp.float32))


def ema(average: Running, params: Params, *, decay: float = 0.999, warmup: bool = True) -> Running:
    """``mean + (1 - d) (params - mean)`` with d = `decay`.

    With `warmup` it is ``d = min(decay, (1 + t) / (10 + t))``, t the number of models in the average, so that the start
    is forgotten soon. 0.999 is FixMatch's decay.

    Reference: Sohn et al. 2020, arXiv:2001.07685.

    >>> ema(running({"w": jnp.array(0.0)}), {"w": jnp.array(1.0)}, decay=0.75, warmup=False).mean
    {'w': Array(0.25, dtype=float32)}
    """
    t = average.count.astype(jnp.float32)
    kept = jnp.minimum(decay, (1 + t) / (10 + t)) if warmup else jnp.float32(decay)
    return _towards(average, params, 1 - kept)


def _towards(average: Running, params: Params, share: Array) -> Running:
    before, now = named_leaves(average.mean), named_leaves(params)
    labels = ("the average", "the new model")
    check_names(before, now, *labels)

    def moved(name: str, mean: Any) -> Any:
        check_shape(name, [mean, now[name]], labels)
        return mean + share.astype(mean.dtype) * (wide(now[name]) - mean) if is_float(mean) else now[name]

    return Running(map_named(moved, average.mean), average.count + 1)
