r"""From votes to the probability of being the best.

What is estimated is the accuracy after fine-tuning, in logits, z. The examples say z = v + noise + error: v are the
fused votes; the noise is that of sampling examples, with the covariance that subsets show, candidates being measured on
the same ones; the error is what no number of examples takes away, because a head on frozen features is not the
fine-tuned model. Priors say how z differs between candidates, each with a deviation of its own. All are normal, so the
posterior is

.. math:: \Lambda = (\Sigma + \tau^2 I)^{-1} + \sum_p \omega_p^{-2} M_p, \quad
   \Lambda m = (\Sigma + \tau^2 I)^{-1} v + \sum_p \omega_p^{-2} M_p d_p,

with M the centring matrix of the candidates of which a prior knows anything. With many labels the noise goes, and the
weight of a prior falls to what the error leaves it.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tljax.selection.candidates import Candidate
from tljax.selection.votes import Votes

WEIGHTS = {"ridge_likelihood": 0.5, "centroid_likelihood": 0.5}
"""Of the votes whose logarithms are averaged."""
ERROR = 0.15
"""Tau, in logits of accuracy: on a development zoo it makes P(best) right about as often as it says, docs/rank.md."""
PRIORS = {"parameters": (0.15, 1.0), "upstream_accuracy": (0.1, 1.0), "prior": (1.0, 1.0)}
"""For each prior the slope, in logits for a factor of ten or for a logit, and omega: weak, since on the development zoo
every prior of half that deviation made the ranking worse."""
DRAWS = 20_000


class PriorVote(NamedTuple):
    """What is known before the examples."""

    name: str
    known: np.ndarray
    """`[C]` bool: of which candidates."""
    difference: np.ndarray
    """`[C]`: in logits, from their mean; 0 where nothing is known."""
    deviation: float
    """Omega."""


class Posterior(NamedTuple):
    """Each `[C]`."""

    mean: np.ndarray
    """Accuracy."""
    deviation: np.ndarray
    """Of the accuracy."""
    low: np.ndarray
    """The interval of 90 %."""
    high: np.ndarray
    p_best: np.ndarray
    regret: np.ndarray
    """What is lost on average, in accuracy, if this one is chosen."""


def fused(votes: Votes) -> np.ndarray:
    """The geometric mean of the likelihoods, in logits.

    In these units differences between candidates are, but for noise, those of their accuracies after fine-tuning, in
    logits too; docs/rank.md has the figures. A likelihood sees how far from right an example is, where an accuracy of
    few examples sees but a few steps.

    >>> some = Votes(0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0)
    >>> float(fused(some))
    0.0
    """
    logs = [weight * np.log(getattr(votes, name)) for name, weight in WEIGHTS.items()]
    return logit(np.clip(np.exp(np.sum(logs, axis=0)), 1e-6, 1 - 1e-6))


def logit(accuracy: np.ndarray) -> np.ndarray:
    """``log(p / (1 - p))``.

    >>> float(logit(np.array(0.5)))
    0.0
    """
    return np.log(accuracy) - np.log1p(-accuracy)


def prior_votes(candidates: Mapping[str, Candidate]) -> tuple[PriorVote, ...]:
    """What is known of two candidates or more.

    >>> x = np.zeros((2, 1))
    >>> [vote] = prior_votes({"a": Candidate(x, parameters=10**6), "b": Candidate(x, parameters=10**8)})
    >>> vote.name, vote.difference.round(2).tolist()
    ('parameters', [-0.15, 0.15])
    """
    found = []
    for name, (slope, deviation) in PRIORS.items():
        given = [getattr(candidate, name) for candidate in candidates.values()]
        known = np.array([value is not None for value in given])
        if known.sum() < 2:
            continue
        values = np.array([float(value) for value in given if value is not None])
        scale = np.log10(values) if name == "parameters" else logit(np.clip(values, 0.01, 0.99))
        difference = np.zeros(len(given))
        difference[known] = slope * (scale - scale.mean())
        found.append(PriorVote(name, known, difference, deviation))
    return tuple(found)


def posterior(
    level: np.ndarray,
    noise: np.ndarray,
    priors: tuple[PriorVote, ...] = (),
    *,
    error: np.ndarray | float = ERROR,
    seed: int = 0,
) -> Posterior:
    """What level `[C]`, its noise `[C, C]`, the priors and the model's error together say.

    >>> found = posterior(np.array([0.0, 3.0]), np.eye(2) * 0.01)
    >>> found.p_best.round(2).tolist(), bool(found.regret[1] < 0.001)
    ([0.0, 1.0], True)
    """
    count = len(level)
    values, vectors = np.linalg.eigh(noise + np.diag(np.square(error) * np.ones(count)))
    # Covariances of candidates that saw other subsets need not be positive together.
    precision = vectors / np.maximum(values, 1e-6)[None] @ vectors.T
    pull = precision @ level
    for vote in priors:
        known = vote.known.astype(float)
        centring = np.diag(known) - np.outer(known, known) / known.sum()
        precision = precision + centring / vote.deviation**2
        pull = pull + centring @ vote.difference / vote.deviation**2
    covariance = np.linalg.inv(precision)
    factor = np.linalg.cholesky((covariance + covariance.T) / 2)
    drawn = np.random.default_rng(seed).standard_normal((DRAWS, count)) @ factor.T + (covariance @ pull)[None]
    accuracy = 1 / (1 + np.exp(-drawn))
    best = accuracy.max(1, keepdims=True)
    low, high = np.quantile(accuracy, (0.05, 0.95), axis=0)
    p_best = np.bincount(accuracy.argmax(1), minlength=count) / DRAWS
    return Posterior(accuracy.mean(0), accuracy.std(0), low, high, p_best, (best - accuracy).mean(0))
