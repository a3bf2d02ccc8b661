"""Every leaf has one name: its path, as in ``"backbone/block_03/attention/kernel"``.

Only arrays have names: JAX and NumPy arrays, `jax.ShapeDtypeStruct` and Python numbers.  Other leaves (an
activation function in an Equinox module, a string) are no parameters: nothing here selects, counts or
replaces them.  None is JAX's empty subtree; we call it a hole.

Names come in *natural order*, ``block_2`` before ``block_10``; JAX itself sorts dict keys as strings.
"""

import difflib
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.core.meta import AxisMetadata

from tljax.types import TljaxError

_VALUE = jax.tree_util.GetAttrKey("value")


class PathError(TljaxError):
    """A name that is not in the tree, or that two leaves share."""


def is_array(leaf: Any) -> bool:
    """Whether `leaf` can be a parameter: an array, its abstract shape and dtype, or a number.

    >>> [is_array(leaf) for leaf in (1.5, jax.ShapeDtypeStruct((2,), "float32"), jax.nn.relu, "relu")]
    [True, True, False, False]
    """
    if isinstance(leaf, bool | int | float | complex):
        return True
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype") and getattr(leaf.dtype, "kind", "") not in tuple("OSUMm")


def natural_key(name: str) -> tuple:
    """The key that sorts names segment by segment, with digits as numbers.

    >>> sorted(["block_10/w", "block_2/w", "block_1/w"], key=natural_key)
    ['block_1/w', 'block_2/w', 'block_10/w']
    """
    segments = tuple(
        tuple(int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", segment)))
        for segment in name.split("/")
    )
    return segments, name  # the name itself decides between "01" and "1"


def leaf_names(tree: Any) -> list[str]:
    """The names of the arrays in `tree`, in natural order.

    >>> leaf_names({"b": [1.0, 2.0], "a": {"kernel": 3.0, "bias": None}})
    ['a/kernel', 'b/0', 'b/1']
    """
    return list(named_leaves(tree))


def named_leaves(tree: Any) -> dict[str, Any]:
    """The arrays in `tree` by name, in natural order.

    >>> named_leaves({"layer": {"kernel": 1.0, "activation": jax.nn.relu}})
    {'layer/kernel': 1.0}
    """
    names, leaves, _ = flatten_named(tree)
    found = {name: leaf for name, leaf in zip(names, leaves) if is_array(leaf)}
    return {name: found[name] for name in sorted(found, key=natural_key)}


def map_named(f: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """`tree` with every array replaced by ``f(name, leaf, ...)``; `rest` are trees of the same structure.

    Structure, containers, holes and what is no array stay as they are.

    >>> map_named(lambda name, leaf: f"{name}: {leaf}", {"a": {"b": 1, "c": None}})
    {'a': {'b': 'a/b: 1', 'c': None}}
    """
    names, leaves, treedef = flatten_named(tree)
    others = [treedef.flatten_up_to(other) for other in rest]
    return jax.tree.unflatten(
        treedef,
        [f(*args) if is_array(args[1]) else args[1] for args in zip(names, leaves, *others)],
    )


def from_named(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dict whose leaves are called as in `mapping`; the inverse of `named_leaves` for dicts.

    Raises where one name would be both a leaf and a subtree.

    >>> from_named({"head/kernel": 1, "head/bias": 2})
    {'head': {'bias': 2, 'kernel': 1}}
    """
    tree: dict[str, Any] = {}
    subtrees: dict[tuple[str, ...], dict[str, Any]] = {(): tree}
    for name in sorted(mapping, key=natural_key):
        *parents, last = name.split("/")
        for depth in range(len(parents)):
            above = subtrees[tuple(parents[:depth])]
            path = tuple(parents[: depth + 1])
            if path not in subtrees:
                if path[-1] in above:
                    raise PathError(f"{'/'.join(path)!r} is a leaf, so {name!r} cannot stand under it")
                subtrees[path] = above[path[-1]] = {}
        subtrees[tuple(parents)][last] = mapping[name]
    return tree


def get(tree: Any, name: str) -> Any:
    """The leaf or the subtree called `name`.

    Raises with the nearest names when there is none, or when the leaf is a hole.

    >>> get({"head": {"kernel": 1, "bias": 2}}, "head"), get({"head": {"kernel": 1}}, "head/kernel")
    ({'kernel': 1, 'bias': 2}, 1)
    """
    found = _descend(tree, name)
    if found:
        if found[0] is None:
            raise PathError(f"{name!r} is a hole (None) in this tree; it may be in the other part of a split")
        return found[0]
    names = leaf_names(tree)
    known = list(dict.fromkeys(names + [p for n in names for p in _prefixes(n)]))
    raise PathError(f"no leaf or subtree is called {name!r}; the nearest are {quoted(nearest(name, known))}")


def nearest(name: str, names: Iterable[str], n: int = 3) -> list[str]:
    """The up to `n` of `names` that are most like `name`, best first.

    >>> nearest("head/kernal", ["head/kernel", "head/bias", "backbone/stem/kernel"], n=1)
    ['head/kernel']
    """
    return difflib.get_close_matches(name, list(names), n, cutoff=0.3)


def count(tree: Any) -> int:
    """The number of parameters in `tree`: elements of all its arrays.

    >>> count({"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)})
    8
    """
    return sum(math.prod(jnp.shape(leaf)) for leaf in named_leaves(tree).values())


def nbytes(tree: Any) -> int:
    """The size of all arrays in `tree`, in bytes.

    >>> nbytes({"kernel": jnp.zeros((3, 2), jnp.bfloat16), "bias": jax.ShapeDtypeStruct((2,), jnp.float32)})
    20
    """
    return sum(math.prod(jnp.shape(leaf)) * dtype_of(leaf).itemsize for leaf in named_leaves(tree).values())


def dtype_of(leaf: Any) -> Any:
    """The dtype of an array, abstract array or number.

    >>> dtype_of(jnp.ones(2, jnp.bfloat16)), dtype_of(2)
    (dtype(bfloat16), dtype('int32'))
    """
    return leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)


def quoted(names: Iterable[str]) -> str:
    """`names` in quotes with commas, for messages.

    >>> quoted(["a", "b"]), quoted([])
    ("'a', 'b'", 'none')
    """
    return ", ".join(repr(name) for name in names) or "none"


def flatten_named(tree: Any, *, holes: bool = False) -> tuple[list[str], list[Any], Any]:
    """Names, leaves and treedef of `tree` in JAX's own order, what is no array included; holes too if asked.

    Raises when two leaves have the same name.

    >>> flatten_named({"a": 1, "b": None}, holes=True)[:2]
    (['a', 'b'], [1, None])
    """
    hole = (lambda x: x is None) if holes else None
    names, leaves = [], []
    for path, node in jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: _is_box(x) or (holes and x is None))[
        0
    ]:
        inner = jax.tree_util.tree_flatten_with_path(node, is_leaf=hole)[0] if _is_box(node) else [((), node)]
        for tail, leaf in inner:
            names.append(_join(path + _unboxed(tail)))
            leaves.append(leaf)
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1}, key=natural_key)
        raise PathError(f"leaves share a name, so the name cannot tell them apart: {quoted(twice[:5])}")
    return names, leaves, jax.tree.structure(tree, is_leaf=hole)


def _join(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _is_box(node: Any) -> bool:
    """Whether `node` wraps one value (NNX variable, Linen's partitioned array), adding "/value" to it."""
    nnx = sys.modules.get("flax.nnx")  # slow to import, and nobody has a variable without it
    return isinstance(node, AxisMetadata) or (nnx is not None and isinstance(node, nnx.Variable))


def _unboxed(tail: tuple) -> tuple:
    return tail[1:] if tail[:1] == (_VALUE,) else tail


def _prefixes(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]


def _descend(node: Any, name: str) -> list[Any]:
    """What is called `name` below `node`, in a list; an empty list if nothing is."""
    children = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)[0]
    if _is_box(node):
        inside = [child for path, child in children if path == (_VALUE,)]
        return _descend(inside[0], name) if inside else []
    if not name:
        return [node]
    for path, child in children:
        key = _join(path)
        if not path:
            continue
        if name == key or not key:
            found = _descend(child, "" if name == key else name)
        elif name.startswith(key + "/"):  # a key may hold a slash itself
            found = _descend(child, name.removeprefix(key + "/"))
        else:
            found = []
        if found:
            return found
    return []
