"""How confident logits may be: the temperature under which held-out labels are likeliest."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tljax.probes.inputs import ABSENT, ProbeError
from tljax.types import Array

LIMITS = (1e-3, 1e3)
"""Between these the temperature lies."""


def temperature(logits: Any, labels: Any, *, smoothing: float = 1.0) -> Array:
    r"""The temperature :math:`T > 0`, `[]`, that minimises the cross-entropy of `labels` under ``logits / T``.

    The logits must be of examples that the head has not seen: held out, or the leave-one-out predictions of `ridge`.
    The loss is convex in 1/T; its derivative is bisected. Without smoothing, logits that make no mistake have the
    temperature 0; it stops at the lower of `LIMITS`.

    Args:
      logits: `[N, C]`.
      labels: classes `[N]` int.
      smoothing: how many examples in all are added that have every class to the same part; 0 is Guo's form.

    Raises `ProbeError` for shapes that do not fit, logits that are NaN, labels outside of the classes, and smoothing
    below 0.

    Reference: Guo et al. 2017, On calibration of modern neural networks, arXiv:1706.04599; smoothing as in Platt 1999,
    Probabilistic outputs for support vector machines.

    >>> logits = jnp.array([[1.0, -1.0]] * 4)
    >>> round(float(1 / temperature(logits, jnp.array([0, 0, 0, 1]))), 3)  # 3 of 4, smoothed: 2 / T = log(0.7 / 0.3)
    0.424
    """
    z = jnp.asarray(logits)
    y = np.asarray(labels)
    if z.ndim != 2 or not z.size or y.shape != z.shape[:1] or y.dtype.kind not in "iub":
        raise ProbeError(f"logits are [N, C] and labels [N] int; found {z.shape} and {y.dtype} {y.shape}")
    if int(y.min()) < 0 or int(y.max()) >= z.shape[1]:
        raise ProbeError(f"labels go from {y.min()} to {y.max()}; expected 0..{z.shape[1] - 1}")
    if bool(jnp.any(jnp.isnan(z))) or not smoothing >= 0:
        raise ProbeError(f"the logits may not be NaN, nor smoothing below 0; smoothing is {smoothing!r}")
    z = z.astype(z.dtype if z.dtype == jnp.float64 else jnp.float32)
    return 1 / likeliest_scale(z, jnp.asarray(y), jnp.asarray(smoothing, z.dtype))


@jax.jit
def likeliest_scale(z: Array, y: Array, smoothing: Array) -> Array:
    """One over the temperature, for arrays that were checked; can be traced.

    >>> z, y = jnp.array([[1.0, -1.0]] * 4), jnp.array([0, 0, 0, 1])
    >>> round(float(likeliest_scale(z, y, jnp.float32(1.0))), 3)
    0.424
    """
    live = z > ABSENT / 2  # not the logit of a class without examples, which has probability 0 at every temperature
    spread = live.astype(z.dtype) / jnp.maximum(jnp.sum(live, axis=-1, keepdims=True), 1).astype(z.dtype)
    q = (len(z) * jax.nn.one_hot(y, z.shape[1], dtype=z.dtype) + smoothing * spread) / (len(z) + smoothing)
    known = jnp.where(live, z, 0)

    def slope(a: Array) -> Array:
        return jnp.sum((jax.nn.softmax(jnp.where(live, a * z, ABSENT), axis=-1) - q) * known)

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        up = slope(jnp.exp(middle)) <= 0
        return jnp.where(up, middle, low), jnp.where(up, high, middle)

    low, high = jax.lax.fori_loop(0, 40, halve, tuple(jnp.log(jnp.asarray(end, z.dtype)) for end in LIMITS))
    return jnp.exp((low + high) / 2)
