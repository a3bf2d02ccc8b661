"""The ranking as a whole: who wins, how surely, and what bad input is told."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
from scipy import stats

from tljax.selection import Candidate, SelectionError, rank_features
from tljax.selection.answer import answer
from tljax.selection.candidates import checked
from tljax.selection.estimate import estimate
from tljax.selection.fusion import posterior, prior_votes

N, CLASSES = 32, 4
LABELS = np.arange(CLASSES).repeat(N // CLASSES)


def features(signal: float, d: int = 8, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(N, d)) + signal * np.eye(CLASSES, d)[LABELS]).astype(np.float32)


@pytest.fixture(scope="module")
def found():
    good = features(3.0)
    given = {"poor": features(0.3, seed=1), "good": good, "wide": np.pad(good, ((0, 0), (0, 60)))}
    return rank_features(given, [f"class {c}" for c in LABELS], subsets=14)


def test_the_better_features_win(found) -> None:
    assert found.standings[-1].name == "poor"
    assert {row.name for row in found.standings} == {"poor", "good", "wide"}
    p = {row.name: row.p_best for row in found.standings}
    assert sum(p.values()) == pytest.approx(1)
    assert p["poor"] < 0.05
    assert found.best == min(found.standings, key=lambda row: row.regret).name
    for row in found.standings:
        assert 0 <= row.low <= row.accuracy <= row.high <= 1
        assert np.isnan(row.votes["leep"])


def test_who_cannot_win_leaves_early(found) -> None:
    rows = {row.name: row for row in found.standings}
    assert rows["poor"].dropped
    assert (rows["poor"].subsets, rows["good"].subsets) == (10, 14)
    assert "Dropped early, with P(best) under 5 %: poor" in str(found)
    assert "10 dropped" in found.table()
    assert "LEEP" not in found.table()


def test_the_answer_is_json(found) -> None:
    again = json.loads(json.dumps(found.as_dict()))
    assert again["best"] == found.best
    assert again["standings"][0]["votes"]["leep"] is None
    assert again["verdict"] == found.verdict


def test_names_and_order_do_not_matter() -> None:
    given = {"a": features(1.0), "b": features(1.5, seed=1)}
    turned = dict(reversed(given.items()))
    first, second = (rank_features(g, LABELS, subsets=4, racing=False) for g in (given, turned))
    for row in first.standings:
        other = next(r for r in second.standings if r.name == row.name)
        assert other.accuracy == pytest.approx(row.accuracy, abs=0.01)
        assert other.p_best == pytest.approx(row.p_best, abs=0.02)


def test_equal_candidates_share_the_probability_and_are_undecided() -> None:
    same = features(1.0)
    found = rank_features({"a": same, "b": same}, LABELS, subsets=4)
    assert [row.p_best for row in found.standings] == pytest.approx([0.5, 0.5], abs=0.02)
    assert not found.decided
    assert found.more_labels is None
    assert found.verdict.startswith("Undecided between ")
    assert "fine-tuning them would" in found.verdict


def test_posterior_against_the_closed_form_of_two() -> None:
    level, noise, error = np.array([0.0, 0.5]), np.array([[0.04, 0.01], [0.01, 0.09]]), 0.2
    deviation = np.sqrt(0.04 + 0.09 - 0.02 + 2 * error**2)
    from statistics import NormalDist

    told = posterior(level, noise, error=error)
    assert told.p_best[1] == pytest.approx(NormalDist().cdf(0.5 / deviation), abs=0.01)


def test_priors_pull_less_where_the_examples_say_more() -> None:
    x = np.zeros((2, 1))
    votes = prior_votes({"a": Candidate(x, prior=0.9), "b": Candidate(x, prior=0.5), "c": Candidate(x)})
    assert votes[0].difference[2] == 0
    few, many = (posterior(np.zeros(3), np.eye(3) * noise, votes, error=0.1) for noise in (1.0, 0.001))
    assert few.p_best[0] > many.p_best[0] > 1 / 3
    assert few.p_best[1] < few.p_best[2]


def test_what_fine_tuning_reached_takes_the_place_of_the_estimate() -> None:
    given, y, _ = checked({"a": features(1.0), "b": features(1.0, seed=1)}, LABELS)
    found = estimate(given, y, subsets=4, seed=0, racing=True)
    ranking = answer(found, measured={"a": (0.95, 500), "b": (0.80, 500)})
    assert ranking.best == "a"
    assert ranking.decided
    assert [row.finetuned for row in ranking.standings] == [0.95, 0.80]
    assert ranking.standings[0].accuracy == pytest.approx(0.95, abs=0.01)
    assert "fine-tuned %" in ranking.table()


@pytest.mark.parametrize(("right", "of"), [(20, 40), (37, 40), (900, 1000), (4, 4), (0, 4), (40, 40), (1000, 1000)])
def test_what_was_reached_is_known_about_as_well_as_a_proportion(right: int, of: int) -> None:
    given, y, _ = checked({"a": features(1.0)}, LABELS)
    found = estimate(given, y, subsets=4, seed=0, racing=True)
    row = answer(found, measured={"a": (right / of, of)}).standings[0]
    jeffreys = stats.beta(right + 0.5, of - right + 0.5)
    low, high = jeffreys.interval(0.9)
    if 0 < right < of:
        assert [row.accuracy, row.low, row.high] == pytest.approx([jeffreys.mean(), low, high], abs=0.025)
    else:  # all right, or all wrong: more careful, and no more than a few times as wide
        assert high - low < row.high - row.low < 2.6 * (high - low)
        assert row.accuracy == pytest.approx(jeffreys.mean(), abs=0.3 / np.sqrt(of))


def test_of_candidates_that_were_fine_tuned_alike_more_labels_are_no_advice() -> None:
    given, y, _ = checked({"a": features(1.0), "b": features(1.0, seed=1)}, LABELS)
    found = estimate(given, y, subsets=4, seed=0, racing=True)
    ranking = answer(found, measured={"a": (1.0, 4), "b": (1.0, 4)})
    assert ranking.more_labels is None
    assert "more examples to judge their fine-tuning by would tell" in ranking.verdict


def test_a_gap_that_labels_could_close_says_how_many() -> None:
    given, y, _ = checked({"a": features(1.0), "b": features(1.0, seed=1)}, LABELS)
    found = estimate(given, y, subsets=4, seed=0, racing=True)
    apart = dataclasses.replace(found, level=np.array([0.0, 0.6]), noise=np.eye(2) * 0.6)
    ranking = answer(apart)
    assert not ranking.decided
    assert ranking.more_labels is not None
    assert f"about {ranking.more_labels} more labels would tell the first two apart" in ranking.verdict
    n = N + ranking.more_labels
    told = posterior(apart.level, apart.noise * N / n).p_best.max()
    assert told == pytest.approx(0.8, abs=0.05)


def test_labels_take_nothing_from_what_fine_tuning_was_judged_on() -> None:
    given, y, _ = checked({"a": features(1.0), "b": features(1.0, seed=1)}, LABELS)
    found = dataclasses.replace(
        estimate(given, y, subsets=4, seed=0, racing=True), level=np.array([0.0, 0.6]), noise=np.eye(2) * 0.6
    )
    few, many = (answer(found, measured={"a": (0.75, examples)}) for examples in (4, 400))
    assert not few.decided
    assert few.more_labels is None
    assert many.more_labels is not None
    assert many.more_labels > 0


@pytest.mark.slow
def test_one_example_a_class_falls_back_on_what_was_known() -> None:
    x, y = features(2.0)[::8], LABELS[::8]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = rank_features({"a": Candidate(x, prior=0.9), "b": Candidate(x[:, ::-1], prior=0.4)}, y, subsets=3)
    assert found.best == "a"
    assert any("none can be left out" in note for note in found.notes)
    assert np.isnan(found.standings[0].votes["ridge"])


@pytest.mark.slow
def test_two_examples_a_class_have_noise_too() -> None:
    rows = np.flatnonzero(np.arange(N) % 8 < 2)
    found = rank_features({"a": features(2.0)[rows], "b": features(1.0)[rows]}, LABELS[rows], subsets=3)
    assert all(row.deviation > 0.01 for row in found.standings)


def test_one_candidate_alone() -> None:
    found = rank_features({"only": features(1.0)}, LABELS, subsets=3)
    assert found.verdict == "only is the only candidate."
    assert found.standings[0].p_best == 1


@pytest.mark.parametrize(
    ("candidates", "labels", "message"),
    [
        ({}, LABELS, "no candidates"),
        ({"a": features(1.0)[:-1]}, LABELS, r"features of candidate 'a' should be \[32, D\].*\(31, 8\)"),
        ({"a": features(1.0) * np.nan}, LABELS, "features of candidate 'a' hold NaN or infinity, in 32 of 32"),
        ({"a": features(1.0)}, np.zeros(N, int), "two classes or more; all 32 labels are"),
        ({"a": features(1.0)}, LABELS + 0.5, "numbers with a fraction"),
        ({"a": Candidate(features(1.0), np.full((N, 2), 0.4))}, LABELS, "probabilities of candidate 'a'.*sum to 1"),
        ({"a": Candidate(features(1.0), prior=80)}, LABELS, "prior of candidate 'a' is 80"),
        ({"a": Candidate(features(1.0), parameters=0)}, LABELS, "parameters of candidate 'a' is 0"),
    ],
)
def test_bad_input_is_named(candidates, labels, message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        rank_features(candidates, labels)


def test_subsets_are_two_or_more() -> None:
    with pytest.raises(SelectionError, match="subsets is 1"):
        rank_features({"a": features(1.0)}, LABELS, subsets=1)


@pytest.mark.slow
def test_more_labels_than_are_needed_are_sampled_and_told(monkeypatch) -> None:
    monkeypatch.setattr("tljax.selection.estimate.MOST", 16)
    given = {"a": features(3.0), "b": features(1.0)}
    found = rank_features(given, LABELS, subsets=3)
    assert found.labels == 16
    assert any("Of 32 labels 16 were used" in note for note in found.notes)
