"""IA3: learned factors on what a layer puts out (attention keys and values), or takes in (feedforward).

    y * l = (x W + c) * l,  which scales the bias too;    (x * l) W + c

Reference: Liu et al., Few-shot parameter-efficient fine-tuning is better and cheaper than in-context learning,
arXiv 2205.05638.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from tljax.peft.adapter import Adapter, Shared
from tljax.peft.factors import Factored, wide
from tljax.peft.layout import Layout
from tljax.types import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Scale(Adapter):
    """The weight times `value`, along its outputs or its inputs.

    >>> Scale(jnp.array([1.0, 2.0]), "in").merge(jnp.ones((2, 3)), {})[1]
    Array([2., 2., 2.], dtype=float32)
    """

    kind: ClassVar[str] = "ia3"
    value: Array
    """`[stack..., outs...]` or `[stack..., ins...]`; 1 in the axes of a convolution's window."""
    side: str = dataclasses.field(default="out", metadata={"static": True})
    """``"in"`` or ``"out"``."""
    layout: Layout = dataclasses.field(default=Layout(), metadata={"static": True})

    def factor(self, weight: Array, shared: Shared) -> Factored:
        if self.layout.kind == "vector":
            return Factored((wide(weight) * wide(self.value)).astype(weight.dtype), layout=self.layout)
        stack, ins, _ = self.layout.parts(weight.shape)
        if self.side == "out":
            return Factored(weight, outs_scale=self.value, layout=self.layout)
        return Factored(weight, ins_scale=jnp.broadcast_to(self.value, stack + ins), layout=self.layout)
