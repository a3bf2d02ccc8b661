"""What labels are worth: how many more of them a baseline needs for the same accuracy."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from tljax.evaluation.statistics import StatisticsError, check_level

Level = Literal["method", "baseline"]


class LabelFactor(NamedTuple):
    """How many times the labels a method is worth."""

    shots: float
    """The number of labels at which the accuracies were made equal."""
    factor: float
    """The baseline's labels over the method's."""
    relation: str
    """`"="`, or `">="` and `"<="` where the curve that is read ends before it reaches the accuracy."""
    low: float
    """0 where no number can be named; NaN without an interval."""
    high: float
    """Infinite where no number can be named; NaN without an interval."""
    level: float
    n: int
    """How many seeds it rests on."""

    def __str__(self) -> str:
        sign = {"=": "", ">=": "at least ", "<=": "at most "}[self.relation]
        if math.isnan(self.factor):
            return "unknown: a value is no number"
        if math.isnan(self.low):
            return f"{sign}{self.factor:.2g} times the labels (no interval, n = {self.n})"
        high = "..." if math.isinf(self.high) else f"{self.high:.2g}"
        low = "..." if self.low == 0 else f"{self.low:.2g}"
        return f"{sign}{self.factor:.2g} times the labels [{low}, {high}] ({self.level:.0%}, n = {self.n})"


def label_factors(
    shots: Sequence[float],
    values: Any,
    baseline: Any,
    *,
    at: Level = "method",
    higher_is_better: bool = True,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 2000,
) -> tuple[LabelFactor, ...]:
    """For every number of labels the factor ``k_baseline / k_method`` at equal accuracy.

    The curves are means over seeds, read linearly on ``log k``; where more labels made one worse, the best so far is
    read. Where a curve ends before it reaches the accuracy, the factor is a bound. The interval is the bootstrap's over
    seeds, drawn for both curves alike; with the few seeds that are usual it is too narrow, and of one there is none.

    Args:
        shots: the numbers of labels k, ascending, `[K]`.
        values: the method's, `[S, K]`: seed by number of labels.
        baseline: the baseline's, likewise, row i from the same seed.
        at: whose accuracy at each k is the one both are read at: with `"method"` the question is how many labels the
            baseline would need; with `"baseline"`, how many the method makes do with.
        higher_is_better: False for errors and losses.
        seed: of the bootstrap.

    Raises:
        StatisticsError: tables that do not fit, shots that do not ascend, or a level outside (0, 1).

    Reference: for few-label curves, Hestness et al. 2017, arXiv:1712.00409; bootstrap, Efron 1979.

    >>> k, transfer, scratch = [1, 2, 4], [[0.5, 0.7, 0.9]], [[0.3, 0.5, 0.7]]
    >>> [str(found) for found in label_factors(k, transfer, scratch)][:2]
    ['2 times the labels (no interval, n = 1)', '2 times the labels (no interval, n = 1)']
    >>> print(label_factors(k, transfer, scratch)[2])
    at least 1 times the labels (no interval, n = 1)
    """
    k, a, b = _checked(shots, values, baseline, at, level)
    if not higher_is_better:
        a, b = -a, -b
    asked, read = (a, b) if at == "method" else (b, a)
    s = len(a)
    draws = np.random.default_rng(seed).integers(0, s, (resamples, s)) if s > 1 else np.zeros((0, 1), int)
    many = [_factors(k, asked[rows].mean(0), read[rows].mean(0), at) for rows in draws]
    point = _factors(k, asked.mean(0), read.mean(0), at)
    return tuple(_with_interval(k, i, point[i], [one[i] for one in many], at, level, s) for i in range(len(k)))


def label_curve_area(shots: Sequence[float], values: Any) -> np.ndarray:
    """The area under each seed's curve against ``log2 k``, over the width: a mean accuracy, `[S]`.

    With one number of labels it is the value there.

    Args:
        shots: the numbers of labels k, ascending, `[K]`.
        values: `[S, K]`: seed by number of labels.

    Raises:
        StatisticsError: tables that do not fit, or shots that do not ascend.

    >>> label_curve_area([1, 2, 8], [[0.0, 0.5, 0.75]]).round(4).tolist()  # (0.25 * 1 + 0.625 * 2) / 3
    [0.5]
    """
    k, table, _ = _checked(shots, values, values, "method", 0.95)
    if len(k) == 1:
        return table[:, 0]
    x = np.log2(k)
    return ((table[:, 1:] + table[:, :-1]) / 2 @ np.diff(x)) / (x[-1] - x[0])


_Found = tuple[float, str]


def _factors(k: np.ndarray, asked: np.ndarray, read: np.ndarray, at: str) -> list[_Found]:
    found = []
    for own, value in zip(k, asked):
        other, relation = _needed(k, read, float(value))
        if at == "method":
            found.append((float(other / own), relation))
        else:
            found.append((float(own / other), {"=": "=", ">=": "<=", "<=": ">="}[relation]))
    return found


def _needed(k: np.ndarray, curve: np.ndarray, wanted: float) -> _Found:
    """The number of labels at which `curve` reaches `wanted`, and whether it is that, more, or less."""
    if math.isnan(wanted) or np.isnan(curve).any():
        return math.nan, "="
    best = np.maximum.accumulate(curve)
    if wanted > best[-1]:
        return float(k[-1]), ">="
    i = int(np.argmax(best >= wanted))
    if i == 0:
        return float(k[0]), "=" if wanted == best[0] else "<="
    share = (wanted - best[i - 1]) / (best[i] - best[i - 1])
    return float(math.exp(math.log(k[i - 1]) + share * math.log(k[i] / k[i - 1]))), "="


def _with_interval(
    k: np.ndarray, i: int, point: _Found, many: list[_Found], at: str, level: float, n: int
) -> LabelFactor:
    if not many or math.isnan(point[0]):
        return LabelFactor(float(k[i]), *point, math.nan, math.nan, level, n)
    ends = {">=": math.inf, "<=": 0.0}
    values = np.sort([ends.get(relation, factor) for factor, relation in many])
    cut = (1 - level) / 2 * (len(values) - 1)
    low, high = float(values[math.floor(cut)]), float(values[math.ceil(len(values) - 1 - cut)])
    most, least = (k[-1] / k[i], k[0] / k[i]) if at == "method" else (k[i] / k[0], k[i] / k[-1])
    return LabelFactor(float(k[i]), *point, min(low, float(most)), max(high, float(least)), level, n)


def _checked(
    shots: Sequence[float], values: Any, baseline: Any, at: str, level: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    check_level(level)
    k, a, b = (np.asarray(part, np.float64) for part in (shots, values, baseline))
    if k.ndim != 1 or not len(k) or a.ndim != 2 or a.shape != b.shape or a.shape[1] != len(k) or not len(a):
        raise StatisticsError(
            f"label curves are values [seeds, shots] of both methods and shots [K]; found {a.shape}, {b.shape} and "
            f"{k.shape}"
        )
    if not (np.diff(k) > 0).all() or k[0] <= 0:
        raise StatisticsError(f"shots ascend, and are positive; found {list(shots)}")
    if at not in ("method", "baseline"):
        raise StatisticsError(f"at must be 'method' or 'baseline', found {at!r}")
    return k, a, b
