"""Ranking candidates by their features of a labelled set."""

from collections.abc import Callable, Mapping
from typing import Any

from tljax.selection.answer import Ranking, answer
from tljax.selection.candidates import Candidate, SelectionError, checked
from tljax.selection.estimate import estimate


def rank_features(
    candidates: Mapping[str, Candidate],
    labels: Any,
    *,
    subsets: int = 50,
    seed: int = 0,
    racing: bool = True,
    tell: Callable[[str], Any] = lambda line: None,
) -> Ranking:
    """Which of several feature extractors is the best start for fine-tuning on these labels, and how surely.

    Every candidate is measured on the same subsets of the labelled examples; the scatter between them gives the noise.
    See `tljax.selection.fusion` for the model, and docs/rank.md for what the answer is worth.

    Args:
        candidates: by name; a bare `[N, D]` stands for `Candidate` with nothing else known.
        labels: classes `[N]`, integers or names.
        subsets: how many stratified subsets; 2 or more.
        seed: of their draw.
        racing: whether candidates that are the best with less than 5 % leave after the first ten.
        tell: is called with a line of progress now and then.

    Raises `SelectionError`, which names the candidate, for features that do not fit the labels or are not finite, and
    for fewer than two classes.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat(["cat", "dog"], 20)
    >>> noise = rng.normal(size=(40, 8))
    >>> good = noise + 3 * (labels == "dog")[:, None]
    >>> found = rank_features({"noise": noise, "good": good}, labels)
    >>> found.best, found.decided
    ('good', True)
    """
    if subsets < 2:
        raise SelectionError(f"subsets is {subsets}; the scatter between them needs 2 or more")
    given, y, _ = checked(candidates, labels)
    return answer(estimate(given, y, subsets=subsets, seed=seed, racing=racing, tell=tell))
