"""The examples of each class as one rectangular array of indices."""

import numpy as np

from tljax.types import Array


def class_groups(y: Array, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """``(indices, real)`` `[C, n]` with n the size of the largest class: the examples, and which are real.

    >>> indices, real = class_groups(np.array([0, 1, 0]), 2)
    >>> indices.tolist(), real.tolist()
    ([[0, 2], [1, 0]], [[True, True], [True, False]])
    """
    labels = np.asarray(y)
    order, counts = np.argsort(labels, kind="stable"), np.bincount(labels, minlength=classes)
    place = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    indices, real = (np.zeros((classes, counts.max()), kind) for kind in (np.int32, bool))
    indices[labels[order], place], real[labels[order], place] = order, True
    return indices, real
