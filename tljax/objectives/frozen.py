"""What a term keeps of the source: a frozen copy of the model, and the head that was on it."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from tljax.objectives.mean import widened
from tljax.objectives.parameters import ATTACHED, StartError, bare
from tljax.tree import from_named, map_named, named_leaves, nearest
from tljax.tree.paths import quoted
from tljax.types import Array, Params, TljaxError

HEAD = "head/"


class HeadError(TljaxError):
    """A head that does not fit the features or the classes."""


def frozen_copy(start: Params, params: Params, term: str) -> dict[str, Array]:
    """Copies of the leaves of `start` by name: all that the model `params` has outside of its head.

    Raises `StartError` where one is missing, or has another shape.

    >>> params = {"backbone": {"kernel": jnp.ones((2, 3))}, "head": {"bias": jnp.zeros(5)}}
    >>> list(frozen_copy(params, params, "lwf(start, head)"))
    ['backbone/kernel']
    """
    given, found = named_leaves(start), {}
    for name, leaf in named_leaves(params).items():
        if bare(name).startswith(HEAD):
            continue
        if name not in given:
            if bare(name) != name:
                raise StartError(f"{term}: the starting point has no {name!r}: {ATTACHED}")
            close = quoted(nearest(name, given)) or "none"
            raise StartError(
                f"{term}: the starting point has no {name!r}; the nearest are {close}. "
                "Give the parameters of this model as they were before the first step"
            )
        if jnp.shape(given[name]) != jnp.shape(leaf):
            raise StartError(
                f"{term}: {name!r} has the shape {list(jnp.shape(leaf))} in the model and "
                f"{list(jnp.shape(given[name]))} in the starting point"
            )
        # A copy, since a training step that donates its state must not delete the caller's arrays.
        found[name] = jnp.array(given[name])
    return found


def with_frozen(copy: Mapping[str, Array], params: Params) -> Params:
    """`params` with the leaves of `copy` in their places; the head, which has none there, stays.

    >>> with_frozen({"backbone/bias": 1}, {"backbone": {"bias": 2}, "head": {"bias": 3}})
    {'backbone': {'bias': 1}, 'head': {'bias': 3}}
    """
    return map_named(lambda name, leaf: copy.get(name, leaf), params)


def source_head_copy(head: Params, features: Any, term: str) -> Params:
    """A copy of a linear head ``{"kernel": [D, C0], "bias": [C0]}`` for features `[B, D]`.

    Raises `HeadError` where it is none, or has another width.

    >>> source_head_copy({"kernel": jnp.ones((3, 2))}, jnp.ones((1, 4)), "lwf(start, head)")
    Traceback (most recent call last):
    tljax.objectives.frozen.HeadError: lwf(start, head): the source head reads 3 features, and the model has 4
    """
    leaves = named_leaves(head) if isinstance(head, Mapping) else {}
    shapes = {name: jnp.shape(leaf) for name, leaf in leaves.items()}
    kernel = shapes.get("kernel", ())
    if len(kernel) != 2 or shapes.get("bias", kernel[1:]) != kernel[1:] or not set(shapes) <= {"kernel", "bias"}:
        found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()) or repr(head)[:60]
        raise HeadError(
            f"{term}: the source head should be linear, kernel [D, C0] and bias [C0], as load_pretrained(...)"
            f'.params["head"]; found {found}'
        )
    if kernel[0] != features.shape[-1]:
        raise HeadError(f"{term}: the source head reads {kernel[0]} features, and the model has {features.shape[-1]}")
    return from_named({name: jnp.array(leaf) for name, leaf in leaves.items()})


def head_logits(head: Params, features: Array) -> Array:
    """The logits `[B, C0]` that a linear head gives for features `[B, D]`.

    >>> print(head_logits({"kernel": jnp.ones((2, 1)), "bias": jnp.ones(1)}, jnp.ones((1, 2))))
    [[3.]]
    """
    features = widened(features)
    logits = jnp.matmul(features, head["kernel"].astype(features.dtype), precision="highest")
    return logits + head["bias"].astype(features.dtype)[None] if "bias" in head else logits
