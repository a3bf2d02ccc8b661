"""Which examples are for what: stratified splits, and few-shot subsets that are nested.

Both draw from the same random access permutation as the training order, one per class, so they are the same on every
machine and with every version of NumPy.
"""

import math
from collections.abc import Sequence

import jax
import numpy as np

from tljax.data.error import DataError
from tljax.data.order import fold_seed, shuffled_index

_SPLIT, _SHOT = 1, 2  # streams of the seed: a split and a subset of one part of it must not be related
_shuffled = jax.jit(shuffled_index)


def stratified_split(
    y: np.ndarray, fractions: Sequence[float], *, seed: int, classes: Sequence[str] = (), name: str = ""
) -> tuple[np.ndarray, ...]:
    """Disjoint parts of all examples, each class divided as `fractions` say: sorted indices, int64.

    Every part holds every class at least once; the parts' sizes are off by at most one from `fractions`, unless that
    rule moves an example. Labels that are no classes (floats, or `[N, C]`) are split without strata.

    Args:
      y: labels `[N]` or `[N, C]`.
      fractions: positive, with sum 1.
      seed: `0 .. 2^32-1`.
      classes: the names of the classes, for messages; without them the labels are the names.
      name: of the data set, for messages.

    Raises:
      DataError: a class has fewer examples than there are parts, or the fractions are none.

    >>> train, test = stratified_split(np.array([0, 0, 0, 0, 1, 1]), (0.5, 0.5), seed=0)
    >>> len(train), len(test), sorted([*train.tolist(), *test.tolist()])
    (3, 3, [0, 1, 2, 3, 4, 5])
    """
    shares = np.asarray(fractions, np.float64)
    if shares.ndim != 1 or not len(shares) or np.any(shares <= 0) or abs(shares.sum() - 1) > 1e-6:
        raise DataError(f"the fractions of a split must be positive with sum 1; found {tuple(fractions)}")
    strata = y if y.ndim == 1 and y.dtype.kind in "iu" else np.zeros(len(y), np.int32)
    sizes = _sizes(strata, 1)
    few = np.flatnonzero((sizes > 0) & (sizes < len(shares)))
    if few.size or not len(y):
        what = f"class {_name(few[0], classes)} has {sizes[few[0]]}" if few.size else "there are none"
        whose = f"{name!r} cannot be" if name else "cannot be"
        raise DataError(f"{whose} split into {len(shares)} parts, which each need an example of every class: {what}")
    place = _places(strata, sizes, seed, _SPLIT)
    ends = np.cumsum(_allot(sizes, shares), axis=1)  # [C, parts]
    part = (place[:, None] >= ends[strata]).sum(1)
    return tuple(np.flatnonzero(part == i) for i in range(len(shares)))


def k_shot(y: np.ndarray, k: int, *, seed: int, classes: Sequence[str] = ()) -> np.ndarray:
    """The indices of `k` examples of every class, `[k C]` int64, drawn without replacement.

    Subsets are nested: first stands one example of each class, then a second of each, and so on, so that the subset
    for a smaller `k` and the same seed is a prefix of this one.

    Args:
      y: classes `[N]` int.
      k: examples per class, 1 or more.
      seed: `0 .. 2^32-1`.
      classes: the names of all classes; without them classes are `0 .. max(y)`.

    Raises:
      DataError: a class has fewer than `k` examples (named), or none.

    >>> y = np.array([0, 1, 0, 1, 0, 1, 1])
    >>> y[k_shot(y, 2, seed=0)].tolist()
    [0, 1, 0, 1]
    >>> k_shot(y, 2, seed=0)[:2].tolist() == k_shot(y, 1, seed=0).tolist()
    True
    """
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise DataError(f"labels per class need one class per example, [N] int; found {y.dtype} {list(y.shape)}")
    if k < 1:
        raise DataError(f"the number of labels per class must be 1 or more; found {k}")
    sizes = _sizes(y, max(1, len(classes)))
    few = np.flatnonzero(sizes < k)
    if few.size:
        some = ", ".join(f"{_name(c, classes)} ({sizes[c]})" for c in few[:5]) + ", ..." * (few.size > 5)
        raise DataError(f"{k} labels per class were asked for, but there are fewer examples of class {some}")
    place = _places(y, sizes, seed, _SHOT)
    chosen = np.flatnonzero(place < k)
    return chosen[np.lexsort((y[chosen], place[chosen]))]


def _places(strata: np.ndarray, sizes: np.ndarray, seed: int, stream: int) -> np.ndarray:
    """The place `[N]` of every example in the shuffled order of its own class, from 0."""
    order = np.argsort(strata, kind="stable")
    rank = np.empty(len(strata), np.int32)
    rank[order] = np.arange(len(strata)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # Padded, so that sets of similar sizes share one compiled program.
    length = max(1024, 2 ** math.ceil(math.log2(len(strata))))
    columns = (strata.astype(np.uint32), rank, sizes[strata].astype(np.int32))
    padded = [np.concatenate([c, np.full(length - len(c), fill, c.dtype)]) for c, fill in zip(columns, (0, 0, 1))]
    return np.asarray(_shuffled(fold_seed(seed, stream), *padded))[: len(strata)]


def _sizes(y: np.ndarray, least: int) -> np.ndarray:
    """Examples per class, of `least` classes or more."""
    if y.size and y.min() < 0:
        raise DataError(f"a class must be 0 or more; the first that is not is {y[np.argmax(y < 0)]}")
    return np.bincount(y, minlength=least)


def _allot(sizes: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """How many of each class go to each part, `[C, parts]`: rows sum to the sizes, with no 0 but for empty classes."""
    counts = np.zeros((len(sizes), len(shares)), np.int64)
    owed = np.zeros(len(shares))  # what rounding has kept from each part so far
    for c, size in enumerate(sizes):
        if not size:
            continue
        wanted = size * shares + owed
        counts[c] = np.maximum(np.floor(wanted), 1)
        while counts[c].sum() < size:
            counts[c, np.argmax(wanted - counts[c])] += 1
        while counts[c].sum() > size:
            counts[c, np.argmin(np.where(counts[c] > 1, wanted - counts[c], np.inf))] -= 1
        owed = wanted - counts[c]
    return counts


def _name(index: int, classes: Sequence[str]) -> str:
    return repr(classes[index]) if index < len(classes) else str(index)
