"""DoRA: LoRA that learns the length of each output's weights apart from their direction.

    V = W + s a b,    m V / |V|,  with |V| over the inputs, constant in the backward pass

Reference: Liu et al., DoRA: weight-decomposed low-rank adaptation, arXiv 2402.09353 (the norm is detached as in its
section 4.3).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from tljax.peft.adapter import Adapter, Adapters, Shared
from tljax.peft.choose import ranks, scales, sites
from tljax.peft.factors import Factored, added, product, wide
from tljax.peft.layout import Layout
from tljax.peft.lora import drawn, factors_of
from tljax.types import Array, Key, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class DoRA(Adapter):
    """m V / |V| with V = W + s a b.

    >>> adapter = DoRA(jnp.ones((2, 1)), jnp.zeros((1, 2)), jnp.array([5.0, 1.0]), {"scale": jnp.float32(1.0)})
    >>> adapter.merge(jnp.array([[3.0, 0.0], [4.0, 2.0]]), {})
    Array([[3., 0.],
           [4., 1.]], dtype=float32)
    """

    kind: ClassVar[str] = "dora"
    a: Array
    """`[stack..., ins..., r]`."""
    b: Array
    """`[stack..., r, outs...]`."""
    magnitude: Array
    """`[stack..., outs...]`: m."""
    constants: dict[str, Array]
    """``scale``, a scalar or `[stack...]`."""
    layout: Layout = dataclasses.field(default=Layout(), metadata={"static": True})

    def merge(self, weight: Array, shared: Shared) -> Array:
        a, b = factors_of(self.a, self.b, self.constants, self.layout)
        total = added(self.layout.forward(wide(weight)), product(a, b, self.layout.stack))
        squared = jnp.sum(total**2, axis=_inner(a, self.layout))
        return Factored(weight, a, b, outs_scale=self._over(squared), layout=self.layout).dense()

    def factor(self, weight: Array, shared: Shared) -> Factored:
        a, b = factors_of(self.a, self.b, self.constants, self.layout)
        squared = squared_norm(weight, a, b, self.layout)
        return Factored(weight, a, b, outs_scale=self._over(squared), layout=self.layout)

    def _over(self, squared: Array) -> Array:
        if self.magnitude.shape != squared.shape:
            raise ValueError(f"there are outputs {squared.shape}, but magnitudes {self.magnitude.shape}")
        return wide(self.magnitude) / jax.lax.stop_gradient(root(squared))


def dora(
    params: Params, where: Any, *, key: Key, rank: Any = 8, alpha: Any = 8.0, rslora: bool = False,
    layouts: Mapping[Any, Layout] | None = None, init: str = "kaiming",
) -> Adapters:  # fmt: skip
    """DoRA for the selected leaves; arguments, start and errors as of `lora`. The magnitude starts as the norm.

    >>> base = {"dense": {"kernel": jnp.array([[3.0, 0.0], [4.0, 2.0]])}}
    >>> dora(base, "**/kernel", key=jax.random.key(0), rank=1)["dense/kernel"].magnitude
    Array([5., 2.], dtype=float32)
    """
    found = sites(params, where, layouts)
    chosen = ranks(rank, found, 8)
    scale = scales(alpha, chosen, rslora, 8.0)
    adapters: Adapters = {}
    for site in found:
        a, b = drawn(site, key, chosen[site.name], init)
        magnitude = root(squared_norm(jnp.asarray(site.leaf), a, b, site.layout))
        adapters[site.name] = DoRA(a, b, magnitude, {"scale": scale[site.name]}, site.layout)
    return adapters


def squared_norm(weight: Array, a: Array, b: Array, layout: Layout) -> Array:
    """`[stack..., outs...]`: |W + a b|^2 over the inputs, without forming a b.

    |W|^2 + 2 <W, a b> + |a b|^2, where <W, a b> = <W^T a, b> and |a b|^2 = b^T (a^T a) b, all for each output.

    >>> squared_norm(jnp.array([[3.0, 0.0], [3.0, 2.0]]), jnp.array([[0.0], [1.0]]), jnp.ones((1, 2)), Layout())
    Array([25.,  9.], dtype=float32)
    """
    w, (stack, _, outs) = layout.forward(wide(weight)), layout.parts(weight.shape)
    w = w.reshape(*stack, -1, layout.fan(weight.shape)[1])
    a, b = a.reshape(*w.shape[:-1], -1), b.reshape(*stack, a.shape[-1], w.shape[-1])
    a_t, exact = jnp.swapaxes(a, -1, -2), jax.lax.Precision.HIGHEST
    cross = jnp.sum(jnp.matmul(a_t, w, precision=exact) * b, axis=-2)
    own = jnp.sum(jnp.matmul(jnp.matmul(a_t, a, precision=exact), b, precision=exact) * b, axis=-2)
    return (jnp.sum(w**2, axis=-2) + 2 * cross + own).reshape(*stack, *outs)


def root(squared: Array) -> Array:
    """The norm; never zero, so that an output without weights stays without."""
    return jnp.sqrt(jnp.maximum(squared, jnp.finfo(squared.dtype).tiny))


def _inner(a: Array, layout: Layout) -> tuple[int, ...]:
    return tuple(range(layout.stack, a.ndim - 1))
