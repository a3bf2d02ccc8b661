"""Variance components, against hand-worked mean squares and simulation."""

import math

import numpy as np
import pytest

from tljax.evaluation import StatisticsError, interval, variance_components

TABLE = np.array([[3.0, 5.0, 4.0], [8.0, 6.0, 10.0]])


def test_nested_by_hand():
    found = variance_components(TABLE)
    within = ((1 + 1 + 0) + (0 + 4 + 4)) / 4
    between = 3 * ((4 - 6) ** 2 + (8 - 6) ** 2)
    assert found.seed == pytest.approx(within)
    assert found.subset == pytest.approx((between - within) / 3)
    assert found.interval.mean == 6
    own = interval(TABLE.mean(1))
    assert (found.interval.low, found.interval.high) == pytest.approx((own.low, own.high))
    assert found.share == pytest.approx(found.subset / (found.subset + found.seed))


def test_crossed_by_hand():
    found = variance_components(TABLE, design="crossed")
    rows, columns = TABLE.mean(1), TABLE.mean(0)
    rest = TABLE - rows[:, None] - columns + TABLE.mean()
    e = (rest**2).sum() / 2
    a, b = 3 * rows.var(ddof=1), 2 * columns.var(ddof=1)
    assert found.rest == pytest.approx(e)
    assert found.subset == pytest.approx((a - e) / 3)
    assert found.seed == pytest.approx(max(0.0, (b - e) / 2))


@pytest.mark.parametrize("design", ["nested", "crossed"])
def test_estimates_are_right_on_average(design):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(3000):
        table = 2.0 * rng.normal(size=(8, 1)) + 0.5 * rng.normal(size=(8, 4))
        if design == "crossed":
            table = table + 1.5 * rng.normal(size=(1, 4))
        one = variance_components(table, design=design)
        found.append((one.subset, one.seed, one.rest))
    mean = np.mean(found, axis=0)
    expected = (4.0, 0.25, 0.0) if design == "nested" else (4.0, 2.25, 0.25)
    np.testing.assert_allclose(mean, expected, rtol=0.06)


@pytest.mark.parametrize("design", ["nested", "crossed"])
def test_intervals_cover_the_truth(design):
    rng, hits = np.random.default_rng(1), 0
    for _ in range(2000):
        table = rng.normal(size=(5, 1)) + rng.normal(size=(5, 4)) + (design == "crossed") * rng.normal(size=(1, 4))
        found = variance_components(table, design=design).interval
        hits += found.low <= 0 <= found.high
    assert 0.92 < hits / 2000 <= 1.0


def test_one_value_shifted_and_scaled():
    one, two = variance_components(TABLE), variance_components(-2 * TABLE + 5)
    assert (two.subset, two.seed) == pytest.approx((4 * one.subset, 4 * one.seed))


def test_chance_makes_no_negative_variance():
    assert variance_components([[0.0, 1.0], [1.0, 0.0]]).subset == 0


def test_what_cannot_be_told_is_nan():
    one_seed = variance_components([[0.9], [0.8], [0.7]])
    assert math.isnan(one_seed.seed)
    assert math.isnan(one_seed.subset)
    assert one_seed.interval.low < 0.8 < one_seed.interval.high
    one_subset = variance_components([[0.9, 0.8]])
    assert one_subset.seed == pytest.approx(0.005)
    assert math.isnan(one_subset.subset)
    assert math.isnan(one_subset.interval.low)
    assert math.isnan(variance_components([[0.9], [0.8]], design="crossed").subset)
    spoilt = variance_components([[0.9, math.nan], [0.8, 0.7]])
    assert math.isnan(spoilt.interval.mean)
    assert math.isnan(spoilt.share)


@pytest.mark.parametrize(("values", "options"), [([1.0], {}), ([[]], {}), ([[1.0]], {"design": "latin"})])
def test_bad_input(values, options):
    with pytest.raises(StatisticsError):
        variance_components(values, **options)
    with pytest.raises(StatisticsError):
        variance_components([[1.0]], level=1.0)
