"""An effective weight that is never formed: a base weight, a product of low rank, and scales on either side."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from tljax.peft.layout import Layout
from tljax.types import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Factored:
    """``ins_scale * (W + a b) * outs_scale``; what is None is left out.

    >>> weight, a, b = jnp.ones((2, 3)), jnp.ones((2, 1)), jnp.ones((1, 3))
    >>> Factored(weight, a, b, outs_scale=jnp.array([1.0, 2.0, 0.0])).dense()
    Array([[2., 4., 0.],
           [2., 4., 0.]], dtype=float32)
    """

    weight: Array
    """W in its own layout."""
    a: Array | None = None
    """`[stack..., ins..., r]`."""
    b: Array | None = None
    """`[stack..., r, outs...]`; the scale of the product is in it."""
    ins_scale: Array | None = None
    """`[stack..., ins...]`; 1 in axes along which it is constant."""
    outs_scale: Array | None = None
    """`[stack..., outs...]`; likewise."""
    layout: Layout = dataclasses.field(default=Layout(), metadata={"static": True})

    @property
    def plain(self) -> bool:
        """Whether `weight` is all there is, so that nothing needs care."""
        return self.a is None and self.ins_scale is None and self.outs_scale is None

    def dense(self) -> Array:
        """The weight, computed in float32 (or float64) and cast back to the dtype of `weight`.

        Raises `ValueError` for factors of another weight.
        """
        if self.plain:
            return self.weight
        layout, total = self.layout, self.layout.forward(wide(self.weight))
        if self.a is not None and self.b is not None:
            total = added(total, product(self.a, self.b, layout.stack))
        if self.ins_scale is not None:
            scale = wide(self.ins_scale)
            total = total * scale.astype(total.dtype).reshape(scale.shape + (1,) * (total.ndim - scale.ndim))
        if self.outs_scale is not None:
            scale = wide(self.outs_scale)
            inner = (1,) * (total.ndim - scale.ndim)
            total = total * scale.astype(total.dtype).reshape(
                scale.shape[: layout.stack] + inner + scale.shape[layout.stack :]
            )
        return layout.backward(total).astype(self.weight.dtype)


def added(total: Array, delta: Array) -> Array:
    """`total` + `delta` of the same shape; anything else would be broadcast in silence.

    >>> added(jnp.zeros(2), jnp.ones(2))
    Array([1., 1.], dtype=float32)
    """
    if total.shape != delta.shape:
        raise ValueError(f"the weight is {total.shape}, what is added to it {delta.shape}")
    return total + delta.astype(total.dtype)


def product(a: Array, b: Array, stack: int) -> Array:
    """`[stack..., ins..., outs...]`: ``a b`` summed over the rank, in float32 at full precision.

    >>> product(jnp.ones((7, 3, 3, 4, 2)), jnp.ones((7, 2, 5)), stack=1).shape
    (7, 3, 3, 4, 5)
    """
    ahead, ins, rank, outs = a.shape[:stack], a.shape[stack:-1], a.shape[-1], b.shape[stack + 1 :]
    left = wide(a).reshape(*ahead, math.prod(ins), rank)
    right = wide(b).reshape(*ahead, rank, math.prod(outs))
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST).reshape(*ahead, *ins, *outs)


def wide(x: Array) -> Array:
    """`x` in float32; float64 stays.

    >>> wide(jnp.ones((), jnp.bfloat16)).dtype
    dtype('float32')
    """
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)
