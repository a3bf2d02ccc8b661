"""The evaluation of the zoo, on a zoo made up here; the page shows the kept result."""

import importlib.util
import json
import pathlib
import sys

import numpy as np
import pytest
from scipy.stats import kendalltau

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks" / "zoo"


@pytest.fixture(scope="module")
def evaluate():
    spec = importlib.util.spec_from_file_location("zoo_evaluate", FOLDER / "evaluate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made_up(evaluate, draws=4):
    """Three tasks, two numbers of shots, two seeds, four candidates; ours ranks as the truth does, LogME against it."""
    rng = np.random.default_rng(0)
    truth = (
        rng.permuted(np.tile([0.2, 0.5, 0.6, 0.9], (3, 2, 1)), axis=-1)[:, :, None] + np.array([-0.01, 0.01])[:, None]
    )
    mean = np.repeat(truth.mean(2)[:, :, None], draws, axis=2)
    scores = {evaluate.OURS: mean} | dict.fromkeys(evaluate.ANCHORS, -mean)
    return evaluate.Zoo(tuple("abcd"), ("r", "s", "t"), (5, 20), truth, scores, np.where(mean > 0.8, 0.7, 0.1))


def test_a_right_and_a_wrong_method(evaluate) -> None:
    found = evaluate.report(made_up(evaluate))
    right, wrong = found["methods"][evaluate.OURS], found["methods"][evaluate.ANCHORS[0]]
    assert right["regret"] == 0
    assert right["tau"] == pytest.approx(1)
    assert wrong["regret"] == pytest.approx(70)
    assert wrong["tau"] == pytest.approx(-1)
    assert found["methods"]["random"]["regret"] == pytest.approx(35)
    assert found["ours beside"][evaluate.ANCHORS[1]]["ratio of mean regrets"] == 0
    assert found["ground truth"]["regret of one run of every candidate"] == 0
    told = found["calibration"]
    assert told["mean stated"] == pytest.approx(0.7)
    assert told["best"] == 1
    assert told["Brier"] == pytest.approx(0.3**2 + 3 * 0.1**2)
    assert told["log score"] == pytest.approx(-np.log(0.7), abs=1e-4)


def test_what_has_no_score_stands_last_and_ties_are_shared(evaluate) -> None:
    truth = np.array([0.9, 0.5, 0.1])
    assert evaluate.regret(evaluate.usable(np.array([np.nan, 2.0, -np.inf])), truth) == pytest.approx(40)
    assert evaluate.regret(np.array([1.0, 1.0, 0.0]), truth) == pytest.approx(20)
    assert evaluate.weighted_tau(np.zeros(3), truth) == 0
    assert (evaluate.usable(np.full(3, np.nan)) == 0).all()


def test_weighted_tau_of_equal_weights_is_kendalls(evaluate) -> None:
    scores, truth = np.random.default_rng(1).normal(size=(2, 9))
    from scipy.stats import weightedtau

    plain = weightedtau(scores, truth, weigher=lambda rank: 1.0, additive=False).statistic
    assert plain == pytest.approx(kendalltau(scores, truth).statistic)
    assert evaluate.weighted_tau(scores, scores) == pytest.approx(1)


def test_only_what_all_candidates_have_is_read(evaluate, tmp_path) -> None:
    axes = {"candidates": np.array(["a", "b"]), "tasks": np.array(["r", "s"]), "shots": np.array([5, 20])}
    np.savez(tmp_path / "scores.npz", **axes, LEEP=np.arange(16.0).reshape(2, 2, 2, 2))
    (tmp_path / "truth").mkdir()
    cell = {"accuracy": [0.5, 0.7]}
    (tmp_path / "truth" / "a.json").write_text(json.dumps({"r/5": cell, "s/5": cell}))
    (tmp_path / "truth" / "b.json").write_text(json.dumps({"s/5": cell, "r/20": cell}))
    zoo, cells = evaluate.read(tmp_path, tmp_path / "scores.npz", tmp_path / "none.json")
    assert zoo.tasks == ("s",)
    assert zoo.truth.shape == (1, 2, 2, 2)
    assert evaluate.known(zoo).tolist() == [[True, False]]
    assert zoo.scores["LEEP"][0, 0].ravel().tolist() == [8, 9, 10, 11]
    assert evaluate.by_draw(zoo, "LEEP", evaluate.regret).tolist()[0][0] == 0
    assert cells == {"a": {"s/5": cell}, "b": {"s/5": cell}}


@pytest.mark.slow
def test_methods_score_a_case(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    from methods import METHODS, Case

    rng = np.random.default_rng(0)
    labels = np.arange(3).repeat(8)
    features = (np.eye(3)[labels] + 0.3 * rng.normal(size=(24, 3))).astype(np.float32)
    theta = np.full((24, 2), 0.5, np.float32)
    facts = {"parameters": 100, "upstream": 0.9}
    found = {name: method(Case(features, labels, theta, facts)) for name, method in METHODS.items()}
    assert np.isfinite(list(found.values())).all()
    assert found["ridge"] > 0.8
    assert found["size"] == pytest.approx(np.log(100))
    assert METHODS["LEEP"](Case(features, labels, None, facts)) == -np.inf
    sys.modules.pop("methods")


def test_the_page_shows_the_kept_table(evaluate) -> None:
    kept = json.loads((ROOT / "benchmarks" / "results" / "zoo.json").read_text())
    assert evaluate.table(kept["methods"]) in (ROOT / "docs" / "zoo.md").read_text()
