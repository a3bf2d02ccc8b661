"""What all merging methods share: models whose parameter trees fit together, leaf by leaf.

A method says what becomes of the *parameters*, the floating-point leaves. The running statistics of normalisation are
not parameters: whatever the method, the merged tree has their mean over the models, which is no more than a start,
since the merged weights make other activations. `recalibrate` measures them anew. Integer leaves must be equal and
stay.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax.tree import Spec, is_array, map_named, named_leaves, nearest, select
from tljax.types import Array, Params, TljaxError, is_state


class MergingError(TljaxError):
    """Models that do not fit together, or options that a method cannot work with."""


class Aligned(NamedTuple):
    """The leaves of several models, side by side."""

    parameters: dict[str, list[Any]]
    """By name, one leaf for each model: what the method merges."""
    statistics: dict[str, list[Any]]
    """The same for the running statistics."""
    build: Callable[[Mapping[str, Any]], Params]
    """The first tree with the leaves given by name in place of its own, in the dtypes of its own."""
    alone: Callable[[Mapping[str, Any]], Params]
    """The leaves given by name in the structure of the first tree, with holes in all other places."""


def align(models: Sequence[Params], where: Spec = None, *, labels: Sequence[str] | None = None) -> Aligned:
    """The leaves of `models` under `where`, side by side; what is not selected stays as in the first.

    `labels` are what errors call the models.

    Raises `MergingError`, naming the leaf, where names, shapes or kinds differ, or integers or bools have other values.
    """
    if not models:
        raise MergingError("there is nothing to merge: expected one parameter tree or more")
    columns = [named_leaves(model) for model in models]
    labels = labels or [f"model {i}" for i in range(len(models))]
    for label, column in zip(labels[1:], columns[1:]):
        check_names(columns[0], column, labels[0], label)
    chosen = set(columns[0] if where is None else select(where).names(models[0]))
    parameters: dict[str, list[Any]] = {}
    statistics: dict[str, list[Any]] = {}
    for name in columns[0]:
        leaves = [column[name] for column in columns]
        if name not in chosen:
            continue
        _check_leaves(name, leaves, labels)
        if is_float(leaves[0]):
            (statistics if is_state(name) else parameters)[name] = leaves
    return Aligned(
        parameters,
        statistics,
        build=lambda values: with_leaves(models[0], values),
        alone=lambda values: map_named(lambda name, _: values.get(name), models[0]),
    )


def wide(leaf: Any) -> Array:
    """`leaf` in float32, or in its own dtype where that is wider: merged weights are computed so."""
    array = jnp.asarray(leaf)
    return array if jnp.finfo(array.dtype).bits > 32 else array.astype(jnp.float32)


def mean_statistics(aligned: Aligned, first: int = 0) -> dict[str, Array]:
    """The mean of every statistic over the models from number `first` on."""
    return {name: mean_of(leaves[first:]) for name, leaves in aligned.statistics.items()}


def mean_of(leaves: Sequence[Any]) -> Array:
    """The mean of arrays of one shape, in float32 at least.

    >>> mean_of([jnp.float32(1.0), jnp.float32(3.0)]).item()
    2.0
    """
    return sum(map(wide, leaves[1:]), wide(leaves[0])) / len(leaves)


def with_leaves(tree: Params, values: Mapping[str, Any]) -> Params:
    """`tree` with the leaves given by name in place of its own, in the dtypes of its own."""
    return map_named(lambda name, leaf: values[name].astype(jnp.result_type(leaf)) if name in values else leaf, tree)


def is_float(leaf: Any) -> bool:
    """Whether the leaf is an array of floating numbers."""
    return is_array(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def check_names(first: Mapping[str, Any], other: Mapping[str, Any], label: str, other_label: str) -> None:
    """Raise a `MergingError` that names a leaf which one of two models lacks."""
    missing = [name for name in first if name not in other]
    extra = [name for name in other if name not in first]
    if not missing and not extra:
        return
    name = (missing or extra)[0]
    has, lacks = (label, other_label) if missing else (other_label, label)
    near = nearest(name, other if missing else first, 1)
    raise MergingError(
        f"{len(missing) + len(extra)} leaves are not in all models: {name!r} is in {has} and not in {lacks}"
        + (f", whose nearest is {near[0]!r}" if near else "")
        + ". Merging needs one architecture with one kind of head"
    )


def check_shape(name: str, leaves: Sequence[Any], labels: Sequence[str]) -> None:
    """Raise a `MergingError` where a leaf has not one shape in all models."""
    for label, leaf in zip(labels, leaves):
        if np.shape(leaf) != np.shape(leaves[0]):
            raise MergingError(
                f"{name!r} is {np.shape(leaves[0])} in {labels[0]} and {np.shape(leaf)} in {label}; all must have one "
                f"shape. To leave it as in {labels[0]}, write where=~select({name!r})"
            )


def _check_leaves(name: str, leaves: Sequence[Any], labels: Sequence[str]) -> None:
    check_shape(name, leaves, labels)
    for label, leaf in zip(labels[1:], leaves[1:]):
        if is_float(leaf) != is_float(leaves[0]):
            kinds = jnp.result_type(leaves[0]), jnp.result_type(leaf)
            raise MergingError(f"{name!r} is {kinds[0]} in {labels[0]} and {kinds[1]} in {label}; expected one kind")
        if not is_float(leaf) and _differ(leaf, leaves[0]):
            raise MergingError(
                f"{name!r} holds {jnp.result_type(leaf)}, which are not averaged, and has other values in {label} than "
                f"in {labels[0]}. To keep those of {labels[0]}, write where=~select({name!r})"
            )


def _differ(a: Any, b: Any) -> bool:
    if a is b or isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer):
        return False
    if jnp.issubdtype(jnp.result_type(a), jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    return not np.array_equal(np.asarray(a), np.asarray(b))
