"""LoRA and rsLoRA: a product of low rank is added to the weight.

    W + s a b,    s = alpha / r, or alpha / sqrt(r) for rsLoRA

`b` is zero at the start (for embeddings `a`), so training starts at the base model. PiSSA and OLoRA start elsewhere and
subtract their start: W + s (a b - a0 b0), so that they too begin as the base model, which stays what it is.

Reference: Hu et al., LoRA, arXiv 2106.09685; Kalajdzievski, rsLoRA, arXiv 2312.03732.
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
class LoRA(Adapter):
    """W + s a b, or W + s (a b - a0 b0) where the start `a0`, `b0` is kept.

    >>> adapter = LoRA(jnp.ones((2, 1)), jnp.ones((1, 3)), {"scale": jnp.float32(2.0)})
    >>> adapter.merge(jnp.zeros((2, 3)), {})[0]
    Array([2., 2., 2.], dtype=float32)
    """

    kind: ClassVar[str] = "lora"
    a: Array
    """`[stack..., ins..., r]`."""
    b: Array
    """`[stack..., r, outs...]`."""
    constants: dict[str, Array]
    """``scale``, a scalar or `[stack...]`; perhaps ``a0`` and ``b0``, of the shapes of `a` and `b`."""
    layout: Layout = dataclasses.field(default=Layout(), metadata={"static": True})

    def factor(self, weight: Array, shared: Shared) -> Factored:
        a, b = factors_of(self.a, self.b, self.constants, self.layout)
        return Factored(weight, a, b, layout=self.layout)


def factors_of(a: Array, b: Array, constants: dict[str, Array], layout: Layout) -> tuple[Array, Array]:
    """`a` and `b` in float32 with the scale in `b`; with the start subtracted, twice the rank.

    >>> start = {"scale": jnp.float32(2.0), "a0": jnp.ones((4, 2)), "b0": jnp.ones((2, 3))}
    >>> [x.shape for x in factors_of(jnp.ones((4, 2)), jnp.ones((2, 3)), start, Layout())]
    [(4, 4), (4, 3)]
    """
    a, b, scale = wide(a), wide(b), wide(constants["scale"])
    if "a0" in constants:
        a = jnp.concatenate([a, wide(constants["a0"])], axis=-1)
        b = jnp.concatenate([b, -wide(constants["b0"])], axis=layout.stack)
    return a, b * scale.reshape(scale.shape + (1,) * (b.ndim - scale.ndim))
