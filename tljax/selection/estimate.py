"""From features to votes on subsets, with early leave for candidates that cannot win."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tljax.selection.candidates import Candidate
from tljax.selection.fusion import PriorVote, fused, logit, posterior, prior_votes
from tljax.selection.subsets import Subsets, sample, stratified_subsets
from tljax.selection.votes import Given, Votes, prepare, votes_of

FIRST = 10
"""Subsets after which candidates may leave."""
MOST = 3000
"""More labelled examples than this are sampled: their cosines are a matrix, and what they would add is little."""
HOPELESS = 0.05
"""Who is the best with less than this probability leaves."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What the labelled examples say of every candidate."""

    names: tuple[str, ...]
    given: int
    """How many labels there were."""
    examples: int
    """How many of them were used."""
    classes: int
    votes: tuple[Votes, ...]
    """Of all examples, one for each candidate."""
    level: np.ndarray
    """`[C]`: the fused votes of all examples, in logits of accuracy."""
    noise: np.ndarray
    """`[C, C]`: the covariance of `level` that sampling examples makes."""
    subsets: tuple[int, ...]
    """How many subsets each was measured on."""
    priors: tuple[PriorVote, ...]

    @property
    def told(self) -> bool:
        """Whether some class has two examples; else nothing can be left out, and `level` knows nothing."""
        return self.examples > self.classes


def estimate(
    candidates: Mapping[str, Candidate],
    labels: np.ndarray,
    *,
    subsets: int,
    seed: int,
    racing: bool,
    tell: Callable[[str], Any] = lambda line: None,
) -> Estimate:
    """Votes of all examples and of `subsets` subsets, for checked candidates and labels `[N]` in 0..C-1.

    After the first few subsets who is the best with a probability under 5 % leaves, with `racing`.

    >>> x = np.random.default_rng(0).normal(size=(12, 2)) + np.eye(2).repeat(6, 0)
    >>> found = estimate({"a": Candidate(x)}, np.arange(2).repeat(6), subsets=4, seed=0, racing=True)
    >>> found.names, found.subsets, found.noise.shape
    (('a',), (4,), (1, 1))
    """
    given, rows = len(labels), sample(labels, MOST, seed=seed)
    labels, candidates = labels[rows], {name: _only(value, rows) for name, value in candidates.items()}
    bench = _Bench(candidates, labels, stratified_subsets(labels, subsets, seed=seed))
    names, count, priors = tuple(candidates), len(candidates), prior_votes(candidates)
    first = min(FIRST, subsets) if racing and count > 1 else subsets
    whole, parts = [], []
    for name in names:
        tell(f"{name}: {len(labels)} examples and {first} subsets")
        whole.append(bench.whole(name))
        parts.append(bench.subsets(name, 0, first))
    found = Estimate(
        names,
        given,
        len(labels),
        bench.classes,
        tuple(whole),
        bench.level(whole),
        bench.noise(parts),
        (first,) * count,
        priors,
    )
    if not found.told:
        blank = np.full(count, logit(np.array(1 / bench.classes)))
        return dataclasses.replace(found, level=blank, noise=np.eye(count))
    p_best = posterior(found.level, found.noise, priors).p_best
    stays = np.flatnonzero((p_best >= HOPELESS) | (p_best == p_best.max()))
    if first == subsets or len(stays) == 1:
        return found
    tell(f"{len(stays)} of {count} candidates can still be the best: {subsets - first} more subsets")
    for i in stays:
        more = bench.subsets(names[i], first, subsets)
        parts[i] = Votes(*(np.concatenate(pair) for pair in zip(parts[i], more)))
    noise = found.noise.copy()
    noise[np.ix_(stays, stays)] = bench.noise([parts[i] for i in stays])
    used = tuple(subsets if i in stays else first for i in range(count))
    return dataclasses.replace(found, noise=noise, subsets=used)


def _only(candidate: Candidate, rows: np.ndarray) -> Candidate:
    """The candidate on some of the examples."""
    probabilities = None if candidate.probabilities is None else candidate.probabilities[rows]
    return dataclasses.replace(candidate, features=candidate.features[rows], probabilities=probabilities)


@dataclasses.dataclass(frozen=True)
class _Bench:
    """The examples with their subsets, on which every candidate is measured in the same way."""

    candidates: Mapping[str, Candidate]
    labels: np.ndarray
    drawn: Subsets

    @property
    def classes(self) -> int:
        return int(self.labels.max()) + 1

    def whole(self, name: str) -> Votes:
        """The votes of all examples."""
        order = np.argsort(self.labels, kind="stable")
        found = votes_of(self._given(name), self.labels[order], order[None], self.classes, whole=True)
        return Votes(*(float(vote[0]) for vote in found))

    def subsets(self, name: str, first: int, last: int) -> Votes:
        """The votes of some subsets, always as many at once, so that one program serves all."""
        given, rows = self._given(name), self.drawn.rows[np.arange(first, last + -(last - first) % FIRST) % last]
        parts = [
            votes_of(given, self.drawn.labels, rows[i : i + FIRST], self.classes) for i in range(0, len(rows), FIRST)
        ]
        return Votes(*(np.concatenate(found)[: last - first] for found in zip(*parts)))

    def level(self, whole: list[Votes]) -> np.ndarray:
        """The fused votes of all examples `[C]`, moved together to the accuracy of those in front.

        Likelihoods lie below accuracies. Of the three in front it is the better head's, and no worse than chance.
        """
        n, fusions = len(self.labels), np.array([fused(votes) for votes in whole])
        right = [max(votes.ridge, votes.centroid, 1 / self.classes) for votes in whole]
        lacks = logit((np.array(right) * n + 0.5) / (n + 1)) - fusions
        return fusions + np.mean(lacks[np.argsort(-fusions)[:3]])

    def noise(self, parts: list[Votes]) -> np.ndarray:
        """The covariance of the level `[C, C]` that the scatter between subsets tells."""
        found = np.stack([fused(votes) for votes in parts])
        n, m = len(self.labels), len(self.drawn.labels)
        if m == n:  # no class has more than two: subsets are the whole
            accuracy = 1 / (1 + np.exp(-found.mean(1)))
            return np.diag(1 / (n * accuracy * (1 - accuracy)))
        return np.atleast_2d(np.cov(found)) * self.drawn.widening

    def _given(self, name: str) -> Given:
        return prepare(self.candidates[name].features, self.candidates[name].probabilities)
