"""Rows that stand for something with a name: the classes of a head, the tokens of a vocabulary."""

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Literal

import numpy as np

from tljax.tree.paths import dtype_of, quoted
from tljax.tree.rule import ResizeError, Rule, fresh_copy, shape_text


def head_rows(source_classes: Sequence[Hashable], target_classes: Sequence[Hashable], *, axis: int = -1) -> Rule:
    """Copies the rows of a head for the classes that both tasks have; others keep the target's values.

    Works on kernels `[D, C]` and biases `[C]`, or on `[C, D]` with ``axis=0``. A class is told by its name,
    so order does not matter; the rule does its work also where the number of classes is the same.

    Raises `ResizeError` when a class is listed twice, when no class is shared, or when the lists do not have
    the length of the axis.

    >>> rule = head_rows(["cat", "dog"], ["dog", "bird", "cat"])
    >>> rule("head/bias", np.array([1.0, 2.0]), np.zeros(3))
    array([2., 0., 1.])
    """
    source_ids = _numbered(source_classes, "source_classes")
    target_ids = _numbered(target_classes, "target_classes")
    shared = [c for c in target_ids if c in source_ids]
    if not shared:
        raise ResizeError(
            f"head_rows: source {_some(source_ids)} and target {_some(target_ids)} have no class in common; "
            "to start the head afresh write reinit= instead"
        )
    pairs = [(source_ids[c], target_ids[c]) for c in shared]

    def apply(name: str, source: Any, target: Any) -> np.ndarray:
        _check_length(name, "source", source, axis, len(source_ids), "classes")
        _check_length(name, "target", target, axis, len(target_ids), "classes")
        return _copy_rows(name, source, target, axis, pairs, f"{len(target_ids) - len(shared)} new classes")

    return Rule("head_rows", apply, f"{len(shared)} of {len(target_ids)} classes")


def vocab_rows(
    source_tokens: Sequence[Hashable] | None = None,
    target_tokens: Sequence[Hashable] | None = None,
    *,
    new: Literal["fresh", "mean"] = "fresh",
) -> Rule:
    """Copies the rows of a vocabulary table `[V, D]` or bias `[V]`, by token, or else the first rows.

    New rows keep the target's values, or with ``new="mean"`` become the mean of the source's rows. A table
    may have more rows than tokens (padding); these count as new.

    Raises `ResizeError` when only one list is given, when a token is listed twice, when no token is shared,
    or when a table has fewer rows than tokens.

    >>> rule = vocab_rows(["a", "b"], ["b", "c"], new="mean")
    >>> rule("embedding", np.array([[1.0, 3.0], [5.0, 7.0]]), np.zeros((2, 2)))
    array([[5., 7.],
           [3., 5.]])
    """
    if (source_tokens is None) != (target_tokens is None):
        raise ResizeError("vocab_rows: give both token lists, or none to copy the first rows")
    if new not in ("fresh", "mean"):
        raise ResizeError(f"vocab_rows: new={new!r}; expected 'fresh' or 'mean'")
    source_ids = _numbered(source_tokens or (), "source_tokens")
    target_ids = _numbered(target_tokens or (), "target_tokens")
    pairs = [(source_ids[t], row) for t, row in target_ids.items() if t in source_ids]
    if source_tokens is not None and not pairs:
        raise ResizeError(
            f"vocab_rows: source {_some(source_ids)} and target {_some(target_ids)} have no token in common"
        )

    def apply(name: str, source: Any, target: Any) -> np.ndarray:
        rows, used = pairs, len(source_ids)
        if not 1 <= np.ndim(source) == np.ndim(target):
            raise ResizeError(f"{name}: no vocabulary tables: {shape_text(source)} and {shape_text(target)}")
        if source_tokens is None:
            rows, used = [(i, i) for i in range(min(len(source), target.shape[0]))], len(source)
        elif used > len(source) or len(target_ids) > target.shape[0]:
            raise ResizeError(
                f"{name}: {used} source and {len(target_ids)} target tokens need at least as many rows; "
                f"found {shape_text(source)} and {shape_text(target)}"
            )
        mean = np.asarray(source)[:used].astype(np.float32).mean(0) if new == "mean" else None
        return _copy_rows(name, source, target, 0, rows, f"{target.shape[0] - len(rows)} new tokens", mean)

    return Rule("vocab_rows", apply, f"{len(pairs)} of {len(target_ids)} tokens" if pairs else "first rows")


def _copy_rows(
    name: str,
    source: Any,
    target: Any,
    axis: int,
    pairs: list[tuple[int, int]],
    fresh: str,
    default: Any = None,
) -> np.ndarray:
    source_rows = np.moveaxis(np.asarray(source), axis, 0)
    shape = np.moveaxis(np.empty(np.shape(target), bool), axis, 0).shape
    if source_rows.shape[1:] != shape[1:]:
        raise ResizeError(
            f"{name}: source {shape_text(source)} and target {shape_text(target)} differ not only on axis {axis}"
        )
    if default is None and len(pairs) < shape[0]:
        rows = np.moveaxis(fresh_copy(name, target, source, f"{fresh} have no source"), axis, 0)
    else:
        rows = np.empty(shape, np.promote_types(dtype_of(source), dtype_of(target)))
        if default is not None:
            rows[:] = default.astype(rows.dtype)
    source_index, target_index = (list(index) for index in zip(*pairs))
    rows[target_index] = source_rows[source_index].astype(rows.dtype)
    return np.moveaxis(rows, 0, axis)


def _numbered(items: Iterable[Hashable], argument: str) -> dict[Hashable, int]:
    if isinstance(items, str):
        raise ResizeError(f"{argument} is a list of names; found the string {items!r}")
    items = list(items)
    ids = {item: i for i, item in enumerate(items)}
    if len(ids) < len(items):
        twice = [item for i, item in enumerate(items) if ids[item] != i]
        raise ResizeError(f"{argument} has {quoted(map(str, twice[:3]))} twice, so rows cannot be told by name")
    return ids


def _check_length(name: str, side: str, leaf: Any, axis: int, length: int, what: str) -> None:
    shape = np.shape(leaf)
    if not -len(shape) <= axis < len(shape) or shape[axis] != length:
        raise ResizeError(
            f"{name}: {length} {side} {what} were named, but its shape is {shape_text(leaf)} (axis {axis})"
        )


def _some(ids: dict[Hashable, int]) -> str:
    return quoted(map(str, list(ids)[:3])) + (" ..." if len(ids) > 3 else "")
