"""Whether transfer helped: the paired gain over a baseline, and the verdict on it."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from tljax.evaluation.statistics import Interval, StatisticsError, bootstrap, interval, one_a_seed, t_quantile

MOST_SEEDS = 1000
"""Beyond so many further seeds, a difference is too small to be worth deciding."""
_SHARES = ("accuracy", "precision", "recall", "f1", "ece", "auroc", "match", "top_")


class Gain(NamedTuple):
    """The paired gain of one method over another: positive is better."""

    interval: Interval
    """Student's t over the differences."""
    bootstrap: Interval
    """The percentile bootstrap over the differences."""
    differences: tuple[float, ...]
    """One a seed."""

    @property
    def mean(self) -> float:
        """The mean difference."""
        return self.interval.mean


def paired_gain(
    a: Sequence[float],
    b: Sequence[float],
    *,
    higher_is_better: bool = True,
    level: float = 0.95,
    resolution: float = 0.0,
    seed: int = 0,
    resamples: int = 10_000,
) -> Gain:
    """The gain of `a` over `b`, whose i-th values come from the same seed: what both share cancels out.

    Args:
        a: the method's values, one a seed.
        b: the baseline's, in the same order.
        higher_is_better: False for errors and losses; then a fall is the gain.
        resolution: the step in which values come, d; 1 / N for the accuracy on N examples. Differences of values that
            are rounded to it may be equal by chance, with few seeds and few examples often; so their standard deviation
            counts as no less than what rounding alone makes, ``sqrt(2 d^2 / 12)``.
        seed: of the bootstrap.

    >>> gain = paired_gain([0.91, 0.94, 0.92], [0.85, 0.90, 0.86])
    >>> print(gain.interval)
    0.05333 [0.02465, 0.08202] (95%, n = 3)
    >>> print(paired_gain([0.5, 0.5], [0.4, 0.4], resolution=0.1).interval)
    0.1 [-0.2668, 0.4668] (95%, n = 2)
    """
    first, second = one_a_seed(a, level), one_a_seed(b, level)
    if len(first) != len(second):
        raise StatisticsError(
            f"a paired gain needs both methods on the same seeds, found {len(first)} and {len(second)} values"
        )
    with np.errstate(invalid="ignore"):  # inf - inf: a run that diverged makes the gain NaN, not a warning
        differences = first - second if higher_is_better else second - first
    return Gain(
        interval(differences, level=level, least_spread=resolution / math.sqrt(6)),
        bootstrap(differences, level=level, seed=seed, resamples=resamples),
        tuple(differences.tolist()),
    )


def negative_transfer(gain: Gain) -> Literal["strong", "weak", ""]:
    """The flag of negative transfer: strong where the whole interval lies below 0, weak where only the mean does.

    Empty where the mean is 0 or above, or no number. With one seed, which has no interval, it is never strong.

    >>> negative_transfer(paired_gain([0.80, 0.81, 0.79], [0.90, 0.92, 0.89]))
    'strong'
    >>> negative_transfer(paired_gain([0.80, 0.95], [0.90, 0.90])), negative_transfer(paired_gain([0.9], [0.8]))
    ('weak', '')
    """
    if gain.interval.high < 0:
        return "strong"
    return "weak" if gain.mean < 0 else ""


class Verdict(NamedTuple):
    """Whether transfer helped."""

    outcome: str
    """`"helped"`, `"hurt"` or `"undecided"`."""
    sentence: str
    """The outcome in plain words, with its numbers."""
    gain: Gain
    more_seeds: int | None = None
    """About how many further seeds would decide; None where it is decided or cannot be told."""

    def __str__(self) -> str:
        return self.sentence


def verdict(
    gain: Gain, *, metric: str = "accuracy", baseline: str = "training from scratch", subject: str = "Transfer"
) -> Verdict:
    """The verdict on a paired gain: helped or hurt where the t-interval leaves out 0, else undecided.

    Hurt is negative transfer: the interval's upper end lies below 0. Shares are worded in percentage points. `subject`
    is what helped or hurt.

    >>> print(verdict(paired_gain([0.91, 0.94, 0.92], [0.85, 0.90, 0.86])))
    Transfer helped: accuracy is 5.3 points better than with training from scratch (95 % interval of the gain 2.5 to
    8.2, 3 paired seeds).
    """
    found = gain.interval
    words = _Words(metric, baseline)
    if math.isnan(found.low):
        return Verdict("undecided", words.undefined(found), gain)
    bounds = f"{found.level * 100:g} % interval of the gain {words.number(found.low)} to {words.number(found.high)}"
    basis = f"{bounds}, {found.n} paired seeds"
    if found.low > 0:
        return Verdict("helped", f"{subject} helped: {words.compared(found.mean)} ({basis}).", gain)
    if found.high < 0:
        negative = " (negative transfer)" if subject == "Transfer" else ""
        return Verdict("hurt", f"{subject} hurt{negative}: {words.compared(found.mean)} ({basis}).", gain)
    more = seeds_to_decide(gain)
    sentence = f"Undecided: {words.compared(found.mean)}, within what chance allows ({basis}); {_hope(found, more)}."
    return Verdict("undecided", sentence, gain, more)


def _hope(found: Interval, more: int | None) -> str:
    if found.mean == 0:
        return "no number of seeds can be named that would decide"
    if more is None:
        return f"at this mean and spread even {MOST_SEEDS} more seeds would not decide"
    return f"at this mean and spread about {more} more seed{'s' * (more > 1)} would decide"


def seeds_to_decide(gain: Gain) -> int | None:
    """About how many more seeds would take 0 out of the interval, were mean and spread to stay as they are.

    None where more than `MOST_SEEDS` would be needed, or where it cannot be told.

    >>> seeds_to_decide(paired_gain([0.3, 0.1, 0.2, -0.1], [0.0] * 4))
    6
    """
    found, n = gain.interval, len(gain.differences)
    if math.isnan(found.half_width) or found.mean == 0:
        return None
    spread = found.half_width * math.sqrt(n) / t_quantile(found.level, n - 1)

    def decided(size: int) -> bool:
        return t_quantile(found.level, size - 1) * spread / math.sqrt(size) < abs(found.mean)

    if not decided(n + MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS  # t / sqrt(n) falls with n, so halving finds the first that decides
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(n + middle) else (middle + 1, high)
    return low


class _Words(NamedTuple):
    """How a difference in a metric is written: of shares, in percentage points."""

    metric: str
    baseline: str

    @property
    def share(self) -> bool:
        return any(word in self.metric.lower() for word in _SHARES)

    def number(self, x: float) -> str:
        text = f"{100 * x:.1f}" if self.share else f"{x:.3g}"
        return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")

    def compared(self, x: float) -> str:
        if x == 0:
            return f"{self.metric} is on average the same as with {self.baseline}"
        size = f"{self.number(abs(x))}{' points' if self.share else ''}"
        return f"{self.metric} is {size} {'better' if x > 0 else 'worse'} than with {self.baseline}"

    def undefined(self, found: Interval) -> str:
        if not math.isfinite(found.mean):
            return (
                f"Undecided: in some of the {found.n} runs {self.metric} is no finite number, so nothing can be said."
            )
        return (
            f"Undecided: {self.compared(found.mean)}, but one seed has no interval: the difference may be chance. "
            "Run at least 2 more seeds."
        )
