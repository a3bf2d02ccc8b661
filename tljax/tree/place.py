"""Put a value where another leaf was: in its dtype, on its devices, in memory of its own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tljax.tree.paths import dtype_of
from tljax.types import TljaxError

_KINDS = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)


class CastError(TljaxError):
    """A cast that would lose what the values mean."""


def placed(name: str, value: Any, like: Any) -> Any:
    """A copy of `value` with the dtype and the placement of the leaf `like`.

    NumPy stays NumPy and a Python number a number. A leaf that is committed to devices, or abstract with a
    sharding, gets the value there. The copy shares no memory with `value`.

    Raises `CastError`, naming `name`, for a cast from float to int, of numbers out of range, or to or from
    PRNG keys.

    >>> placed("w", np.ones(2, np.float32), jax.ShapeDtypeStruct((2,), jnp.bfloat16))
    Array([1, 1], dtype=bfloat16)
    """
    dtype = dtype_of(like)
    if dtype_of(value) != dtype:
        value = _cast(name, value, dtype)
    if isinstance(like, bool | int | float | complex):
        return type(like)(np.asarray(value).item())
    if isinstance(like, np.ndarray | np.generic):
        return np.array(value, dtype)
    abstract = isinstance(like, jax.ShapeDtypeStruct)
    sharding = like.sharding if abstract or like.committed else None
    if sharding is not None:
        return jax.device_put(value, sharding, may_alias=False)
    return jnp.array(value, copy=True)


def _cast(name: str, value: Any, dtype: Any) -> Any:
    found = dtype_of(value)
    old, new = _kind(found), _kind(dtype)
    if not 0 <= old <= new:
        raise CastError(f"{name}: {found} of the source cannot become {dtype} of the target and mean the same")
    before = np.asarray(value)
    with np.errstate(over="ignore"):  # what overflows is found below
        after = before.astype(dtype)
    lost = after != before if new < 2 else np.isfinite(before) & ~np.isfinite(after)
    if np.any(lost):
        worst = before[lost].ravel()[0]
        raise CastError(f"{name}: {worst} of the source's {found} does not fit into {dtype} of the target")
    return after


def _kind(dtype: Any) -> int:
    """0 for bool, 1 for integers, 2 for floats, 3 for complex, -1 for anything else, such as PRNG keys."""
    return next((i for i, kind in enumerate(_KINDS) if jnp.issubdtype(dtype, kind)), -1)
