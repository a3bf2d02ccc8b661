"""A tree as its leaves by number: how a run's checkpoint holds it."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from tljax.checkpoints.checksum import is_key, storable


def specs(tree: Any) -> list[str]:
    """Dtype and shape of every leaf, as text.

    >>> specs({"a": np.zeros((2, 3), np.float32), "b": jax.random.key(0)})
    ['float32[2, 3]', 'uint32[2]']
    """
    return [f"{_array(leaf).dtype}{list(np.shape(leaf))}" for leaf in map(storable, jax.tree.leaves(tree))]


def first_difference(saved: list[str], now: list[str]) -> str:
    """Where two lists of specs part, in words.

    >>> first_difference(["int32[]", "int8[3]"], ["int32[]", "int8[4]"])
    'number 1 was int8[3] and is int8[4]'
    """
    for i, (a, b) in enumerate(zip(saved, now)):
        if a != b:
            return f"number {i} was {a} and is {b}"
    return f"the first {min(len(saved), len(now))} are alike"


def stored(tree: Any) -> dict[str, Any]:
    """The leaves by number, without the empty ones, which orbax refuses.

    >>> list(stored([np.zeros(2), np.zeros((0, 3)), np.zeros(1)]))
    ['0', '2']
    """
    return {str(i): storable(leaf) for i, leaf in enumerate(jax.tree.leaves(tree)) if np.size(leaf)}


def rebuilt(like: Any, found: Mapping[str, Any]) -> Any:
    """The tree of the structure of `like` with the leaves that were `stored`.

    >>> rebuilt({"a": 0, "b": [0]}, {"0": 1, "1": 2})
    {'a': 1, 'b': [2]}
    """
    leaves, structure = jax.tree.flatten(like)
    values = [_as(leaf, found.get(str(i), leaf)) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, values)


def abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape, dtype and sharding of `leaf`, which is what its saved value should come back as.

    >>> abstract(np.zeros(2, np.int8)).shape
    (2,)
    """
    return jax.ShapeDtypeStruct(np.shape(leaf), _array(leaf).dtype, sharding=getattr(leaf, "sharding", None))


def _array(leaf: Any) -> Any:
    return leaf if hasattr(leaf, "dtype") else np.asarray(leaf)


def _as(leaf: Any, value: Any) -> Any:
    if not is_key(leaf) or is_key(value):
        return value
    return jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf))
