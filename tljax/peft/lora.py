"""LoRA and rsLoRA: a product of low rank is added to the weight.

    W + s a b,    s = alpha / r, or alpha / sqrt(r) for rsLoRA

`b` is zero at the start (for embeddings `a`), so training starts at the base model. PiSSA and OLoRA start elsewhere and
subtract their start: W + s (a b - a0 b0), so that they too begin as the base model, which stays what it is.

Reference: Hu et al., LoRA, arXiv 2106.09685; Kalajdzievski, rsLoRA, arXiv 2312.03732.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from tljax.peft.adapter import Adapter, Adapters, PeftError, Shared
from tljax.peft.choose import Site, ranks, scales, sites
from tljax.peft.factors import Factored, wide
from tljax.peft.layout import Layout
from tljax.types import Array, Key, Params


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


def lora(
    params: Params, where: Any, *, key: Key, rank: Any = 8, alpha: Any = 8.0, rslora: bool = False,
    layouts: Mapping[Any, Layout] | None = None, init: str = "kaiming",
) -> Adapters:  # fmt: skip
    """LoRA for the selected leaves of `params`; with `rslora` the scale is alpha / sqrt(rank) and not alpha / rank.

    Args:
        where: a selector of matrices: kernels of dense layers, attention and convolutions, embeddings.
        key: every leaf draws from a key of its own, which does not depend on what else is selected.
        rank: one for all, or by selector, of which the last that matches holds; 8 where none does.
        alpha: as `rank`; 8.0 where none matches.
        layouts: by selector, where `infer` cannot tell which axes are inputs and outputs.
        init: how `a` is drawn: ``"kaiming"`` uniform in ±1/√(inputs), ``"gaussian"`` with standard deviation 1/rank.
            `b` is zero. For embeddings `a` is zero and `b` is drawn with standard deviation 1.

    Raises:
        NoMatchError: a part of a selector matches nothing.
        PeftError: a leaf that is no matrix, a rank that it does not allow, a layout in doubt.

    >>> base = {"dense": {"kernel": jnp.ones((4, 6)), "bias": jnp.ones(6)}}
    >>> adapters = lora(base, "**/kernel", key=jax.random.key(0), rank=2)
    >>> adapters["dense/kernel"].a.shape, adapters["dense/kernel"].b.shape
    ((4, 2), (2, 6))
    """
    found = sites(params, where, layouts)
    chosen = ranks(rank, found, 8)
    scale = scales(alpha, chosen, rslora, 8.0)
    return {s.name: LoRA(*drawn(s, key, chosen[s.name], init), {"scale": scale[s.name]}, s.layout) for s in found}


def drawn(site: Site, key: Key, rank: int, init: str) -> tuple[Array, Array]:
    """`a` and `b` at the start, float32; their product is zero.

    >>> a, b = drawn(Site("w", jnp.ones((4, 6)), Layout()), jax.random.key(0), 2, "kaiming")
    >>> bool(jnp.abs(a).max() <= 0.5), float(jnp.abs(b).max())
    (True, 0.0)
    """
    stack, ins, outs = site.parts
    a, b, own = (*stack, *ins, rank), (*stack, rank, *outs), site.key(key)
    if init not in ("kaiming", "gaussian"):
        raise PeftError(f"init={init!r}; expected 'kaiming' or 'gaussian' (or use pissa, olora)")
    if site.layout.kind == "embedding":
        return jnp.zeros(a, jnp.float32), jax.random.normal(own, b, jnp.float32)
    if init == "gaussian":
        return jax.random.normal(own, a, jnp.float32) / rank, jnp.zeros(b, jnp.float32)
    bound = site.fan[0] ** -0.5
    return jax.random.uniform(own, a, jnp.float32, -bound, bound), jnp.zeros(b, jnp.float32)
