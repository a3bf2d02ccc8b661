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


def stratified_subsets(labels: np.ndarray, number: int, *, seed: int, most: int = 2048) -> Subsets:
    """`number` subsets of half of each class, at least two examples where it has them, at most `most` in all.

    A mean of M out of N, drawn without replacement, scatters around the mean of all with the variance
    ``v (1/M - 1/N)``, where that of all N around the truth has ``v / N``: hence the widening M / (N - M).

    >>> found = stratified_subsets(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 3, seed=0)
    >>> found.rows.shape, found.labels.tolist(), found.widening
    ((3, 4), [0, 0, 1, 1], 1.0)
    """
    counts = np.bincount(labels)
    share = min(0.5, most / len(labels))
    sizes = np.minimum(counts, np.maximum(np.ceil(share * counts).astype(int), 2))
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == c) for c in range(len(counts))]
    rows = [np.concatenate([np.sort(rng.permutation(m)[:k]) for m, k in zip(members, sizes)]) for _ in range(number)]
    m, n = int(sizes.sum()), len(labels)
    return Subsets(np.stack(rows), np.repeat(np.arange(len(counts)), sizes).astype(np.int32), m / max(n - m, 1))
