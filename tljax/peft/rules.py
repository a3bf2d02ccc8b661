"""How each primitive of JAX treats a weight in parts.

A rule takes the equation and its operands, at least one of them a `Weight`, and returns the results, or raises `Unfit`.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax

from tljax.peft import products, weight
from tljax.peft.weight import Part, Unfit, Weight

Rule = Callable[[Any, list[Any]], list[Any]]


def _only(values: list[Any], at: int) -> Weight:
    """The operand `at`, where it alone is a weight."""
    if [i for i, value in enumerate(values) if isinstance(value, Weight)] != [at]:
        raise Unfit("it takes the weight as another operand than the usual")
    return values[at]


def _dot_general(eqn: Any, values: list[Any]) -> list[Any]:
    left, right = (isinstance(value, Weight) for value in values)
    if left and right:
        raise Unfit("it multiplies two adapted weights")
    return [products.dot_general(eqn, values[left], values[1 - left], left=left)]


def _conv(eqn: Any, values: list[Any]) -> list[Any]:
    kernel = _only(values, 1)
    return [products.conv_general_dilated(eqn, values[0], kernel)]


def _gather(eqn: Any, values: list[Any]) -> list[Any]:
    table = _only(values, 0)
    return [products.gather(eqn, table, values[1])]


def _dynamic_slice(eqn: Any, values: list[Any]) -> list[Any]:
    whole, starts, sizes = _only(values, 0), values[1:], eqn.params["slice_sizes"]

    def change(array: Any, axes: tuple[int, ...]) -> Any:
        rest = array.shape[len(axes) :]
        own = [starts[axis] for axis in axes] + [lax.full_like(starts[0], 0) for _ in rest]
        return lax.dynamic_slice(array, own, [*(sizes[axis] for axis in axes), *rest])

    cut = weight.cut(whole, eqn.primitive.bind(whole.base, *starts, **eqn.params), change)
    picked = {axis for axis, n in enumerate(whole.shape) if sizes[axis] == 1 < n}
    return [products.settled(cut, whole, picked) if picked else cut]


def _slice(eqn: Any, values: list[Any]) -> list[Any]:
    start, limit = eqn.params["start_indices"], eqn.params["limit_indices"]
    return [_sliced(values[0], start, limit, eqn.params["strides"])]


def _sliced(whole: Weight, start: Any, limit: Any, strides: Any = None) -> Weight:
    strides = strides or [1] * len(start)

    def change(array: Any, axes: tuple[int, ...]) -> Any:
        rest = array.shape[len(axes) :]
        own = [[bound[axis] for axis in axes] for bound in (start, limit, strides)]
        return lax.slice(array, own[0] + [0] * len(rest), own[1] + list(rest), own[2] + [1] * len(rest))

    return weight.cut(whole, lax.slice(whole.base, start, limit, strides), change)


def _split(eqn: Any, values: list[Any]) -> list[Any]:
    whole, axis, at, out = values[0], eqn.params["axis"], 0, []
    for size in eqn.params["sizes"]:
        start, limit = [0] * whole.base.ndim, list(whole.shape)
        start[axis], limit[axis] = at, at + int(size)
        out.append(_sliced(whole, start, limit))
        at += int(size)
    return out


def _rev(eqn: Any, values: list[Any]) -> list[Any]:
    turned = eqn.params["dimensions"]

    def change(array: Any, axes: tuple[int, ...]) -> Any:
        return lax.rev(array, [i for i, axis in enumerate(axes) if axis in turned])

    return [weight.cut(values[0], lax.rev(values[0].base, turned), change)]


def _reshape(eqn: Any, values: list[Any]) -> list[Any]:
    if eqn.params["dimensions"] is not None:
        raise Unfit("it permutes and reshapes at once")
    return [weight.reshape(values[0], eqn.params["new_sizes"])]


def _transpose(eqn: Any, values: list[Any]) -> list[Any]:
    return [weight.transpose(values[0], eqn.params["permutation"])]


def _squeeze(eqn: Any, values: list[Any]) -> list[Any]:
    return [weight.squeeze(values[0], eqn.params["dimensions"])]


def _broadcast_in_dim(eqn: Any, values: list[Any]) -> list[Any]:
    return [weight.broadcast(values[0], eqn.params["shape"], eqn.params["broadcast_dimensions"])]


def _base_alone(eqn: Any, values: list[Any]) -> list[Any]:
    """Where the array lies and what it is called are matters of W; the parts are small."""
    whole = _only(values, 0)
    return [whole.mapped(eqn.primitive.bind(whole.base, *values[1:], **eqn.params), lambda part: part)]


def _convert(eqn: Any, values: list[Any]) -> list[Any]:
    """The parts keep their precision until they meet activations."""
    if not jnp.issubdtype(eqn.params["new_dtype"], jnp.floating):
        raise Unfit(f"it makes {eqn.params['new_dtype']} of the weight")
    return _base_alone(eqn, values)


def _each_array(eqn: Any, values: list[Any]) -> list[Any]:
    def one(array: Any) -> Any:
        return eqn.primitive.bind(array, **eqn.params)

    return [values[0].mapped(one(values[0].base), lambda part: Part(one(part.array), part.axes, part.ranked))]


def _times_number(eqn: Any, values: list[Any]) -> list[Any]:
    """W and one factor are scaled."""
    at = 0 if isinstance(values[0], Weight) else 1
    whole = _only(values, at)
    number = values[1 - at]
    if jnp.ndim(number):
        raise Unfit("it multiplies the weight by an array")
    if at == 1 and eqn.primitive.name == "div":
        raise Unfit("it divides by the weight")

    def scaled(array: Any) -> Any:
        own = lax.broadcast(lax.convert_element_type(number, array.dtype), array.shape)
        return (lax.div if eqn.primitive.name == "div" else lax.mul)(array, own)

    factors = (Part(scaled(p.array), p.axes, True) if i else p for i, p in enumerate(whole.factors))
    return [Weight(scaled(whole.base), tuple(factors), whole.scales, whole.name)]


def _neg(eqn: Any, values: list[Any]) -> list[Any]:
    whole = values[0]
    factors = (Part(lax.neg(p.array), p.axes, True) if i else p for i, p in enumerate(whole.factors))
    return [Weight(lax.neg(whole.base), tuple(factors), whole.scales, whole.name)]


PRODUCTS = {"dot_general": _dot_general, "conv_general_dilated": _conv, "gather": _gather}
"""Where a weight meets activations or indices, and a plain array comes out."""
MOVES: dict[str, Rule] = {
    "broadcast_in_dim": _broadcast_in_dim, "convert_element_type": _convert, "copy": _base_alone, "copy_p": _base_alone,
    "device_put": _base_alone, "div": _times_number, "dynamic_slice": _dynamic_slice, "mul": _times_number,
    "name": _base_alone, "neg": _neg, "reshape": _reshape, "rev": _rev, "sharding_constraint": _base_alone,
    "slice": _slice, "split": _split, "squeeze": _squeeze, "stop_gradient": _each_array, "transpose": _transpose,
}  # fmt: skip
"""What only moves a weight about."""
