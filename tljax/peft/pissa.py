"""PiSSA: LoRA that starts from the principal singular vectors of the weight.

    W = U S V^T,    a0 = U_r sqrt(S_r / s),    b0 = sqrt(S_r / s) V_r^T,    W + s (a b - a0 b0)

The start is kept beside the adapter, and the base stays what it is: the adapter can be saved, loaded and swapped
without another decomposition, which would have to come out the same.

Reference: Meng et al., PiSSA: principal singular values and singular vectors adaptation, arXiv 2404.02948.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from tljax.peft.adapter import Adapters
from tljax.peft.choose import ranks, scales, sites
from tljax.peft.factors import wide
from tljax.peft.layout import Layout
from tljax.peft.lora import LoRA
from tljax.types import Array, Params

Decomposition = Callable[[Array, int, Array], tuple[Array, Array]]


def pissa(
    params: Params, where: Any, *, rank: Any = 8, alpha: Any = 8.0, rslora: bool = False,
    layouts: Mapping[Any, Layout] | None = None,
) -> Adapters:  # fmt: skip
    """PiSSA for the selected leaves, by an exact singular value decomposition in float32; else as `lora`.

    >>> adapter = pissa({"w": {"kernel": jnp.diag(jnp.array([4.0, 1.0]))}}, "**", rank=1, alpha=1.0)["w/kernel"]
    >>> (adapter.a @ adapter.b).round(3).tolist()
    [[4.0, 0.0], [0.0, 0.0]]
    """
    return decomposed(params, where, _principal, rank, alpha, rslora, layouts)


def decomposed(
    params: Params, where: Any, decomposition: Decomposition, rank: Any, alpha: Any, rslora: bool,
    layouts: Mapping[Any, Layout] | None,
) -> Adapters:  # fmt: skip
    """LoRA started, and offset, by the `decomposition` of `[stack..., inputs, outputs]`, of a rank and a scale."""
    found = sites(params, where, layouts)
    chosen = ranks(rank, found, 8)
    scale = scales(alpha, chosen, rslora, 8.0)
    adapters: Adapters = {}
    for site in found:
        (stack, ins, outs), r, s = site.parts, chosen[site.name], scale[site.name]
        matrix = site.layout.forward(wide(jnp.asarray(site.leaf))).reshape(*stack, *site.fan)
        left, right = decomposition(matrix, r, s)
        a, b = left.reshape(*stack, *ins, r), right.reshape(*stack, r, *outs)
        kept = {"scale": s, "a0": jnp.copy(a), "b0": jnp.copy(b)}  # not the same buffers: training donates its own
        adapters[site.name] = LoRA(a, b, kept, site.layout)
    return adapters


def _principal(matrix: Array, rank: int, scale: Array) -> tuple[Array, Array]:
    u, s, vt = jnp.linalg.svd(matrix, full_matrices=False)
    half = jnp.sqrt(s[..., :rank] / scale)
    return u[..., :rank] * half[..., None, :], half[..., None] * vt[..., :rank, :]
