"""What ranks the candidates: scores of features and source probabilities, and priors that need no labels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import tljax as tl
from tljax import scores
from tljax.selection import Candidate, rank_features


class Case(NamedTuple):
    """One candidate on one labelled subset."""

    features: np.ndarray
    """`[N, D]`."""
    labels: np.ndarray
    """`[N]`."""
    probabilities: np.ndarray | None
    """`[N, S]` of the source's classes; None without a source."""
    facts: dict[str, Any]
    """Parameters, width and upstream accuracy."""


def ridge_loo(case: Case) -> float:
    """The leave-one-out accuracy of ridge regression at its best strength."""
    return float(np.mean(np.argmax(np.asarray(tl.ridge(case.features, case.labels).loo), -1) == case.labels))


def leep(case: Case) -> float:
    """LEEP; the worst rank without a source head."""
    return -np.inf if case.probabilities is None else scores.leep(case.probabilities, case.labels)


def nce(case: Case) -> float:
    """NCE of the source's most likely classes; the worst rank without a source head."""
    return -np.inf if case.probabilities is None else scores.nce(np.argmax(case.probabilities, -1), case.labels)


def logme_as_coded(case: Case) -> float:
    """LogME as the authors' code has it: where D > N the determinant lacks the eigenvalues that are alpha alone."""
    x = np.asarray(case.features, np.float64)
    targets = np.eye(int(case.labels.max()) + 1)[case.labels]
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    return float(np.mean([_fixed_point(x.shape, s**2, u.T @ t, t @ t) for t in targets.T]))


def _fixed_point(shape: tuple[int, int], energy: np.ndarray, along: np.ndarray, square: float) -> float:
    (n, d), alpha, beta = shape, 1.0, 1.0
    for _ in range(11):
        ratio = alpha / beta
        gamma = np.sum(energy / (energy + ratio))
        weights = np.sum(energy * along**2 / (ratio + energy) ** 2)
        rest = np.sum(along**2 / (1 + energy / ratio) ** 2) + max(square - np.sum(along**2), 0.0)
        alpha, beta = gamma / (weights + 1e-5), (n - gamma) / (rest + 1e-5)
        if abs(alpha / beta - ratio) / ratio <= 1e-3:
            break
    determinant = np.sum(np.log(alpha + beta * energy))
    fit = d * np.log(alpha) + n * np.log(beta) - determinant - beta * rest - alpha * weights
    return float(fit - n * np.log(2 * np.pi)) / (2 * n)


OURS = "tljax rank"


def ranked(cases: dict[str, Case]) -> tuple[list[float], list[float]]:
    """Of `rank_features`: how little choosing each candidate loses, and its probability of being the best.

    Upstream accuracies are not told: those of different sources do not compare.
    """
    given = {
        name: Candidate(case.features, case.probabilities, parameters=case.facts["parameters"])
        for name, case in cases.items()
    }
    found = {row.name: row for row in rank_features(given, next(iter(cases.values())).labels).standings}
    return [-found[name].regret for name in cases], [found[name].p_best for name in cases]


METHODS: dict[str, Callable[[Case], float]] = {
    "LogME, fixed point": lambda c: scores.logme(c.features, c.labels, center=False, form="fixed_point"),
    "LogME, published code": logme_as_coded,
    "LogME, exact": lambda c: scores.logme(c.features, c.labels),
    "LEEP": leep,
    "NCE": nce,
    "H-score": lambda c: scores.h_score(c.features, c.labels),
    "H-score, shrunk": lambda c: scores.shrinkage_h_score(c.features, c.labels),
    "TransRate": lambda c: scores.transrate(c.features, c.labels),
    "SFDA": lambda c: scores.sfda(c.features, c.labels),
    "1-NN": lambda c: scores.knn(c.features, c.labels, k=1),
    "5-NN": lambda c: scores.knn(c.features, c.labels, k=5),
    "ridge": ridge_loo,
    "size": lambda c: float(np.log(c.facts["parameters"])),
    "upstream": lambda c: c.facts["upstream"],
}
