"""Split a tree in two and merge it again; what is in one part is a hole, None, in the other.

Gradients, optimiser state and adapters live on the chosen part alone.
"""

from typing import Any

import jax
import numpy as np

from tljax.tree.paths import flatten_named, is_array
from tljax.tree.select import Spec, select
from tljax.types import TljaxError


class MergeError(TljaxError):
    """Trees that do not fit together."""


def split(tree: Any, where: Spec) -> tuple[Any, Any]:
    """``(chosen, rest)``: two trees of the structure of `tree`, each with None where the other has the leaf.

    `where` is a selector, anything `select` takes, or a tree of bools with the structure of `tree` or a
    prefix of it. Leaves that are no arrays go to the rest. Under `jax.jit` it costs nothing: the choice is
    made while tracing.

    Raises `NoMatchError` when a pattern matches nothing, `MergeError` when a mask does not fit.

    >>> split({"backbone": {"w": 1.0}, "head": {"w": 2.0}}, "head/**")
    ({'backbone': {'w': None}, 'head': {'w': 2.0}}, {'backbone': {'w': 1.0}, 'head': {'w': None}})
    """
    leaves, treedef = jax.tree.flatten(tree)
    mask = _expand(where, tree) if _is_mask(where) else jax.tree.leaves(select(where).mask(tree))
    chosen = [bool(keep) and is_array(leaf) for keep, leaf in zip(mask, leaves)]
    return (
        jax.tree.unflatten(treedef, [leaf if keep else None for keep, leaf in zip(chosen, leaves)]),
        jax.tree.unflatten(treedef, [None if keep else leaf for keep, leaf in zip(chosen, leaves)]),
    )


def merge(*trees: Any, complete: bool = False) -> Any:
    """The tree that has every leaf any of `trees` has; the inverse of `split`.

    Raises `MergeError`, naming the leaf, when two trees have the same one, when none has it and `complete` is
    set, or when the trees differ in structure.

    >>> merge({"a": 1.0, "b": None}, {"a": None, "b": 2.0})
    {'a': 1.0, 'b': 2.0}
    """
    if not trees:
        raise MergeError("merge() needs at least one tree")
    columns, treedefs = zip(*(jax.tree.flatten(tree, is_leaf=_is_hole) for tree in trees))
    if any(treedef != treedefs[0] for treedef in treedefs):
        raise MergeError(_difference(trees))
    merged = []
    for i, candidates in enumerate(zip(*columns)):
        present = [leaf for leaf in candidates if leaf is not None]
        if len(present) > 1 or (complete and not present):
            which = [j for j, leaf in enumerate(candidates) if leaf is not None]
            name = flatten_named(trees[0], holes=True)[0][i]
            found = f"is in trees {which}" if which else f"is in none of the {len(trees)} trees"
            raise MergeError(f"{name!r} {found}; exactly one must have it")
        merged.append(present[0] if present else None)
    return jax.tree.unflatten(treedefs[0], merged)


def _is_hole(node: Any) -> bool:
    return node is None


def _is_mask(where: Any) -> bool:
    leaves = jax.tree.leaves(where)
    return bool(leaves) and all(isinstance(leaf, bool | np.bool_) for leaf in leaves)


def _expand(mask: Any, tree: Any) -> list[bool]:
    try:
        full = jax.tree.map(lambda keep, below: jax.tree.map(lambda _: keep, below), mask, tree)
    except ValueError as error:
        raise MergeError(f"the mask does not have the structure of the tree: {error}") from error
    return jax.tree.leaves(full)


def _difference(trees: tuple[Any, ...]) -> str:
    first = set(flatten_named(trees[0], holes=True)[0])
    for i, tree in enumerate(trees[1:], start=1):
        other = set(flatten_named(tree, holes=True)[0])
        if first != other:
            return (
                f"trees 0 and {i} differ: only tree 0 has {sorted(first - other)[:3]}, only tree {i} has "
                f"{sorted(other - first)[:3]}; a tree with holes keeps its structure, with None leaves"
            )
    kinds = ", ".join(type(tree).__name__ for tree in trees)
    return f"the trees have the same leaf names but different containers inside: {kinds}"
