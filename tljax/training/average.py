"""The running average of what a run learns."""

import jax
import jax.numpy as jnp

from tljax.types import Array, Params


def wide_copy(a: Array) -> Array:
    """A copy of `a`, in float32 where it is in half precision: there the average's small moves would be rounded off.

    >>> wide_copy(jnp.ones(2, jnp.bfloat16)).dtype.name
    'float32'
    """
    narrow = jnp.issubdtype(a.dtype, jnp.floating) and a.dtype.itemsize < 4
    return jnp.array(a, jnp.float32 if narrow else a.dtype, copy=True)


def moved_average(average: Params, now: Params, step: Array, decay: float) -> Params:
    """`average` after one move towards `now`: ``d average + (1 - d) now``, ``d = min(decay, (1 + t) / (10 + t))``.

    t is the number of steps before. What is no floating number is as in `now`.

    >>> float(moved_average({"w": jnp.float32(0)}, {"w": jnp.float32(1)}, jnp.int32(0), 0.99)["w"])
    0.8999...
    """
    t = step.astype(jnp.float32)
    share = jnp.maximum(jnp.float32(1 - decay), 9 / (10 + t))  # 1 - d, which keeps its digits where d is close to 1

    def move(a: Array, n: Array) -> Array:
        return a + share.astype(a.dtype) * (n.astype(a.dtype) - a) if jnp.issubdtype(a.dtype, jnp.floating) else n

    return jax.tree.map(move, average, now)
