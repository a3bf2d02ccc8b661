"""What labels are worth, on curves whose answer is known."""

import math

import numpy as np
import pytest

from tljax.evaluation import StatisticsError, label_curve_area, label_factors

K = np.array([1.0, 2.0, 5.0, 10.0, 50.0])


def curve(k, shift=1.0):
    """An accuracy that grows with log k; `shift` times the labels count."""
    return 0.3 + 0.1 * np.log(k * shift)


def test_a_shifted_curve_is_worth_its_shift():
    found = label_factors(K, curve(K, 3.0)[None], curve(K)[None])
    assert [f.relation for f in found] == ["="] * 4 + [">="]
    np.testing.assert_allclose([f.factor for f in found[:4]], 3.0, rtol=1e-12)
    assert found[4].factor == 1.0
    back = label_factors(K, curve(K, 3.0)[None], curve(K)[None], at="baseline")
    assert [f.relation for f in back] == [">=", ">=", "=", "=", "="]
    np.testing.assert_allclose([f.factor for f in back], [1, 2, 3, 3, 3], rtol=1e-12)
    worse = label_factors(K, curve(K)[None], curve(K, 3.0)[None])
    assert [f.relation for f in worse] == ["<=", "<=", "=", "=", "="]
    np.testing.assert_allclose([f.factor for f in worse], [1, 1 / 2, 1 / 3, 1 / 3, 1 / 3], rtol=1e-12)


def test_errors_are_curves_upside_down():
    up = label_factors(K, curve(K, 2.0)[None], curve(K)[None])
    down = label_factors(K, -curve(K, 2.0)[None], -curve(K)[None], higher_is_better=False)
    assert [f[:3] for f in up] == [f[:3] for f in down]


def test_equal_curves_are_worth_one():
    found = label_factors(K, curve(K)[None], curve(K)[None])
    assert [(pytest.approx(f.factor), f.relation) for f in found] == [(1.0, "=")] * 5


def test_a_dip_of_the_baseline_is_passed_over():
    baseline = np.array([[0.2, 0.6, 0.5, 0.7, 0.8]])
    found = label_factors(K, np.full((1, 5), 0.6), baseline)
    assert found[0].factor == 2.0  # it was there with 2 labels already


def test_the_interval_is_the_bootstrap_s_and_covers():
    rng, hits = np.random.default_rng(0), 0
    for trial in range(60):
        noise = 0.02 * rng.normal(size=(12, 5, 2))
        found = label_factors(K, curve(K, 3.0) + noise[..., 0], curve(K) + noise[..., 1], seed=trial, resamples=200)
        assert found[2].low <= found[2].factor <= found[2].high
        hits += found[2].low <= 3.0 <= found[2].high
    assert 48 <= hits <= 60
    again = label_factors(K, curve(K, 3.0) + noise[..., 0], curve(K) + noise[..., 1], seed=trial, resamples=200)
    assert again == found


def test_open_ends_of_an_interval():
    values = np.array([[0.9, 0.9], [0.3, 0.9]])
    found = label_factors([1, 10], values, np.array([[0.4, 0.8], [0.4, 0.8]]))[0]
    assert math.isinf(found.high)
    assert found.low == 0.0
    assert "..." in str(found)


def test_one_seed_and_nan_have_no_interval():
    found = label_factors(K, curve(K, 2.0)[None], curve(K)[None])[1]
    assert math.isnan(found.low)
    assert "no interval, n = 1" in str(found)
    spoilt = label_factors(K, np.full((2, 5), np.nan), np.stack([curve(K)] * 2))
    assert all(math.isnan(f.factor) for f in spoilt)
    assert "no number" in str(spoilt[0])


def test_the_area_is_a_mean_over_doublings():
    values = np.array([[0.1, 0.2, 0.4, 0.5, 0.9], [0.5] * 5])
    x = np.log2(K)
    by_hand = sum((x[i + 1] - x[i]) * (values[0, i] + values[0, i + 1]) / 2 for i in range(4)) / (x[-1] - x[0])
    np.testing.assert_allclose(label_curve_area(K, values), [by_hand, 0.5])
    assert label_curve_area([10], [[0.25]]).tolist() == [0.25]


@pytest.mark.parametrize(
    ("shots", "values"), [([1, 2], [[1.0]]), ([2, 1], [[1.0, 1.0]]), ([0, 1], [[1.0, 1.0]]), ([], [[]]), ([1], [1.0])]
)
def test_bad_input(shots, values):
    with pytest.raises(StatisticsError):
        label_curve_area(shots, values)


def test_unknown_level():
    with pytest.raises(StatisticsError, match="'method' or 'baseline'"):
        label_factors(K, curve(K)[None], curve(K)[None], at="scratch")
