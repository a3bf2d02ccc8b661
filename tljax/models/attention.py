"""Attention: one formula, and which kernel computes it."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from tljax.types import Array

_HALF = ("bfloat16", "float16")
_FLASH_FROM = 8.0
"""The compute capability from which cuDNN has fused attention (Ampere)."""


def attend(
    q: Array, k: Array, v: Array, *, mask: Array | None = None, drop: Callable[[Array], Array] | None = None
) -> Array:
    """``softmax(q kᵀ / √d) v`` for each head.

    Args:
      q, k, v: `[B, S, H, d]`, of one dtype.
      mask: which of the keys count, bool `[B, S]`. A row of none gives the mean of all values, not NaN.
      drop: what becomes of the weights `[B, H, S, S]`: dropout. It needs the weights to be formed.

    The softmax is taken in float32 at least. On GPUs from Ampere on, in bfloat16 and float16, cuDNN's fused kernel
    computes it and the weights never reach memory; on other accelerators XLA does, both through
    `jax.nn.dot_product_attention`. On CPU it is two batched matmuls on `[B, H, S, d]`, where XLA is fastest.

    Returns `[B, S, H, d]`. Reference: Vaswani et al. 2017, Attention is all you need, arXiv:1706.03762; the fused
    kernel: Dao et al. 2022, FlashAttention, arXiv:2205.14135.

    >>> q, v = jnp.zeros((1, 2, 1, 1)), jnp.array([1.0, 3.0]).reshape(1, 2, 1, 1)
    >>> attend(q, q, v).ravel().tolist(), attend(q, q, v, mask=jnp.array([[True, False]])).ravel().tolist()
    ([2.0, 2.0], [1.0, 1.0])
    """
    if drop is not None or jax.default_backend() == "cpu":
        return _by_matmuls(q, k, v, mask, drop)
    B, S = k.shape[:2]
    full = None if mask is None else jnp.broadcast_to(mask[:, None, None, :], (B, 1, S, S))
    kernel: Literal["cudnn", "xla"] = "cudnn" if _is_fused(q, masked=mask is not None) else "xla"
    return jax.nn.dot_product_attention(q, k, v, mask=full, implementation=kernel)


def _by_matmuls(q: Array, k: Array, v: Array, mask: Array | None, drop: Callable[[Array], Array] | None) -> Array:
    wide = jnp.float32 if q.dtype.name in _HALF else q.dtype
    q, k, v = (a.transpose(0, 2, 1, 3) for a in (q * q.shape[-1] ** -0.5, k, v))
    scores = (q @ k.swapaxes(2, 3)).astype(wide)
    if mask is not None:
        # Added, as XLA fuses it so. Not minus infinity: a row that is padding throughout would become NaN.
        scores += jnp.where(mask, jnp.zeros((), wide), jnp.finfo(wide).min)[:, None, None, :]
    weights = _softmax(scores).astype(v.dtype)
    return ((weights if drop is None else drop(weights)) @ v).transpose(0, 2, 1, 3)


@jax.custom_jvp
def _softmax(scores: Array) -> Array:
    """Over the last axis; in the form that XLA's CPU compiler takes into the matmuls on both sides of it."""
    powers = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    return powers / jnp.sum(powers, axis=-1, keepdims=True)


@_softmax.defjvp
def _softmax_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    weights, (change,) = _softmax(*primals), tangents
    return weights, weights * (change - jnp.sum(weights * change, axis=-1, keepdims=True))


def _is_fused(q: Array, *, masked: bool) -> bool:
    """Whether cuDNN has a kernel for it. A mask goes in as a bias, whose gradient wants even lengths."""
    _, S, _, d = q.shape
    fits = q.dtype.name in _HALF and d % 8 == 0 and d <= 128 and not (masked and S % 2)
    return fits and _capability() >= _FLASH_FROM


def _capability() -> float:
    """The compute capability of an NVIDIA GPU; 0 for any other device."""
    try:
        return float(getattr(jax.devices()[0], "compute_capability", 0.0))
    except ValueError:  # AMD's are called as gfx942
        return 0.0
