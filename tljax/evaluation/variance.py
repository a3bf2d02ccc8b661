r"""Where the spread comes from: which examples were labelled, or how training went.

A number that is repeated over draws of the labelled subset and over training seeds has two sources of spread. The
model is linear with random effects, and the estimators are those of the analysis of variance:

.. math:: y_{ij} = \mu + a_i + e_{ij}, \qquad a_i \sim (0, \sigma_a^2), \; e_{ij} \sim (0, \sigma_e^2)

with `i` the subset and `j` the training seed. More seeds a subset shrink the second part of the error of the mean only;
the first shrinks with more subsets. So the unit of an interval is the subset.
"""

import math
from typing import Any, Literal, NamedTuple

import numpy as np

from tljax.evaluation.statistics import Interval, StatisticsError, check_level, t_quantile

Design = Literal["nested", "crossed"]


class Components(NamedTuple):
    """The variance of a number, taken apart; NaN for what cannot be told."""

    interval: Interval
    """Of the mean over all runs, subsets and seeds both taken for draws out of many."""
    subset: float
    """The variance between subsets, without what training adds; 0 where the estimate is below."""
    seed: float
    """The variance between training seeds on one subset; 0 where the estimate is below."""
    rest: float
    """In a crossed design the variance that neither explains; in a nested one it is part of `seed`, and this is 0."""
    design: Design
    subsets: int
    seeds: int
    """How many a subset."""

    @property
    def share(self) -> float:
        """The share of the variance of a single run that the subset makes.

        >>> round(variance_components([[1.0, 1.5], [3.0, 3.5]]).share, 3)
        0.939
        """
        whole = self.subset + self.seed + self.rest
        return self.subset / whole if whole > 0 else math.nan

    def __str__(self) -> str:
        parts = f"s.d. {math.sqrt(self.subset):.3g} between subsets, {math.sqrt(self.seed):.3g} between training seeds"
        rest = f", {math.sqrt(self.rest):.3g} neither" if self.design == "crossed" else ""
        return f"{self.interval.mean:.4g}: {parts}{rest} ({self.subsets} subsets x {self.seeds} seeds)"


def variance_components(values: Any, *, design: Design = "nested", level: float = 0.95) -> Components:
    r"""The variance between subsets, and between training seeds, of `values` `[S, R]`: subset by seed.

    With the mean squares of the analysis of variance, S subsets and R seeds,

    * nested (every run has a seed of its own): ``seed = MS_within``, ``subset = (MS_between - MS_within) / R``;
      the interval of the mean is Student's over the means of the subsets, with S - 1 degrees of freedom.
    * crossed (the same R seeds on every subset): ``rest = MS_rest``, ``subset = (MS_subset - MS_rest) / R``,
      ``seed = (MS_seed - MS_rest) / S``; the variance of the mean is ``(MS_subset + MS_seed - MS_rest) / S R``, with
      Satterthwaite's degrees of freedom, rounded down.

    Estimates below 0, which chance makes, are 0. With one seed a subset the two cannot be told apart, and with one
    subset nothing is known of the spread between them: what is unknown is NaN, as is everything where a value is.

    Args:
        values: one number a run, `[S, R]`.
        design: `"nested"`, or `"crossed"` where column j is the same training seed in every row.
        level: of the interval.

    Raises:
        StatisticsError: values that are no table, an unknown design, or a level outside (0, 1).

    Reference: Searle, Casella and McCulloch 1992, Variance Components, chapters 3 and 4; Satterthwaite 1946,
    doi:10.2307/3002019; why to tell them apart: Bouthillier et al. 2021, arXiv:2103.03098.

    >>> found = variance_components([[0.90, 0.92], [0.84, 0.82], [0.95, 0.95]])
    >>> print(found)
    0.8967: s.d. 0.0606 between subsets, 0.0115 between training seeds (3 subsets x 2 seeds)
    """
    table = np.asarray(values, np.float64)
    check_level(level)
    if table.ndim != 2 or not table.size:
        raise StatisticsError(f"variance_components() needs values [subsets, seeds]; found the shape {table.shape}")
    if design not in ("nested", "crossed"):
        raise StatisticsError(f"design must be 'nested' or 'crossed', found {design!r}")
    with np.errstate(invalid="ignore", divide="ignore"):
        return (_nested if design == "nested" else _crossed)(table, level)


def _nested(table: np.ndarray, level: float) -> Components:
    s, r = table.shape
    means, mean = table.mean(1), float(table.mean())
    between = r * float(means.var(ddof=1)) if s > 1 else math.nan
    within = float(table.var(axis=1, ddof=1).mean()) if r > 1 else math.nan
    return Components(
        _around(mean, between / (s * r), s - 1, level, s),
        _above_zero((between - within) / r),
        within,
        0.0,
        "nested",
        s,
        r,
    )


def _crossed(table: np.ndarray, level: float) -> Components:
    s, r = table.shape
    mean = float(table.mean())
    if s == 1 or r == 1:
        nan = math.nan
        return Components(Interval(mean, nan, nan, level, s), nan, nan, nan, "crossed", s, r)
    rows, columns = table.mean(1), table.mean(0)
    residual = table - rows[:, None] - columns[None] + mean
    a, b = r * float(rows.var(ddof=1)), s * float(columns.var(ddof=1))
    e = float((residual**2).sum()) / ((s - 1) * (r - 1))
    whole = max(a + b - e, a, b)  # never less than what one of the two alone would give
    parts = a * a / (s - 1) + b * b / (r - 1) + e * e / ((s - 1) * (r - 1))
    degrees = max(1, int(whole * whole / parts)) if parts > 0 else max(s, r) - 1
    return Components(
        _around(mean, whole / (s * r), degrees, level, s),
        _above_zero((a - e) / r),
        _above_zero((b - e) / s),
        e,
        "crossed",
        s,
        r,
    )


def _around(mean: float, variance: float, degrees: int, level: float, n: int) -> Interval:
    if degrees < 1 or not math.isfinite(variance):
        return Interval(mean, math.nan, math.nan, level, n)
    half = t_quantile(level, degrees) * math.sqrt(variance)
    return Interval(mean, mean - half, mean + half, level, n)


def _above_zero(variance: float) -> float:
    return variance if math.isnan(variance) else max(0.0, variance)
