"""OLoRA: LoRA that starts from the QR decomposition of the weight, with orthonormal `b`.

    W^T = Q R,    b0 = Q_r^T,    a0 = R_r^T,    W + s (a b - a0 b0)

As with PiSSA the start is kept beside the adapter, and the base stays what it is.

Reference: Büyükakyüz, OLoRA: orthonormal low-rank adaptation of large language models, arXiv 2406.01775.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from tljax.peft.adapter import Adapters
from tljax.peft.layout import Layout
from tljax.peft.pissa import decomposed
from tljax.types import Array, Params


def olora(
    params: Params, where: Any, *, rank: Any = 8, alpha: Any = 8.0, rslora: bool = False,
    layouts: Mapping[Any, Layout] | None = None,
) -> Adapters:  # fmt: skip
    """OLoRA for the selected leaves; else as `pissa`.

    >>> adapter = olora({"w": {"kernel": jnp.array([[3.0, 4.0], [1.0, 0.0]])}}, "**", rank=1)["w/kernel"]
    >>> jnp.abs(adapter.b).round(3).tolist()
    [[0.6..., 0.8...]]
    """
    return decomposed(params, where, _orthonormal, rank, alpha, rslora, layouts)


def _orthonormal(matrix: Array, rank: int, scale: Array) -> tuple[Array, Array]:
    q, r = jnp.linalg.qr(jnp.swapaxes(matrix, -1, -2))
    return jnp.swapaxes(r[..., :rank, :], -1, -2), jnp.swapaxes(q[..., :rank], -1, -2)
