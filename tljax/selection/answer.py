"""The answer: who is the best, how surely, what a wrong choice would cost, and what would tell."""

import dataclasses
import math
import textwrap
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from tljax.evaluation.report.standings import VOTES
from tljax.selection.estimate import Estimate
from tljax.selection.fusion import ERROR, WEIGHTS, Posterior, posterior

CONFIDENCE = 0.8
"""From this probability of being the best on, the ranking is decided."""
HORIZON = 100
"""More labels than this many times those at hand are no advice."""


@dataclasses.dataclass(frozen=True)
class Standing:
    """One candidate in the ranking."""

    name: str
    accuracy: float
    """What is expected of it after fine-tuning, 0..1."""
    deviation: float
    low: float
    """The interval of 90 %."""
    high: float
    p_best: float
    regret: float
    """What choosing it loses against the best on average, 0..1."""
    votes: dict[str, float]
    """Of all labelled examples; those without probabilities have no LEEP."""
    subsets: int
    """How many subsets it was measured on."""
    dropped: bool
    """Whether it left early, because it could not win."""
    finetuned: float | None
    """The accuracy that fine-tuning reached, where it was tried."""


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Candidates, the best first."""

    standings: tuple[Standing, ...]
    decided: bool
    contenders: tuple[str, ...]
    """Who may be the best: the fewest that are so with a probability of 80 % together."""
    more_labels: int | None
    """Of an undecided ranking: about how many more would tell the first two apart; None where labels would not."""
    labels: int
    classes: int
    notes: tuple[str, ...]

    @property
    def best(self) -> str:
        """The name of the candidate to choose now: the one with the least expected regret."""
        return self.standings[0].name

    @property
    def verdict(self) -> str:
        """The answer as a sentence."""
        first = self.standings[0]
        cost = f"choosing it loses {100 * first.regret:.1f} points of accuracy on average"
        if len(self.standings) == 1:
            return f"{first.name} is the only candidate."
        if self.decided:
            return f"{first.name} is the best with probability {first.p_best:.2f}; {cost}."
        names = f"{', '.join(self.contenders[:-1])} and {self.contenders[-1]}"
        if self.more_labels is not None:
            told = f"about {self.more_labels} more labels would tell the first two apart"
        elif all(row.finetuned is not None for row in self.standings if row.name in self.contenders):
            told = "more examples to judge their fine-tuning by would tell"
        else:
            told = "more labels alone would not tell, fine-tuning them would"
        return f"Undecided between {names}: {told}. {first.name} is ahead; {cost}."

    def __str__(self) -> str:
        lines = [textwrap.fill(text, 100, break_on_hyphens=False) for text in (self.verdict, *self.notes)]
        return "\n".join([self.table(), "", *lines])

    def table(self) -> str:
        """One row a candidate."""
        head, rows = table_rows(self)
        widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
        lines = [
            "  ".join(f"{cell:<{w}}" if i == 0 else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(row, widths)))
            for row in (head, *rows)
        ]
        return "\n".join(line.rstrip() for line in lines)

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        found = dataclasses.asdict(self) | {"best": self.best, "verdict": self.verdict}
        found["standings"] = [
            row | {"votes": {name: None if math.isnan(v) else v for name, v in row["votes"].items()}}
            for row in found["standings"]
        ]
        return found


def table_rows(ranking: Ranking) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The head and the cells of the table.

    >>> row = Standing("a", 0.9, 0.02, 0.87, 0.93, 1.0, 0.0, {"ridge": 0.9}, 50, False, None)
    >>> head, rows = table_rows(Ranking((row,), True, ("a",), None, 100, 10, ()))
    >>> head[:5], rows[0][:5]
    (('candidate', 'accuracy %', '90 %', 'P(best)', 'regret'), ('a', '90.0 ± 2.0', '87.0 - 93.0', '1.00', '0.0'))
    """
    shown = [name for name in VOTES if any(_known(row.votes, name) for row in ranking.standings)]
    tuned = any(row.finetuned is not None for row in ranking.standings)
    head = ("candidate", "accuracy %", "90 %", "P(best)", "regret", *["fine-tuned %"] * tuned)
    rows = []
    for row in ranking.standings:
        cells = [
            row.name,
            f"{100 * row.accuracy:.1f} ± {100 * row.deviation:.1f}",
            f"{100 * row.low:.1f} - {100 * row.high:.1f}",
            f"{row.p_best:.2f}",
            f"{100 * row.regret:.1f}",
        ]
        if tuned:
            cells.append("" if row.finetuned is None else f"{100 * row.finetuned:.1f}")
        cells += [_cell(row.votes, name) for name in shown]
        rows.append((*cells, f"{row.subsets}{' dropped' if row.dropped else ''}"))
    return (*head, *(VOTES[name] for name in shown), "subsets"), rows


def _known(votes: Mapping[str, float], name: str) -> bool:
    return not math.isnan(votes.get(name, math.nan))


def _cell(votes: Mapping[str, float], name: str) -> str:
    if not _known(votes, name):
        return ""
    return f"{100 * votes[name]:.1f}" if "%" in VOTES[name] else f"{votes[name]:.3f}"


def answer(found: Estimate, *, measured: Mapping[str, tuple[float, int]] | None = None) -> Ranking:
    r"""The ranking that an estimate leads to.

    `measured` has for candidates that were fine-tuned the accuracy and on how many examples it was judged. That takes
    the place of the estimate; how much they differ from it on average is what the others are expected to differ too.
    Of k right among n the empirical logit and its variance are taken, which are finite for k = n too (Gart and Zweifel
    1967, Biometrika 54):

    .. math:: \log \frac{k + 1/2}{n - k + 1/2}, \qquad \frac{1}{k + 1/2} + \frac{1}{n - k + 1/2}.
    """
    level, noise, error = _with_measured(found, measured or {})
    told = posterior(level, noise, found.priors, error=error)
    order = np.argsort(told.regret, kind="stable")
    most = max(found.subsets)
    standings = tuple(_standing(found, told, int(i), most, measured or {}) for i in order)
    contenders = _contenders(standings)
    decided = len(contenders) == 1
    more = None if decided else _more_labels(found, level, noise, error, *order[:2])
    return Ranking(standings, decided, contenders, more, found.examples, found.classes, _notes(found, standings))


def _with_measured(
    found: Estimate, measured: Mapping[str, tuple[float, int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    level, noise = found.level.copy(), found.noise.copy()
    error = np.full(len(level), ERROR)
    places = [found.names.index(name) for name in measured]
    if places:
        accuracy, examples = np.array(list(measured.values()), float).T
        right, wrong = accuracy * examples + 0.5, (1 - accuracy) * examples + 0.5
        reached = np.log(right / wrong)
        level += np.mean(reached - level[places])
        # Not of the labels that the votes are of, so no number of those takes it away.
        level[places], error[places] = reached, np.sqrt(1 / right + 1 / wrong)
        noise[places], noise[:, places] = 0.0, 0.0
    return level, noise, error


def _standing(
    found: Estimate, told: Posterior, i: int, most: int, measured: Mapping[str, tuple[float, int]]
) -> Standing:
    name = found.names[i]
    mean, deviation, low, high, p_best, regret = (float(a[i]) for a in told)
    tuned = measured[name][0] if name in measured else None
    votes = {vote: float(value) for vote, value in found.votes[i]._asdict().items()}
    left = found.subsets[i] < most
    return Standing(name, mean, deviation, low, high, p_best, regret, votes, found.subsets[i], left, tuned)


def _contenders(standings: Sequence[Standing]) -> tuple[str, ...]:
    total, names = 0.0, []
    for row in sorted(standings, key=lambda row: -row.p_best):
        names.append(row.name)
        total += row.p_best
        if total >= CONFIDENCE:
            break
    return tuple(names)


def _more_labels(
    found: Estimate, level: np.ndarray, noise: np.ndarray, error: np.ndarray, a: int, b: int
) -> int | None:
    """With n labels the difference of two levels has the variance ``noise N / n + errors``."""
    sampling = noise[a, a] + noise[b, b] - 2 * noise[a, b]
    needed = ((level[a] - level[b]) / NormalDist().inv_cdf(CONFIDENCE)) ** 2 - error[a] ** 2 - error[b] ** 2
    if needed <= sampling / HORIZON:
        return None
    more = found.examples * (sampling / needed - 1)
    if more <= 0:
        return None
    digits = 10 ** max(0, math.floor(math.log10(more)))
    return math.ceil(more / digits) * digits


def _notes(found: Estimate, standings: Sequence[Standing]) -> tuple[str, ...]:
    parts = " and ".join(name.replace("_likelihood", "") for name in WEIGHTS)
    notes = []
    if not found.told:
        notes.append(
            "Every class has one example, so none can be left out: the ranking rests on what was known before."
        )
    notes += [
        f"{found.examples} labels of {found.classes} classes. Accuracy: what is expected after fine-tuning, from "
        f"the likelihoods of examples left out ({parts})"
        + "".join(f", {vote.name.replace('_', ' ')}" for vote in found.priors)
        + "; ± and 90 % hold the noise of sampling labels and the mismatch of probe and fine-tuning."
    ]
    if found.given > found.examples:
        notes.append(f"Of {found.given} labels {found.examples} were used, the same share of each class.")
    gone = [row.name for row in standings if row.dropped]
    if gone:
        notes.append(f"Dropped early, with P(best) under 5 %: {', '.join(gone)}.")
    return tuple(notes)
