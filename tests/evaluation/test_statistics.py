"""Intervals, against printed tables, SciPy and simulation."""

import math

import numpy as np
import pytest

from tljax.evaluation import StatisticsError, bootstrap, interval, wilson
from tljax.evaluation.statistics import t_quantile

# Two-sided quantiles of Student's t, as printed in textbooks.
T_TABLE = {
    1: (6.314, 12.706, 63.657),
    2: (2.920, 4.303, 9.925),
    3: (2.353, 3.182, 5.841),
    4: (2.132, 2.776, 4.604),
    5: (2.015, 2.571, 4.032),
    9: (1.833, 2.262, 3.250),
    19: (1.729, 2.093, 2.861),
    30: (1.697, 2.042, 2.750),
    120: (1.658, 1.980, 2.617),
    10**9: (1.645, 1.960, 2.576),
}


@pytest.mark.parametrize("degrees", T_TABLE)
def test_t_is_the_printed_tables(degrees):
    assert [round(t_quantile(level, degrees), 3) for level in (0.90, 0.95, 0.99)] == list(T_TABLE[degrees])


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95, 0.999])
def test_t_is_scipys(level):
    stats = pytest.importorskip("scipy.stats")
    for degrees in [*range(1, 40), 99, 500, 999, 1000, 1001, 1002, 10**5]:
        assert t_quantile(level, degrees) == pytest.approx(stats.t.ppf(0.5 + level / 2, degrees), rel=1e-7)


def test_interval_by_hand():
    found = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == 3.0
    assert found.half_width == pytest.approx(2.776445 * math.sqrt(2.5) / math.sqrt(5), rel=1e-6)
    assert (found.low + found.high) / 2 == pytest.approx(3.0)
    assert (found.n, found.level) == (5, 0.95)
    assert interval([2.0, 2.0]).half_width == 0.0


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(4000):
        found = interval(rng.normal(1.0, 2.0, size=3), level=0.9)
        hits += found.low <= 1.0 <= found.high
    assert hits / 4000 == pytest.approx(0.9, abs=0.015)


def test_one_value_has_no_interval():
    found = interval([0.9])
    assert found.mean == 0.9
    assert math.isnan(found.low)
    assert math.isnan(found.half_width)
    assert str(found) == "0.9 (no interval, n = 1)"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_values_make_no_interval(bad):
    found = interval([0.9, bad, 0.8])
    assert not math.isfinite(found.mean)
    assert math.isnan(found.low)


def test_wilson_is_the_published_values():
    # Newcombe 1998, table I, method 3, doi:10.1002/(SICI)1097-0258(19980430)17:8<857
    for successes, total, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)]:
        found = wilson(successes, total)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    assert wilson(29, 29).high == 1.0
    assert round(wilson(1, 29).low, 4) == 0.0061


def test_bootstrap_repeats_and_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(1).normal(size=30)
    found = bootstrap(values, seed=3)
    assert found == bootstrap(values, seed=3)
    assert found != bootstrap(values, seed=4)
    other = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(5)).confidence_interval
    assert found.low == pytest.approx(other.low, abs=0.03)
    assert found.high == pytest.approx(other.high, abs=0.03)
    assert found.mean == pytest.approx(values.mean())


def test_bootstrap_of_rows_and_of_one():
    rows = np.random.default_rng(1).normal(size=(12, 2))
    rows[:, 1] += 2 * rows[:, 0]
    found = bootstrap(rows, lambda a: np.corrcoef(a.T)[0, 1], seed=0, resamples=500)
    assert found.low < found.mean < found.high <= 1.0
    assert math.isnan(bootstrap([1.0], seed=0).low)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: interval([]),
        lambda: interval([[1.0, 2.0]]),
        lambda: interval([1.0], level=95),
        lambda: bootstrap([], seed=0),
        lambda: bootstrap([1.0, 2.0], seed=0, level=0),
        lambda: wilson(3, 2),
        lambda: wilson(0, 0),
    ],
)
def test_what_makes_no_interval_raises(wrong):
    with pytest.raises(StatisticsError, match="found"):
        wrong()
