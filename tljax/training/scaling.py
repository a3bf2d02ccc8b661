"""Scaling the loss, so that gradients in float16 neither vanish nor overflow.

Float16 has nothing between 0 and 6e-8 and nothing above 65504. The loss is multiplied by a scale before the backward
pass and its gradients are divided by it after, in float32. A step whose gradients are not finite is not made, and the
scale is halved; after enough good steps in a row it is doubled.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tljax.types import Array

START, GROWTH, BACKOFF, EVERY = 2.0**16, 2.0, 0.5, 2000
"""The first scale, its factors after `EVERY` good steps and after a bad one: those of torch.amp.GradScaler."""


class Scaling(NamedTuple):
    """The scale of the loss, and what moves it."""

    scale: Array
    """float32 `[]`; see `exhausted`."""
    good: Array
    """Steps since the scale was last changed, int32 `[]`."""
    skipped: Array
    """Whether the last step was not made, because its gradients were not finite; bool `[]`."""


def start_scaling() -> Scaling:
    """The scaling of a run that has made no step.

    >>> start_scaling().scale.item()
    65536.0
    """
    return Scaling(jnp.float32(START), jnp.int32(0), jnp.bool_(False))


def moved(scaling: Scaling, finite: Array) -> Scaling:
    """`scaling` after a step whose gradients were finite, or not.

    Reference: Micikevicius et al. 2018, Mixed precision training, arXiv:1710.03740, section 3.2.

    >>> moved(start_scaling(), jnp.bool_(False)).scale.item()
    32768.0
    >>> moved(start_scaling()._replace(good=jnp.int32(1999)), jnp.bool_(True)).scale.item()
    131072.0
    """
    good = jnp.where(finite, scaling.good + 1, 0)
    grown = scaling.scale * GROWTH
    grows = (good == EVERY) & jnp.isfinite(grown)
    scale = jnp.where(finite, jnp.where(grows, grown, scaling.scale), scaling.scale * BACKOFF)
    return Scaling(scale, jnp.where(good == EVERY, 0, good), ~finite)


def exhausted(scaling: Scaling | None) -> Array:
    """Whether the scale went below 1, so that a smaller one is no remedy: the run has failed. Bool `[]`.

    >>> exhausted(start_scaling()).item(), exhausted(None).item()
    (False, False)
    """
    return jnp.bool_(False) if scaling is None else scaling.scale < 1


def all_finite(tree: Any) -> Array:
    """Whether every floating number in `tree` is finite, bool `[]`.

    >>> all_finite({"a": jnp.ones(2), "n": jnp.arange(2)}).item(), all_finite([jnp.array([1.0, jnp.inf])]).item()
    (True, False)
    """
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in floats]))


def kept_unless(made: Array, new: Any, old: Any) -> Any:
    """`new` if the step was made, else `old`.

    >>> kept_unless(jnp.bool_(False), {"w": jnp.ones(1)}, {"w": jnp.zeros(1)})["w"].tolist()
    [0.0]
    """
    return jax.tree.map(lambda n, o: jnp.where(made, n, o), new, old)
