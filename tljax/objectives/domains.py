"""What losses on two domains ask of their features."""

import jax.numpy as jnp

from tljax.objectives.mean import widened
from tljax.types import Array, TljaxError


class DomainError(TljaxError):
    """Batches of two or more domains that a loss cannot compare."""


def compared(source: Array, target: Array, loss: str, *, equal: bool = False) -> tuple[Array, Array]:
    """Features of two domains, `[N, D]` and `[M, D]`, in one precision, float32 or float64.

    `loss` is named in the error. Where it is of another shape, or either has fewer than two rows, or `equal` is asked
    for and N is not M, it raises `DomainError`.

    >>> [x.dtype.name for x in compared(jnp.ones((2, 3), jnp.bfloat16), jnp.ones((4, 3)), "coral")]
    ['float32', 'float32']
    """
    source, target = widened(source), widened(target)
    if source.ndim != 2 or target.ndim != 2 or source.shape[1] != target.shape[1]:
        raise DomainError(
            f"{loss} needs features [N, D] of the source and [M, D] of the target; "
            f"found {list(source.shape)} and {list(target.shape)}"
        )
    if min(len(source), len(target)) < 2:
        raise DomainError(
            f"{loss} needs two examples or more of each domain; found {len(source)} of the source and "
            f"{len(target)} of the target"
        )
    if equal and len(source) != len(target):
        raise DomainError(
            f"{loss} needs as many examples of the source as of the target; found {len(source)} and {len(target)}. "
            "Give the streams one batch size, or take linear=False"
        )
    dtype = jnp.promote_types(source.dtype, target.dtype)
    return source.astype(dtype), target.astype(dtype)
