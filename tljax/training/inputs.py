"""Labelled arrays of any accepted form, checked and put on the device."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tljax.objectives import Term
from tljax.training.program import Stream
from tljax.types import Batch, TljaxError


class FitError(TljaxError):
    """Arguments of `fit` that do not go together."""


def streams_of(train: Any, objective: Term) -> dict[str, Stream]:
    named = train if isinstance(train, Mapping) else {objective.streams[0]: train}
    missing = [name for name in objective.streams if name not in named]
    if missing:
        raise FitError(f"the objective {objective} reads the streams {objective.streams}; train has {tuple(named)}")
    return {name: _stream(name, named[name]) for name in objective.streams}


def _stream(name: str, data: Any) -> Stream:
    x, y = labelled(data, f"the training data ({name})")
    n = len(jax.tree.leaves(x)[0])
    return Stream(*jax.tree.map(jnp.asarray, (x, y)), jnp.arange(n, dtype=jnp.int32), jnp.int32(n))


def labelled(data: Any, what: str) -> tuple[Any, Any]:
    """`(x, y)` of any accepted form of labelled arrays; raises `FitError` on lengths that differ, no
    examples, or NaN."""
    if hasattr(data, "x") and hasattr(data, "y"):
        x, y = data.x, data.y
    elif isinstance(data, tuple | list) and len(data) == 2:
        x, y = data
    else:
        raise FitError(f"{what} should be (x, y) or have .x and .y; found {type(data).__name__}")
    lengths = {len(leaf) for leaf in jax.tree.leaves((x, y))}
    if len(lengths) != 1 or lengths == {0}:
        raise FitError(f"{what} needs as many labels as inputs and at least one; found lengths {sorted(lengths)}")
    for part, leaf in (("inputs", x), ("labels", y)):
        for array in jax.tree.leaves(leaf):
            bad = np.size(array) - np.count_nonzero(np.isfinite(array)) if np.asarray(array).dtype.kind == "f" else 0
            if bad:
                raise FitError(f"{what}: {bad} values of the {part} are NaN or infinite; clean or impute them first")
    return x, y


def own_subsets(stream: Stream, subsets: Sequence[np.ndarray] | None, count: int) -> Stream:
    if subsets is None:
        subsets = [np.asarray(stream.subset)] * count
    sizes = [len(s) for s in subsets]
    if min(sizes) == 0:
        raise FitError(f"run {sizes.index(0)} has an empty subset of the training data")
    padded = np.zeros((count, max(sizes)), np.int32)
    for row, indices in zip(padded, subsets):
        row[: len(indices)] = indices
    return stream._replace(subset=jnp.asarray(padded), size=jnp.asarray(sizes, jnp.int32))


def padded(valid: Any, most: int = 512) -> Batch | None:
    """Validation data as `[batches, B, ...]` with weight 0 on the padding."""
    if valid is None:
        return None
    x, y = labelled(valid, "the validation data")
    n = len(jax.tree.leaves(x)[0])
    size = min(n, most)
    batches = -(-n // size)

    def cut(a: Any) -> jax.Array:
        a = np.asarray(a)
        padding = np.zeros((batches * size - n, *a.shape[1:]), a.dtype)
        return jnp.asarray(np.concatenate([a, padding]).reshape(batches, size, *a.shape[1:]))

    return Batch(*jax.tree.map(cut, (x, y)), cut(np.ones(n, np.float32)))
