"""A checksum of every leaf of a tree, computed where the leaf is, the same wherever that may be."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_CHUNK = 1 << 20
_ODD = 0x9E3779B2  # even, so that `i * _ODD | 1` keeps all of its bits


def checksum(tree: Any) -> np.ndarray:
    """A `uint32` for each leaf, `[L]`: the sum of its words times odd, position-dependent weights, modulo 2^32.

    Any single changed bit changes the sum, since odd numbers are invertible modulo 2^32. Leaves on a CPU are summed by
    NumPy, which compiles nothing; others by their devices, so that they need not come to the host.

    >>> a, b = np.zeros(3, np.float32), np.array([0, 1e-45, 0], np.float32)
    >>> checksum({"a": a}).shape, bool(checksum(a) == checksum(b)), bool(checksum(a) == checksum(jnp.asarray(a)))
    ((1,), False, True)
    """
    leaves = [storable(leaf) for leaf in jax.tree.leaves(tree)]
    sums = [_on_device(leaf) if _is_remote(leaf) else _on_host(np.asarray(leaf)) for leaf in leaves]
    return np.array([int(total) for total in sums], np.uint32)


def storable(leaf: Any) -> Any:
    """`leaf` as plain numbers: the words of a PRNG key, anything else as it is.

    >>> storable(jax.random.key(7)).tolist(), storable(2.0)
    ([0, 7], 2.0)
    """
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def is_key(leaf: Any) -> bool:
    """Whether `leaf` is an array of typed PRNG keys.

    >>> is_key(jax.random.key(0)), is_key(jnp.zeros(2))
    (True, False)
    """
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_remote(leaf: Any) -> bool:
    """Whether its devices have to sum it: it is on an accelerator, or other processes hold parts of it."""
    if not isinstance(leaf, jax.Array):
        return False
    whole = leaf.is_fully_addressable or leaf.is_fully_replicated
    return not whole or any(device.platform != "cpu" for device in leaf.devices())


def _on_host(leaf: np.ndarray) -> int:
    flat, total = np.ascontiguousarray(leaf).reshape(-1), 0
    for start in range(0, flat.size, _CHUNK):
        words = _words(flat[start : start + _CHUNK], np)
        each = flat.itemsize // 4 or 1
        total += int(_weighted(words, np, np.uint32(start * each % 2**32)))
    return total % 2**32


@jax.jit
def _on_device(leaf: jax.Array) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        leaf = jnp.stack([leaf.real, leaf.imag], axis=-1)
    return _weighted(_words(leaf.reshape(-1), jnp), jnp, jnp.uint32(0))


def _words(flat: Any, xp: ModuleType) -> Any:
    """The bits of `flat` as 32-bit words; narrower elements are a word each."""
    width = {1: xp.uint8, 2: xp.uint16}.get(flat.dtype.itemsize, xp.uint32)
    return flat.view(width).astype(xp.uint32)


def _weighted(words: Any, xp: ModuleType, start: Any) -> Any:
    position = xp.arange(words.size, dtype=xp.uint32) + start
    return (words * (position * xp.uint32(_ODD) | xp.uint32(1))).sum(dtype=xp.uint32)
