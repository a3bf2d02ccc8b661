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
    "LogME, published code": lambda c: scores.logme(c.features, c.labels, center=False, form="published"),
    "LogME, restricted": lambda c: scores.logme(c.features, c.labels, form="restricted"),
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
