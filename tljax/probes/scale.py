"""How large logits should be: the factor under which held-out labels are likeliest."""

from typing import Any

import jax
import jax.numpy as jnp

from tljax.types import Array

LIMITS = (1e-3, 1e3)
"""Between these the factor lies."""


def likeliest_scale(logits: Any, labels: Any) -> Array:
    r"""The factor :math:`a > 0` that minimises the cross-entropy of `labels` under ``a * logits``: one over the
    temperature.

    The logits must be of examples that the model has not seen, such as leave-one-out predictions. The targets are
    smoothed by one example in all that has every class: so the factor is finite where the logits make no mistake.
    The loss is convex in the factor; its derivative is bisected.

    Args:
      logits: `[N, C]`.
      labels: classes `[N]` int.

    Reference: Guo et al. 2017, On calibration of modern neural networks, arXiv:1706.04599; smoothing as in Platt 1999,
    Probabilistic outputs for support vector machines.

    >>> logits = jnp.array([[1.0, -1.0]] * 4)
    >>> round(float(likeliest_scale(logits, jnp.array([0, 0, 0, 1]))), 3)  # 3 of 4, smoothed: 2 a = log(0.7 / 0.3)
    0.424
    """
    z = jnp.asarray(logits)
    z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    return _bisected(z, jnp.asarray(labels))


@jax.jit
def _bisected(z: Array, y: Array) -> Array:
    n, classes = z.shape
    q = (n * jax.nn.one_hot(y, classes, dtype=z.dtype) + 1 / classes) / (n + 1)

    def slope(a: Array) -> Array:
        return jnp.sum((jax.nn.softmax(a * z, axis=-1) - q) * z)

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        up = slope(jnp.exp(middle)) < 0
        return jnp.where(up, middle, low), jnp.where(up, high, middle)

    low, high = jax.lax.fori_loop(0, 40, halve, tuple(jnp.log(jnp.asarray(end, z.dtype)) for end in LIMITS))
    return jnp.exp((low + high) / 2)
