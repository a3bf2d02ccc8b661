"""Long sums in float32 that keep what plain addition would round away.

A plain float32 total stops growing once it is 2^24 times the next addend. Here a total is a pair of float32 numbers,
the second holding what the first rounds away: about 48 bits.

Reference: Dekker 1971, doi:10.1007/BF01397083.
"""

from typing import NamedTuple

import jax.numpy as jnp

from tljax.types import Array


class Sum(NamedTuple):
    """A running total, any shape: `high + low` is its value, and `high` that value rounded."""

    high: Array
    low: Array


def zero(shape: tuple[int, ...] = ()) -> Sum:
    """The empty sum.

    >>> print(value(zero((2,))))
    [0. 0.]
    """
    return Sum(jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.float32))


def add(total: Sum, x: Array) -> Sum:
    """The sum with `x` added, as float32.

    >>> total = zero()
    >>> for x in (2.0**24, 1.0, 1.0):
    ...     total = add(total, jnp.float32(x))
    >>> print(value(total) - 2.0**24, (jnp.float32(2.0**24) + 1.0 + 1.0) - 2.0**24)
    2.0 0.0
    """
    x = x.astype(jnp.float32)
    rounded = total.high + x
    back = rounded - total.high
    lost = (total.high - (rounded - back)) + (x - back) + total.low
    high = rounded + lost
    finite = jnp.isfinite(rounded)  # an infinite total is right as it is; what it "lost" would be nan
    return Sum(jnp.where(finite, high, rounded), jnp.where(finite, lost - (high - rounded), 0))


def join(a: Sum, b: Sum) -> Sum:
    """The sum of two sums.

    >>> print(value(join(add(zero(), jnp.float32(1.0)), add(zero(), jnp.float32(2.0)))))
    3.0
    """
    return add(add(a, b.high), b.low)


def value(total: Sum) -> Array:
    """The sum as a number."""
    return total.high + total.low
