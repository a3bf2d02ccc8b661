"""How sure a number is: intervals over seeds, of proportions, and by the bootstrap.

The unit is one run: a seed, which draws the labelled subset, the initialisation and the order of the data. Everything
here is small and runs on the host, in float64.
"""

import functools
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from tljax.types import TljaxError


class StatisticsError(TljaxError):
    """Numbers of which no interval can be made."""


class Interval(NamedTuple):
    """A mean and the interval it lies in; the bounds are NaN where they are undefined, as for one value."""

    mean: float
    """The mean, or the statistic that was asked for."""
    low: float
    high: float
    level: float
    n: int
    """How many values it rests on."""

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        if math.isnan(self.half_width):
            return f"{self.mean:.4g} (no interval, n = {self.n})"
        return f"{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}] ({self.level:.0%}, n = {self.n})"


def interval(values: Sequence[float], *, level: float = 0.95, least_spread: float = 0.0) -> Interval:
    """Student's t-interval of the mean of `values`: ``mean ± t s / sqrt(n)``, with ``n - 1`` in `s`.

    Of one value the interval is undefined: its bounds are NaN, as they are where a value is NaN or infinite.
    `least_spread`: what s is at the least, for values that come in steps and are equal by chance; see `paired_gain`.

    Raises:
        StatisticsError: no values, more than one axis, or a level outside (0, 1).

    >>> print(interval([0.90, 0.92, 0.94]))
    0.92 [0.8703, 0.9697] (95%, n = 3)
    >>> print(interval([0.90]))
    0.9 (no interval, n = 1)
    """
    array = one_a_seed(values, level)
    n, mean = len(array), float(array.mean())
    if n == 1:
        return Interval(mean, math.nan, math.nan, level, n)
    with np.errstate(invalid="ignore"):  # inf among the values: no interval, and no warning
        spread = float(np.maximum(array.std(ddof=1), least_spread))
    half = t_quantile(level, n - 1) * spread / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, level, n)


@functools.lru_cache(maxsize=1024)
def t_quantile(level: float, degrees: int) -> float:
    """The t for which Student's distribution has the share `level` within ``±t``.

    For whole degrees of freedom that share is a finite sum over ``cos(theta)``, ``tan(theta) = t / sqrt(degrees)``,
    which is inverted by bisection; beyond 1000 degrees the expansion around the normal quantile is exact to 1e-7.

    Reference: Abramowitz and Stegun 1964, 26.7.3, 26.7.4 and 26.7.5.

    >>> print(round(t_quantile(0.95, 4), 4), round(t_quantile(0.95, 10**6), 4))
    2.7764 1.96
    """
    if degrees > 1000:
        z = NormalDist().inv_cdf(0.5 + level / 2)
        first = (z**3 + z) / (4 * degrees)
        second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        return z + first + second
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _share_within(middle, degrees) < level else (low, middle)
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _share_within(theta: float, degrees: int) -> float:
    """P(|T| <= t) with ``tan(theta) = t / sqrt(degrees)``."""
    cos2, odd = math.cos(theta) ** 2, degrees % 2
    term = math.cos(theta) if odd else 1.0
    total = 0.0
    for k in range(odd, degrees - 1, 2):
        total += term
        term *= cos2 * (k + 1) / (k + 2)
    if odd:
        return 2 / math.pi * (theta + math.sin(theta) * total)
    return math.sin(theta) * total


def wilson(successes: int, total: int, *, level: float = 0.95) -> Interval:
    """Wilson's interval of a proportion, such as the accuracy on a test set of `total` examples.

    ``(p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n)``: within 0..1, and sensible at 0 and 1.

    Reference: Wilson 1927, doi:10.1080/01621459.1927.10502953.

    >>> print(wilson(90, 100))
    0.9 [0.8256, 0.9448] (95%, n = 100)
    """
    check_level(level)
    if not 0 <= successes <= total or total < 1:
        raise StatisticsError(f"wilson() needs 0 <= successes <= total and total >= 1, found {successes} of {total}")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p, z2 = successes / total, z * z / total
    centre, scale = (p + z2 / 2) / (1 + z2), 1 / (1 + z2)
    half = scale * math.sqrt(z2 * p * (1 - p) + z2 * z2 / 4)
    return Interval(p, max(0.0, centre - half), min(1.0, centre + half), level, total)


def bootstrap(
    values: Any,
    statistic: Callable[[np.ndarray], float] = np.mean,
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = 10_000,
) -> Interval:
    """The percentile bootstrap interval of `statistic`, from `values` `[n, ...]` drawn anew along the first axis.

    With the few seeds that are usual it is too narrow; the t-interval decides, this one checks its assumption. Of one
    value it is undefined. The same `seed` gives the same interval.

    Reference: Efron 1979, doi:10.1214/aos/1176344552.

    >>> print(bootstrap([1.0, 2.0, 3.0, 4.0], np.median, seed=0))
    2.5 [1, 4] (95%, n = 4)
    """
    array = np.asarray(values, np.float64)
    check_level(level)
    if not array.ndim or not len(array) or resamples < 1:
        raise StatisticsError(f"bootstrap() needs values and resamples, found {array.shape} and {resamples}")
    n, estimate = len(array), float(statistic(array))
    if n == 1:
        return Interval(estimate, math.nan, math.nan, level, n)
    draws = np.random.default_rng(seed).integers(0, n, (resamples, n))
    found = [float(statistic(array[rows])) for rows in draws]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level, n)


def one_a_seed(values: Any, level: float) -> np.ndarray:
    """The values as an array `[n]` in float64; raises where they, or the level, make no interval."""
    array = np.asarray(values, np.float64)
    check_level(level)
    if array.ndim != 1 or not len(array):
        raise StatisticsError(f"one value a seed is needed, found values of shape {array.shape}")
    return array


def check_level(level: float) -> None:
    """Raise `StatisticsError` unless `level` lies between 0 and 1."""
    if not 0 < level < 1:
        raise StatisticsError(f"a level lies between 0 and 1, such as 0.95; found {level}")
