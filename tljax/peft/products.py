"""What a weight in parts is for: matrix products, convolutions and lookups, each written as one of W and two small.

A scale is applied to the activations, on the side where its axes are.
"""

import math
from collections.abc import Sequence
from typing import Any

from jax import lax

from tljax.peft.labels import Labels, contract, spread
from tljax.peft.weight import RANK, Part, Unfit, Weight
from tljax.types import Array


def dot_general(eqn: Any, x: Array, weight: Weight, *, left: bool) -> Array:
    """``x W + (x a) b`` for any contraction and batch axes; `left` where the weight is the left operand.

    The factor that leaves the smaller array is taken first: `b` where the outputs are summed over, as in the logits of
    a tied embedding.
    """
    (lc, rc), (lb, rb) = eqn.params["dimension_numbers"]
    (xc, wc), (xb, wb) = ((rc, lc), (rb, lb)) if left else ((lc, rc), (lb, rb))
    n = weight.base.ndim
    of_x = [n + i for i in range(x.ndim)]
    for i, axis in zip((*xc, *xb), (*wc, *wb)):
        of_x[i] = axis
    free_x = [label for i, label in enumerate(of_x) if i not in xc and i not in xb]
    free_w = [axis for axis in range(n) if axis not in wc and axis not in wb]
    out = (*wb, *(free_w + free_x if left else free_x + free_w))
    before = [scale for scale in weight.scales if set(scale.axes) <= set(of_x)]
    after = [scale for scale in weight.scales if scale not in before]
    if not all(set(scale.axes) <= set(out) for scale in after):
        raise Unfit("its scale varies along axes of both the activations and the result")
    for scale in before:
        x = _scaled(x, tuple(of_x), scale)
    y = eqn.primitive.bind(*((weight.base, x) if left else (x, weight.base)), **eqn.params)
    if weight.factors:
        precision = eqn.params["precision"]
        if left and isinstance(precision, tuple):
            precision = precision[::-1]
        y = lax.add(y, _delta(x, tuple(of_x), weight, out, y, precision))
    for scale in after:
        y = _scaled(y, out, scale)
    return y


def _delta(x: Array, of_x: Labels, weight: Weight, out: Labels, y: Array, precision: Any) -> Array:
    """``(x a) b`` with the axes, the shape and the dtype of `y`, whose axes are labelled `out`."""
    sizes = dict(enumerate(weight.shape)) | dict(zip(of_x, x.shape))
    how = {"precision": precision, "preferred_element_type": y.dtype}
    first, last = sorted(weight.factors, key=lambda part: math.prod(sizes[k] for k in {*of_x, *part.axes}))
    dtype = weight.base.dtype
    h, of_h = contract(x, of_x, first.cast(dtype), first.labels, {*out, *last.labels}, **how)
    h = lax.convert_element_type(h, x.dtype)
    return spread(*contract(h, of_h, last.cast(dtype), last.labels, out, **how), out, y.shape)


def _scaled(x: Array, of_x: Labels, scale: Part) -> Array:
    return lax.mul(x, spread(scale.cast(x.dtype), scale.axes, of_x, x.shape))


def conv_general_dilated(eqn: Any, x: Array, weight: Weight) -> Array:
    """A convolution with `a`, whose output channels are the rank, then a 1x1 convolution with `b`.

    With feature groups every group is convolved with the same `a`. That costs more than it saves where groups are
    small, as in a depthwise convolution; then the kernel is formed, which costs next to nothing.
    """
    dims, groups = eqn.params["dimension_numbers"], eqn.params["feature_group_count"]
    out, into, *_ = dims.rhs_spec
    if eqn.params["batch_group_count"] != 1:
        raise Unfit("the convolution has batch groups")
    before = [scale for scale in weight.scales if set(scale.axes) <= {into} and (scale.axes == () or groups == 1)]
    after = [scale for scale in weight.scales if scale not in before]
    if not all(set(scale.axes) <= {out} for scale in after):
        raise Unfit("its scale varies over the window or the groups of the convolution")
    of_x, of_y = _channels(x.ndim, dims.lhs_spec, into), _channels(x.ndim, dims.out_spec, out)
    for scale in before:
        x = _scaled(x, of_x, scale)
    y = eqn.primitive.bind(x, weight.base, **eqn.params)
    if weight.factors:
        y = lax.add(y, _conv_delta(eqn, x, weight, of_y, y))
    for scale in after:
        y = _scaled(y, of_y, scale)
    return y


def _channels(ndim: int, spec: Sequence[int], label: int) -> Labels:
    """Labels of activations: `label` for the channels, numbers apart for batch and space."""
    return tuple(label if i == spec[1] else 1000 + spec.index(i) for i in range(ndim))


def _conv_delta(eqn: Any, x: Array, weight: Weight, of_y: Labels, y: Array) -> Array:
    params, groups = eqn.params, eqn.params["feature_group_count"]
    out, dtype = params["dimension_numbers"].rhs_spec[0], weight.base.dtype
    inner, outer = sorted(weight.factors, key=lambda part: out in part.axes)
    if out in inner.axes or not set(outer.axes) <= {out}:
        raise Unfit("inputs and outputs of the kernel are mixed")
    rank, shape = inner.array.shape[-1], weight.shape
    if groups > 1 and 3 * rank * (math.prod(shape) * groups // shape[out] + shape[out]) >= math.prod(shape):
        raise Unfit("with so small groups a product of factors costs more than forming the kernel", cheaper=True)
    order = tuple(RANK if axis == out else axis for axis in range(len(shape)))
    sizes = [rank if axis == out else n for axis, n in enumerate(shape)]
    kernel = spread(inner.cast(dtype), inner.labels, order, sizes)
    kernel = lax.concatenate([kernel] * groups, out) if groups > 1 else kernel
    h = lax.convert_element_type(eqn.primitive.bind(x, kernel, **params), x.dtype)
    at, group = of_y.index(out), 2000
    of_h = tuple(label for i in range(h.ndim) for label in ((group, RANK) if i == at else (of_y[i],)))
    b = spread(outer.cast(dtype), outer.labels, (out, RANK), (shape[out], rank))
    h, b = h.reshape(*h.shape[:at], groups, rank, *h.shape[at + 1 :]), b.reshape(groups, shape[out] // groups, rank)
    keep = {*of_y, group}
    how = {"precision": params["precision"], "preferred_element_type": y.dtype}
    delta, labels = contract(h, of_h, b, (group, out, RANK), keep, **how)
    target = tuple(label for i in range(y.ndim) for label in ((group, out) if i == at else (of_y[i],)))
    split = (*y.shape[:at], groups, shape[out] // groups, *y.shape[at + 1 :])
    return spread(delta, labels, target, split).reshape(y.shape)


def gather(eqn: Any, weight: Weight, indices: Array) -> Array | Weight:
    """Rows of W, and of the factors that have the indexed axes: an embedding, or a layer chosen from a stack."""
    dims, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    indexed, fill = set(dims.collapsed_slice_dims), eqn.params["fill_value"]
    whole = all(sizes[axis] == n for axis, n in enumerate(weight.shape) if axis not in indexed)
    if set(dims.start_index_map) != indexed or dims.operand_batching_dims or not whole:
        raise Unfit("it takes pieces of rows")
    if not (fill is None or fill == 0 or fill != fill):
        raise Unfit(f"indices out of range are filled with {fill}")
    base = eqn.primitive.bind(weight.base, indices, **eqn.params)
    left = [axis for axis in range(weight.base.ndim) if axis not in indexed]
    place = dict(zip(left, dims.offset_dims))
    ahead = [axis for axis in range(base.ndim) if axis not in dims.offset_dims]

    def change(part: Part) -> Part:
        if not indexed & set(part.axes):
            return part.moved(place.__getitem__)
        if not indexed <= set(part.axes):
            raise Unfit("it indexes inputs and outputs at once")
        own = [axis for axis in part.axes if axis not in indexed]
        local = dict(zip(part.axes, range(len(part.axes))))
        picked = eqn.primitive.bind(part.array, indices, **eqn.params | _rows(part, dims, local, len(ahead)))
        labels = [*ahead, *(place[axis] for axis in own)]
        return Part(picked, tuple(range(len(labels))), part.ranked).moved(labels.__getitem__).trimmed()

    return settled(weight.mapped(base, change), weight, indexed)


def _rows(part: Part, dims: Any, local: dict[int, int], batch: int) -> dict[str, Any]:
    """The parameters of a gather from the part alone; the batch stands first."""
    indexed = {local[axis] for axis in dims.collapsed_slice_dims}
    left = part.array.ndim - len(indexed)
    return {
        "dimension_numbers": lax.GatherDimensionNumbers(
            offset_dims=tuple(range(batch, batch + left)),
            collapsed_slice_dims=tuple(sorted(indexed)),
            start_index_map=tuple(local[axis] for axis in dims.start_index_map),
        ),
        "slice_sizes": tuple(1 if i in indexed else n for i, n in enumerate(part.array.shape)),
    }


def settled(picked: Weight, weight: Weight, indexed: set[int]) -> Array | Weight:
    """The rows that were looked up; still a weight where a layer was picked from a stack."""
    if weight.factors:
        stacked = all(indexed & set(part.axes) for part in weight.factors)
    else:
        stacked = weight.base.ndim - len(indexed) > 1
    return picked if stacked else picked.formed(picked.base.dtype)
