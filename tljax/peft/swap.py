"""Adapters at another strength, and in the shapes of another: what it takes to swap them without compiling anew."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from tljax.peft.adapter import Adapter, Adapters, PeftError
from tljax.peft.algebra import base_leaf, base_leaves, not_additive
from tljax.peft.factors import wide
from tljax.peft.full import Full
from tljax.peft.vera import VeRA
from tljax.types import Array, Params


def scaled(adapters: Adapters, factor: Any, *, params: Params | None = None) -> Adapters:
    """Every delta times `factor`, which may be traced; -1 negates. Kinds and ranks stay as they are.

    Raises `PeftError` for DoRA and IA3, whose effect is no multiple of a delta, and for `Full` leaves without `params`.

    >>> from tljax.peft import LoRA
    >>> adapter = LoRA(jnp.ones((2, 1)), jnp.ones((1, 2)), {"scale": jnp.float32(2.0)})
    >>> float(scaled({"w": adapter}, -1.0)["w"].constants["scale"])
    -2.0
    """
    leaves, times = base_leaves(params, adapters), jnp.asarray(factor, jnp.float32)
    new: Adapters = dict(adapters)
    for name, adapter in adapters.items():
        if isinstance(adapter, VeRA):
            new[name] = dataclasses.replace(adapter, b=adapter.b * times.astype(adapter.b.dtype))
        elif isinstance(adapter, Full):
            base = wide(base_leaf(leaves, name, "its delta is what was added to it"))
            new[name] = Full((base + times * (wide(adapter.value) - base)).astype(adapter.value.dtype))
        elif isinstance(adapter, Adapter):
            constants = getattr(adapter, "constants", {})
            if "scale" not in constants or hasattr(adapter, "magnitude"):
                raise PeftError(not_additive(name, adapter))
            new[name] = dataclasses.replace(adapter, constants=constants | {"scale": constants["scale"] * times})  # type: ignore[type-var]
    return new


def pad_rank(adapters: Adapters, rank: int) -> Adapters:
    """LoRA and DoRA with zeros in their factors up to `rank`: the same function, in the shapes of any other.

    Adapters of one set of leaves then go through one compiled program, one after the other or stacked, since scales are
    arrays too.

    Raises `PeftError` for an adapter of a higher rank; `truncate` it first.

    >>> from tljax.peft import LoRA
    >>> adapter = LoRA(jnp.ones((4, 1)), jnp.ones((1, 3)), {"scale": jnp.float32(2.0)})
    >>> padded = pad_rank({"w": adapter}, 8)["w"]
    >>> padded.a.shape, padded.b.shape
    ((4, 8), (8, 3))
    """

    def grown(factor: Array, axis: int, name: str) -> Array:
        axis %= factor.ndim
        if factor.shape[axis] > rank:
            raise PeftError(
                f"{name!r} has rank {factor.shape[axis]}, above rank={rank}; write truncate(adapters, {rank})"
            )
        return jnp.pad(factor, [(0, (rank - factor.shape[axis]) * (i == axis)) for i in range(factor.ndim)])

    new: Adapters = dict(adapters)
    for name, adapter in adapters.items():
        if hasattr(adapter, "a") and hasattr(adapter, "b") and hasattr(adapter, "constants"):
            axes = {"a": -1, "a0": -1, "b": adapter.layout.stack, "b0": adapter.layout.stack}
            constants = {k: grown(x, axes[k], name) if k in axes else x for k, x in adapter.constants.items()}
            a, b = grown(adapter.a, -1, name), grown(adapter.b, adapter.layout.stack, name)
            new[name] = dataclasses.replace(adapter, a=a, b=b, constants=constants)
    return new
