"""What each matrix of a model is multiplied with, read off the traced program and so for any kind of model."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from tljax.types import Array

Axes = tuple[int, ...]


class Reading(NamedTuple):
    """One use of a leaf."""

    name: str
    axes: Axes | None
    """The axes of the leaf that a product sums over, in order; None for a use that is no such product."""
    inputs: Array | None
    """`[T, I]`: what the leaf is multiplied with, one row for each position, I elements in the order of the axes."""


class _Part(NamedTuple):
    """A value that is a leaf, perhaps cast, with axes moved or joined."""

    name: str
    axes: tuple[Axes, ...]
    """For each axis of the value, the axes of the leaf that it is made of, in order."""
    shape: tuple[int, ...]
    """Of the leaf."""


_CALLS = (
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "remat",
    "remat2",
    "checkpoint",
    "custom_jvp_call",
    "custom_vjp_call",
)
_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def readings(f: Any, leaves: Mapping[str, Array], *arguments: Any) -> list[Reading]:
    """Every use of one of `leaves` while ``f(leaves, *arguments)`` is computed, products with their other side.

    A leaf may be cast, transposed and reshaped before. What goes into a loop (`scan`, `while`, `cond`) is a use of
    another kind, as are lookups, convolutions and products in batches.

    >>> x = jnp.ones((5, 3))
    >>> [found] = readings(lambda leaves, x: jnp.tanh(x @ leaves["kernel"]), {"kernel": jnp.ones((3, 2))}, x)
    >>> found.name, found.axes, found.inputs.shape
    ('kernel', (0,), (5, 3))
    """
    closed = jax.make_jaxpr(f)(dict(leaves), *arguments)
    values = jax.tree.leaves((dict(leaves), arguments))
    parts: list[_Part | None] = [
        _Part(name, tuple((i,) for i in range(jnp.ndim(leaves[name]))), jnp.shape(leaves[name]))
        for name in sorted(leaves)
    ]
    found: list[Reading] = []
    _walk(closed.jaxpr, closed.consts, values, parts + [None] * (len(values) - len(parts)), found)
    return found


def _walk(
    jaxpr: Any, consts: Sequence[Any], values: Sequence[Any], parts: Sequence[_Part | None], found: list[Reading]
) -> tuple[list[Any], list[_Part | None]]:
    """Computes `jaxpr`, adding to `found`; the values of its results, and what leaves they are."""
    known: dict[Any, tuple[Any, _Part | None]] = {v: (x, None) for v, x in zip(jaxpr.constvars, consts)}
    known |= dict(zip(jaxpr.invars, zip(values, parts)))

    def read(v: Any) -> tuple[Any, _Part | None]:
        return (v.val, None) if isinstance(v, core.Literal) else known[v]

    for eqn in jaxpr.eqns:
        ins, origins = zip(*map(read, eqn.invars)) if eqn.invars else ((), ())
        inner = [eqn.params[b] for b in _BODIES if b in eqn.params] if eqn.primitive.name in _CALLS else []
        if inner:
            body, own = (inner[0].jaxpr, inner[0].consts) if hasattr(inner[0], "jaxpr") else (inner[0], ())
            outs, kept = _walk(body, own, ins, origins, found)
        else:
            outs, part = _bind(eqn, ins), _followed(eqn, origins)
            kept = [part] * len(outs)
            if part is None:
                found.extend(_uses(eqn, ins, origins))
        known |= dict(zip(eqn.outvars, zip(outs, kept)))
    results = [read(v) for v in jaxpr.outvars]
    return [x for x, _ in results], [part for _, part in results]


def _bind(eqn: Any, values: Sequence[Any]) -> list[Any]:
    given = eqn.primitive.get_bind_params(eqn.params)
    functions, params = given if isinstance(given, tuple) else ((), given)
    out = eqn.primitive.bind(*functions, *values, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def _followed(eqn: Any, origins: Sequence[_Part | None]) -> _Part | None:
    """The leaf that the result still is, if the operation only rearranges it."""
    part = origins[0] if origins else None
    if part is None:
        return None
    if eqn.primitive.name in ("convert_element_type", "copy", "stop_gradient"):
        return part
    if eqn.primitive.name == "transpose":
        return part._replace(axes=tuple(part.axes[i] for i in eqn.params["permutation"]))
    if eqn.primitive.name in ("reshape", "squeeze"):
        return _joined(part, eqn.outvars[0].aval.shape)
    return None


def _joined(part: _Part, shape: Sequence[int]) -> _Part | None:
    """`part` after a reshape that joins neighbouring axes, or drops or adds axes of length 1; None after any other."""
    rest, axes = list(part.axes), []
    for length in shape:
        group: Axes = ()
        while rest and _length(part, group) < length:
            group += rest.pop(0)
        if _length(part, group) != length:
            return None
        axes.append(group)
    return part._replace(axes=tuple(axes))


def _length(part: _Part, axes: Axes) -> int:
    return math.prod(part.shape[i] for i in axes)


def _uses(eqn: Any, values: Sequence[Any], origins: Sequence[_Part | None]) -> list[Reading]:
    used = [i for i, part in enumerate(origins) if part is not None]
    if eqn.primitive.name == "dot_general" and len(used) == 1:
        [i], contracted = used, eqn.params["dimension_numbers"][0]
        part = origins[i]
        if part is not None and not eqn.params["dimension_numbers"][1][0]:
            axes = tuple(axis for dim in contracted[i] for axis in part.axes[dim])
            x = jnp.moveaxis(values[1 - i], contracted[1 - i], range(-len(contracted[1 - i]), 0))
            return [Reading(part.name, axes, x.reshape(-1, _length(part, axes)))]
    return [Reading(part.name, None, None) for part in origins if part is not None]
