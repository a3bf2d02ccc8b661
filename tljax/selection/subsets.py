"""The subsets of the labelled examples, the same for every candidate, whose scatter tells how sure a score is."""

from typing import NamedTuple

import numpy as np


class Subsets(NamedTuple):
    """Stratified draws without replacement: copies of an example would see one another when it is left out."""

    rows: np.ndarray
    """`[S, M]`, sorted by class, so that all subsets have the same labels."""
    labels: np.ndarray
    """`[M]` int32, of every subset."""
    widening: float
    """What the variance between subsets has to be multiplied by to be that of all N examples."""


def stratified_subsets(labels: np.ndarray, number: int, *, seed: int) -> Subsets:
    """`number` subsets of half of each class, at least two examples where it has them.

    A mean of M out of N, drawn without replacement, scatters around the mean of all with the variance
    ``v (1/M - 1/N)``, where that of all N around the truth has ``v / N``: hence the widening M / (N - M).

    >>> found = stratified_subsets(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 3, seed=0)
    >>> found.rows.shape, found.labels.tolist(), found.widening
    ((3, 4), [0, 0, 1, 1], 1.0)
    """
    counts = np.bincount(labels)
    sizes = np.minimum(counts, np.maximum(-(-counts // 2), 2))
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == c) for c in range(len(counts))]
    rows = [np.concatenate([np.sort(rng.permutation(m)[:k]) for m, k in zip(members, sizes)]) for _ in range(number)]
    m, n = int(sizes.sum()), len(labels)
    return Subsets(np.stack(rows), np.repeat(np.arange(len(counts)), sizes).astype(np.int32), m / max(n - m, 1))


def sample(labels: np.ndarray, most: int, *, seed: int) -> np.ndarray:
    """At most about `most` examples, sorted row numbers: the same share of each class, and at least two.

    >>> sample(np.arange(2).repeat(50), 10, seed=0).shape, sample(np.array([1, 0]), 10, seed=0).tolist()
    ((10,), [0, 1])
    """
    if len(labels) <= most:
        return np.arange(len(labels))
    counts = np.bincount(labels)
    sizes = np.minimum(counts, np.maximum(counts * most // len(labels), 2))
    rng = np.random.default_rng(seed)
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:k] for c, k in enumerate(sizes)]))
