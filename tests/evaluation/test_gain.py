"""The verdict on transfer."""

import math

import numpy as np
import pytest

from tljax.evaluation import StatisticsError, negative_transfer, paired_gain, verdict
from tljax.evaluation.gain import MOST_SEEDS, seeds_to_decide
from tljax.evaluation.statistics import interval


def of(differences, **options):
    return verdict(paired_gain(differences, np.zeros(len(differences))), **options)


def test_helped_says_the_numbers():
    found = verdict(paired_gain([0.91, 0.94, 0.92, 0.90], [0.85, 0.90, 0.86, 0.87]))
    assert found.outcome == "helped"
    assert found.more_seeds is None
    # Mean 4.75, s 1.5: half-width 3.182 * 1.5 / 2 = 2.387.
    assert str(found) == (
        "Transfer helped: accuracy is 4.8 points better than with training from scratch "
        "(95 % interval of the gain 2.4 to 7.1, 4 paired seeds)."
    )


def test_hurt_is_negative_transfer():
    found = of([-0.30, -0.31, -0.29], baseline="k-NN")
    assert found.outcome == "hurt"
    assert "hurt (negative transfer): accuracy is 30.0 points worse than with k-NN" in found.sentence
    assert "−32.5 to −27.5" in found.sentence


def test_equal_differences_decide_only_where_the_values_are_fine_enough():
    few, many = (paired_gain([0.5, 0.5], [0.4, 0.4], resolution=1 / n) for n in (10, 10_000))
    assert (verdict(few).outcome, verdict(many).outcome) == ("undecided", "helped")
    assert verdict(few).more_seeds == 2  # of three the half-width would be 10.1 points
    assert negative_transfer(paired_gain([0.4, 0.4], [0.5, 0.5], resolution=0.1)) == "weak"
    wide = [0.1, 0.3, -0.2]
    assert paired_gain(wide, [0.0] * 3, resolution=0.1) == paired_gain(wide, [0.0] * 3)


@pytest.mark.slow
def test_two_seeds_of_few_examples_are_seldom_decided_by_chance():
    """Two methods of the same accuracy: decided in 5 % of all cases at the most, where the interval is true."""
    rng = np.random.default_rng(0)
    pairs = rng.binomial(10, 0.6, (1000, 2, 2)) / 10
    found = [verdict(paired_gain(a, b, resolution=0.1, resamples=10)).outcome for a, b in pairs]
    assert np.mean([outcome != "undecided" for outcome in found]) < 0.05


def test_undecided_says_how_many_seeds_would_decide():
    found = of([0.02, -0.01, 0.03])
    assert found.outcome == "undecided"
    assert "−3.8 to 6.5" in found.sentence
    assert f"about {found.more_seeds} more seeds would decide" in found.sentence


@pytest.mark.parametrize(
    "differences",
    [[0.1, 0.3], [0.2, 0.0, 0.1], [0.02, -0.01, 0.03], [0.3, 0.1, 0.2, -0.1], [-1.0, 0.4, -0.2, -0.9, 0.1]],
)
def test_that_many_seeds_would_decide_and_one_fewer_would_not(differences):
    gain = paired_gain(differences, np.zeros(len(differences)))
    more = seeds_to_decide(gain)

    def excludes_zero(n):
        """n values of the same mean and spread."""
        spread = np.std(differences, ddof=1)
        same = np.random.default_rng(0).normal(size=n)
        same = (same - same.mean()) / same.std(ddof=1) * spread + np.mean(differences)
        found = interval(same)
        return found.low > 0 or found.high < 0

    assert excludes_zero(len(differences) + more)
    assert more == 1 or not excludes_zero(len(differences) + more - 1)


def test_no_number_of_seeds():
    assert of([0.1, -0.1]).more_seeds is None
    assert "no number of seeds" in of([0.1, -0.1]).sentence
    tiny = of([1.0, -1.0, 1e-6])
    assert tiny.more_seeds is None
    assert f"even {MOST_SEEDS} more seeds would not decide" in tiny.sentence


def test_one_seed_is_undecided():
    found = of([0.5])
    assert found.outcome == "undecided"
    assert "one seed has no interval" in found.sentence
    assert math.isnan(found.gain.interval.low)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_run_that_diverged_is_undecided(bad):
    found = verdict(paired_gain([0.5, bad, 0.4], [0.1, bad, 0.2]), metric="nll")
    assert found.outcome == "undecided"
    assert "nll is no finite number" in found.sentence


def test_lower_is_better_turns_the_sign():
    gain = paired_gain([0.2, 0.3, 0.25], [0.5, 0.62, 0.54], higher_is_better=False)
    assert gain.mean == pytest.approx(0.3033, abs=1e-4)
    found = verdict(gain, metric="nll")
    assert found.outcome == "helped"
    assert "nll is 0.303 better" in found.sentence
    assert "points" not in found.sentence


def test_identical_runs_are_undecided():
    found = of([0.0, 0.0, 0.0])
    assert found.outcome == "undecided"
    assert "on average the same" in found.sentence


def test_pairing_cancels_what_both_share():
    rng = np.random.default_rng(0)
    shared = rng.normal(0.7, 0.1, size=5)
    a, b = shared + 0.02 + rng.normal(0, 0.002, 5), shared
    gain = paired_gain(a, b)
    assert verdict(gain).outcome == "helped"
    assert gain.interval.half_width < interval(a).half_width / 10
    np.testing.assert_allclose(gain.differences, a - b)
    assert gain.bootstrap.low < gain.mean < gain.bootstrap.high
    assert gain.bootstrap.half_width < gain.interval.half_width


def test_wrong_decisions_are_as_rare_as_the_level_says():
    rng = np.random.default_rng(1)
    outcomes = [verdict(paired_gain(rng.normal(size=5), rng.normal(size=5), resamples=1)).outcome for _ in range(2000)]
    assert outcomes.count("undecided") / 2000 == pytest.approx(0.95, abs=0.015)


def test_unpaired_values_raise():
    with pytest.raises(StatisticsError, match="3 and 2"):
        paired_gain([1.0, 2.0, 3.0], [1.0, 2.0])
