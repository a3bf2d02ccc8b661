"""Means over the examples of a batch, some of which may be padding; in float32 at least."""

import jax.numpy as jnp

from tljax.types import Array


def weighted_mean(values: Array, weight: Array | None = None) -> Array:
    """The mean of `values` `[B]` with weights `[B]`; a weight of 0 marks padding, whatever its value is.

    A batch of nothing but padding has mean 0, so that it moves nothing.

    >>> import jax.numpy as jnp
    >>> losses = jnp.array([1.0, 3.0, jnp.nan])
    >>> print(weighted_mean(losses, jnp.array([1.0, 1.0, 0.0])), weighted_mean(losses, jnp.zeros(3)))
    2.0 0.0
    """
    return ratio_of_sums(values, jnp.ones_like(values), weight)


def ratio_of_sums(over: Array, under: Array, weight: Array | None = None) -> Array:
    """`sum(weight * over) / sum(weight * under)` for `[B]` arrays, and 0 where the lower sum is 0.

    >>> import jax.numpy as jnp
    >>> print(ratio_of_sums(jnp.array([2.0, 6.0]), jnp.array([1.0, 3.0])))
    2.0
    """
    total = weighted_sum(under, weight)
    return jnp.where(total > 0, weighted_sum(over, weight) / jnp.where(total > 0, total, 1), jnp.zeros_like(total))


def weighted_sum(values: Array, weight: Array | None = None) -> Array:
    """`sum(weight * values)` for `[B]` arrays; a weight of 0 marks padding, whatever its value is.

    >>> import jax.numpy as jnp
    >>> print(weighted_sum(jnp.array([2.0, jnp.inf]), jnp.array([0.5, 0.0])))
    1.0
    """
    if weight is None:
        return jnp.sum(values)
    weight = jnp.asarray(weight).astype(values.dtype)
    # A product would let NaN or inf through from padding: 0 * nan is nan.
    return jnp.sum(jnp.where(weight > 0, values * weight, 0))


def widened(x: Array) -> Array:
    """`x` as float32, or as it is where it is float64: exponentials and sums in half precision lose the loss.

    >>> import jax.numpy as jnp
    >>> widened(jnp.ones(2, jnp.bfloat16)).dtype, widened(jnp.arange(3)).dtype
    (dtype('float32'), dtype('float32'))
    """
    x = jnp.asarray(x)
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def added(*parts: Array) -> Array:
    """The sum of scalars, in float64 where one of them is: losses and penalties may differ in precision.

    >>> print(added(jnp.float32(1), jnp.float32(2)))
    3.0
    """
    dtype = jnp.float64 if any(part.dtype == jnp.float64 for part in parts) else jnp.float32
    return sum((part.astype(dtype) for part in parts[1:]), parts[0].astype(dtype))
