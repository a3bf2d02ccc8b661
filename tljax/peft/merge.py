"""What adapters mean: the parameters that they make of the base."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tljax.peft.adapter import Adapter, Adapters, PeftError, Shared
from tljax.tree import map_named, named_leaves, nearest
from tljax.tree.paths import quoted
from tljax.types import Array, Params


def merge(params: Params, adapters: Adapters) -> Params:
    """`params` with every adapted leaf replaced by what its adapter makes of it; `params` itself stays as it is.

    Computed in float32 and cast back to the dtype of the leaf. A pure function: it can be jitted, differentiated, and
    vmapped over a stack of adapters on one base.

    Raises `PeftError` for a path that `params` does not have, with the nearest, and for shapes that do not fit.

    >>> import jax.numpy as jnp
    >>> from tljax.peft import Full
    >>> merge({"head": {"bias": jnp.zeros(2)}}, {"head/bias": Full(jnp.ones(2))})
    {'head': {'bias': Array([1., 1.], dtype=float32)}}
    """
    check(named_leaves(params), adapters)
    shared = shared_of(adapters)

    def replaced(name: str, leaf: Any) -> Any:
        adapter = adapters.get(name)
        return merged(name, adapter, leaf, shared) if isinstance(adapter, Adapter) else leaf

    return map_named(replaced, params)


def shared_of(adapters: Adapters) -> Shared:
    """The arrays that adapters share.

    >>> from tljax.peft import Full
    >>> list(shared_of({"head/bias": Full(np.zeros(2)), "shared/constants/vera_a": np.zeros((2, 2))}))
    ['shared/constants/vera_a']
    """
    return {name: value for name, value in adapters.items() if not isinstance(value, Adapter)}


def check(leaves: Mapping[str, Any], adapters: Adapters) -> None:
    """Raises `PeftError` for an adapter of a leaf that is not there."""
    for name, adapter in adapters.items():
        if isinstance(adapter, Adapter):
            if name not in leaves:
                raise PeftError(
                    f"there is an adapter for {name!r}, but the parameters have no such leaf; the nearest are "
                    f"{quoted(nearest(name, leaves))}"
                )
        elif not name.startswith("shared/"):
            raise PeftError(f"adapters[{name!r}] is {type(adapter).__name__}; expected an adapter, such as LoRA")


def merged(name: str, adapter: Adapter, leaf: Array, shared: Shared) -> Array:
    """What `adapter` makes of the leaf called `name`; raises `PeftError` where it does not fit."""
    try:
        new = adapter.merge(leaf, shared)
    except KeyError as error:
        raise PeftError(
            f"the {adapter.kind} adapter of {name!r} reads {error}, which is not among the adapters"
        ) from error
    except (TypeError, ValueError) as error:  # how jax tells of shapes
        raise PeftError(f"{misfit(name, adapter, leaf)}: {error}") from error
    if new.shape != leaf.shape:
        raise PeftError(misfit(name, adapter, leaf))
    return new


def misfit(name: str, adapter: Adapter, leaf: Array) -> str:
    """The message for an adapter that does not fit the leaf called `name`."""
    shapes = ", ".join(f"{key} {tuple(np.shape(x))}" for key, x in named_leaves(adapter).items())
    return (
        f"the {adapter.kind} adapter of {name!r} ({shapes}) does not fit the leaf of shape {tuple(leaf.shape)} "
        f"as {getattr(adapter, 'layout', 'a whole')}"
    )
