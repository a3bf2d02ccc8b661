"""VeRA: random projections shared by all layers, of which each layer learns the scales.

    W + (a * d) (b_shared * b),    a [max ins, r] and b_shared [r, max outs] random and constant, cut to each layer

Reference: Kopiczko et al., VeRA: vector-based random matrix adaptation, arXiv 2310.11454.
"""

import dataclasses
import math
from typing import ClassVar

import jax

from tljax.peft.adapter import Adapter, Shared
from tljax.peft.factors import Factored, wide
from tljax.peft.layout import Layout
from tljax.types import Array

A, B = "shared/constants/vera_a", "shared/constants/vera_b"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class VeRA(Adapter):
    """W + (a * d) (b_shared * b).

    >>> import jax.numpy as jnp
    >>> shared = {A: jnp.ones((4, 2)), B: jnp.ones((2, 5))}
    >>> VeRA(jnp.full(2, 0.5), jnp.array([1.0, 0.0])).merge(jnp.zeros((3, 2)), shared)[0]
    Array([1., 0.], dtype=float32)
    """

    kind: ClassVar[str] = "vera"
    d: Array
    """`[stack..., r]`."""
    b: Array
    """`[stack..., outs...]`."""
    layout: Layout = dataclasses.field(default=Layout(), metadata={"static": True})

    def factor(self, weight: Array, shared: Shared) -> Factored:
        stack, ins, outs = self.layout.parts(weight.shape)
        d, b = wide(self.d).reshape(*stack, 1, -1), wide(self.b).reshape(*stack, 1, -1)
        left, right = wide(shared[A])[: math.prod(ins)], wide(shared[B])[:, : math.prod(outs)]
        ahead = (1,) * len(stack)
        left, right = left.reshape(*ahead, *left.shape) * d, right.reshape(*ahead, *right.shape) * b
        return Factored(weight, left.reshape(*stack, *ins, -1), right.reshape(*stack, -1, *outs), layout=self.layout)
