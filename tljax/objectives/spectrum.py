"""Singular values of the features of a batch."""

import jax.numpy as jnp

from tljax.objectives.mean import widened
from tljax.types import Array, TljaxError


class SpectrumError(TljaxError):
    """Features that do not have the singular values asked for."""


def squared_spectrum(loss: str, features: Array, k: int) -> Array:
    """The squares of the singular values of `[B, D]`, `[min(B, D)]`, largest first; `k` of them are needed.

    Singular values alone are differentiated, so that equal or vanishing ones give finite gradients: ``2 s u v^T`` each,
    and 0 where s is. `SpectrumError`, which names the loss, for features that are no matrix or have fewer than `k`.

    >>> print(squared_spectrum("bsp", jnp.diag(jnp.array([1.0, 3.0])), k=1))
    [9. 1.]
    """
    if features.ndim != 2:
        raise SpectrumError(f"{loss} needs features [B, D], found {features.shape}")
    if k != int(k) or not 1 <= k <= min(features.shape):
        raise SpectrumError(f"{loss}: k={k}; features {features.shape} have {min(features.shape)} singular values")
    return jnp.square(jnp.linalg.svd(widened(features), compute_uv=False))
