"""LoHa and LoKr: products of small matrices that are no product of low rank, so they are merged, not factored.

    LoHa: W + s (a_1 b_1) ∘ (a_2 b_2),  elementwise
    LoKr: W + s kron(first, second)

Reference: Hyeon-Woo et al., FedPara, arXiv 2108.06098; Yeh et al., LyCORIS, arXiv 2309.14859.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from tljax.peft.adapter import Adapter, Shared
from tljax.peft.factors import product, wide
from tljax.peft.layout import Layout
from tljax.types import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class LoHa(Adapter):
    """W + s (a_1 b_1) ∘ (a_2 b_2).

    >>> a, b, scale = jnp.ones((2, 1)), jnp.full((1, 3), 2.0), {"scale": jnp.float32(0.5)}
    >>> LoHa(a, b, a, b, scale).merge(jnp.zeros((2, 3)), {})[0]
    Array([2., 2., 2.], dtype=float32)
    """

    kind: ClassVar[str] = "loha"
    a_1: Array
    """`[ins..., r]`."""
    b_1: Array
    """`[r, outs...]`."""
    a_2: Array
    """`[ins..., r]`."""
    b_2: Array
    """`[r, outs...]`."""
    constants: dict[str, Array]
    """``scale``, a scalar."""
    layout: Layout = dataclasses.field(default=Layout(), metadata={"static": True})

    def merge(self, weight: Array, shared: Shared) -> Array:
        delta = product(self.a_1, self.b_1, 0) * product(self.a_2, self.b_2, 0) * wide(self.constants["scale"])
        return self.layout.backward(self.layout.forward(wide(weight)) + delta).astype(weight.dtype)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class LoKr(Adapter):
    """W + s kron(first, second).

    >>> first, second = jnp.array([[1.0, 2.0]]), jnp.ones((2, 1))
    >>> LoKr(first, second, {"scale": jnp.float32(1.0)}).merge(jnp.zeros((2, 2)), {})
    Array([[1., 2.],
           [1., 2.]], dtype=float32)
    """

    kind: ClassVar[str] = "lokr"
    first: Array
    """`[i, o]`."""
    second: Array
    """`[j, p]`, for a weight of ``i j`` inputs and ``o p`` outputs; `[h, w, j, p]` for a convolution."""
    constants: dict[str, Array]
    """``scale``, a scalar."""
    layout: Layout = dataclasses.field(default=Layout(), metadata={"static": True})

    def merge(self, weight: Array, shared: Shared) -> Array:
        first, second = wide(self.first), wide(self.second)
        delta = jnp.einsum("io,...jp->...ijop", first, second, precision=jax.lax.Precision.HIGHEST)
        base = self.layout.forward(wide(weight))
        delta = delta.reshape(base.shape) * wide(self.constants["scale"])
        return self.layout.backward(base + delta).astype(weight.dtype)
