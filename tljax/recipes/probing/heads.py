"""Heads by name: each takes draws of labelled examples and tells the test accuracy of every draw."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax import scores
from tljax.probes import ProbeError, centroid, knn, lda, logistic, ridge_paths
from tljax.probes.ridge import GRID
from tljax.types import Array

NEIGHBOURS = (1, 3, 5, 10)
"""How many neighbours k-NN may choose from, by leaving one out."""
STRENGTHS = (1.0, 10.0, 100.0, 1e3, 1e4)
"""Of logistic regression: C times the mean squared length of the centred features."""
FOLDS = 3
"""Parts of the labelled examples that are held out in turn to choose C."""
_TOLERANCE = 1e-3


class Draws(NamedTuple):
    """Labelled examples, drawn several times, and what heads are tested on."""

    x: Array
    """`[N, D]`."""
    y: np.ndarray
    """`[N]`."""
    subsets: np.ndarray
    """Row numbers `[S, n]`: one example of each class, then a second of each, and so on."""
    test: Array
    """`[M, D]`."""
    known: np.ndarray
    """The classes of the test examples `[M]`."""
    classes: int

    @property
    def shots(self) -> int:
        """Labelled examples of each class."""
        return self.subsets.shape[1] // self.classes


def _ridge(draws: Draws) -> np.ndarray:
    found = ridge_paths(
        draws.x, draws.y, draws.subsets, test_features=draws.test, test_labels=draws.known, num_classes=draws.classes
    )
    # Without its only example nothing is known of a class, so leaving one out says nothing: the middle of the grid.
    chosen = found.chosen if draws.shots > 1 else np.full(len(draws.subsets), len(GRID) // 2)
    return np.asarray(found.test_accuracy)[np.arange(len(draws.subsets)), chosen]


def _logistic(draws: Draws) -> np.ndarray:
    centred = draws.x - jnp.mean(draws.x, axis=0, keepdims=True)
    size = float(jnp.mean(jnp.sum(jnp.square(centred), axis=1)))
    strengths = np.array(STRENGTHS) / (size if size > 0 else 1.0)
    if draws.shots == 1:  # nothing can be held out
        chosen = np.full(len(draws.subsets), len(STRENGTHS) // 2)
    else:
        chosen = np.array([_chosen(draws, rows, strengths) for rows in draws.subsets])
    heads = logistic(
        draws.x,
        draws.y,
        num_classes=draws.classes,
        subsets=draws.subsets,
        strengths=strengths,
        tolerance=_TOLERANCE,
    )
    each = np.arange(len(chosen))
    best = heads._replace(weights=heads.weights[each, chosen], bias=heads.bias[each, chosen])
    return np.array([_accuracy(head, draws) for head in best.predict(draws.test)])


def _chosen(draws: Draws, rows: np.ndarray, strengths: np.ndarray) -> int:
    """The C under which the folds that were left out are likeliest; folds hold as many examples of every class."""
    parts = min(FOLDS, draws.shots)
    fold = np.arange(len(rows)) // draws.classes % parts
    held = np.arange(parts)[:, None] == fold[None]
    x, y = draws.x[rows], draws.y[rows]
    weight = (~held).astype(float)
    found = logistic(x, y, num_classes=draws.classes, weight=weight, strengths=strengths, tolerance=_TOLERANCE)
    likely = jax.nn.log_softmax(found.predict(x), axis=-1)  # [F, L, n, C]
    own = np.asarray(likely)[:, :, np.arange(len(rows)), y]
    return int(np.argmax(np.sum(own * held[:, None], axis=(0, 2))))


def _knn(draws: Draws) -> np.ndarray:
    def one(rows: np.ndarray) -> float:
        x, y = draws.x[rows], draws.y[rows]
        tried = [k for k in NEIGHBOURS if k < len(rows)] if draws.shots > 1 else [1]
        right = [scores.knn(x, y, k=k, metric="cosine") for k in tried] if len(tried) > 1 else [0.0]
        head = knn(x, y, k=tried[int(np.argmax(right))], num_classes=draws.classes)
        return _accuracy(head.predict(draws.test), draws)

    return np.array([one(rows) for rows in draws.subsets])


def _centroid(draws: Draws) -> np.ndarray:
    return np.array(
        [
            _accuracy(centroid(draws.x[rows], draws.y[rows], num_classes=draws.classes).predict(draws.test), draws)
            for rows in draws.subsets
        ]
    )


def _lda(draws: Draws) -> np.ndarray:
    def one(rows: np.ndarray) -> float:
        try:
            head = lda(draws.x[rows], draws.y[rows], num_classes=draws.classes)
        except ProbeError:  # one example a class: no covariance
            if draws.shots > 1:
                raise
            return float("nan")
        return _accuracy(head.predict(draws.test), draws)

    return np.array([one(rows) for rows in draws.subsets])


def _accuracy(said: Array, draws: Draws) -> float:
    return float(np.mean(np.argmax(np.asarray(said), axis=-1) == draws.known))


HEADS: dict[str, Callable[[Draws], np.ndarray]] = {
    "ridge": _ridge,
    "logistic": _logistic,
    "knn": _knn,
    "centroid": _centroid,
    "lda": _lda,
}
CHOICES = {
    "ridge": "ridge: the strength by exact leave-one-out error; fixed for one label per class",
    "logistic": f"logistic: C by {FOLDS} folds of the labelled examples; fixed for one label per class",
    "knn": "k-NN: k of " + ", ".join(map(str, NEIGHBOURS)) + " by leaving one out",
    "centroid": "centroid: nothing",
    "lda": "LDA: Ledoit-Wolf shrinkage; needs two labels per class",
}
"""What is chosen for each head, and how: never by the test examples."""
