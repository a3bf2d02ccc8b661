"""What the report computes itself: pooled confusion, recalls, carried curves, bold, tones and written numbers."""

import math

import numpy as np
import pytest
from test_report_fakes import fake_results

from tljax.evaluation.report import tables
from tljax.evaluation.report.captions import curves_picture
from tljax.evaluation.report.numbers import metric, scale
from tljax.evaluation.report.results import carry_forward, confusion, curves, mean, recalls


@pytest.fixture(scope="module")
def results():
    return fake_results()


def set_mean(results, method, key, value):
    for entry in results["summary"]:
        if entry["method"] == method and entry["shots"] == max(results["shots"]):
            entry["metrics"][key]["mean"] = value


def column(table, head):
    return [row[table.head.index(head)] for row in table.rows]


def test_confusion_is_summed_over_the_seeds_of_the_most_shots(results):
    expected = np.zeros((5, 5), int)
    for cell in results["cells"]:
        if cell["method"] == "full" and cell["shots"] == 10:
            expected += np.asarray(cell["confusion"])
    np.testing.assert_array_equal(confusion(results, "full"), expected)
    assert confusion(results, "unknown") is None


def test_recall_is_the_mean_over_seeds_and_agrees_with_scikit_learn(results):
    sklearn = pytest.importorskip("sklearn.metrics")
    each = []
    for cell in results["cells"]:
        if cell["method"] == "scratch" and cell["shots"] == 10:
            counts = np.asarray(cell["confusion"])
            true, predicted = np.indices(counts.shape).reshape(2, -1)
            weight = counts.ravel()
            each.append(sklearn.recall_score(true, predicted, sample_weight=weight, average=None))
    np.testing.assert_allclose(recalls(results, "scratch"), np.mean(each, axis=0), rtol=1e-12)


def test_a_class_without_test_examples_has_no_recall():
    results = fake_results(shots=(10,), seeds=2)
    for cell in results["cells"]:
        cell["confusion"][1] = [0] * 5
    assert [value is None for value in recalls(results, "full")] == [False, True, False, False, False]
    assert [cell.text for cell in tables.recall_table(results).rows[1]][1:] == ["–", "–", "–"]


def test_beyond_forty_classes_the_recalls_that_differ_most_are_listed():
    results = fake_results(classes=tuple(f"class {i}" for i in range(50)), shots=(10,), seeds=2)
    table = tables.recall_table(results)
    new, old = np.asarray(recalls(results, "full")), np.asarray(recalls(results, "scratch"))
    gaps = np.abs(new - old)
    shown = [int(row[0].text.split()[1]) for row in table.rows]
    assert len(shown) == 40
    assert shown == sorted(shown)
    assert gaps[shown].min() >= np.delete(gaps, shown).max()


def test_curves_carry_the_last_value_forward_and_count_the_stopped():
    values, stopped = carry_forward([[0.1, None, None], [0.2, 0.3, 0.4], [None, 0.5, math.nan], [None, None, None]])
    np.testing.assert_array_equal(values, [[0.1, 0.1, 0.1], [0.2, 0.3, 0.4], [math.nan, 0.5, 0.5]])
    assert stopped == 2


def test_the_curves_are_those_of_the_most_shots_and_the_caption_counts_stopped_runs(results):
    found = curves(results, "accuracy")
    assert [curve.method for curve in found] == ["full", "scratch", "linear-probe"]
    raw = next(c for c in results["curves"] if c["method"] == "scratch" and c["shots"] == 10)["accuracy"]
    np.testing.assert_array_equal(found[1].values[1], raw[1])
    assert "6 of 15 runs stopped early" in curves_picture(results)[0].caption
    assert curves_picture(results | {"curves": []}) == []


def test_the_best_is_bold_by_the_direction_of_the_metric(results):
    metrics = [metric("accuracy"), metric("nll")]
    table = tables.main_table(results, metrics)
    for found, choose in zip(metrics, (max, min)):
        values = [mean(results, method, 10, found.key)[0] for method in results["methods"]]
        best = values.index(choose(values))
        assert [cell.strong for cell in column(table, found.heading)].index(True) == best


def test_ties_are_bold_together_unless_all_tie():
    results = fake_results(shots=(10,), seeds=2, methods=("full", "scratch", "knn"))
    values = {"full": 0.9001, "scratch": 0.8, "knn": 0.9}
    for method, value in values.items():
        set_mean(results, method, "accuracy", value)
        set_mean(results, method, "ece", 0.05)
        set_mean(results, method, "nll", None if method == "full" else math.nan)
    table = tables.main_table(results, [metric(key) for key in ("accuracy", "ece", "nll")])
    assert [cell.strong for cell in column(table, "accuracy % ↑")] == [True, False, True]
    assert [cell.strong for cell in column(table, "ECE % ↓")] == [False, False, False]
    assert [cell.text for cell in column(table, "NLL ↓")][:1] == ["–"]


def test_a_gain_has_the_tone_of_its_outcome_and_a_sign_that_needs_no_colour():
    helped = tables.gain_cell(fake_results(gain=0.2, shots=(10,)), "full", 10)
    hurt = tables.gain_cell(fake_results(gain=-0.2, shots=(10,)), "full", 10)
    undecided = tables.gain_cell(fake_results(gain=0.0, shots=(10,)), "full", 10)
    assert (helped.tone, hurt.tone, undecided.tone) == ("good", "bad", "")
    assert (helped.text[-1], hurt.text[-1]) == ("▲", "▼")
    assert undecided.text[-1].isdigit()


def test_scratch_and_unknown_methods_have_no_gain(results):
    assert tables.gain_cell(results, "scratch", 10).plain == "–"
    assert tables.gain_cell(results, "no such method", 10).plain == "–"


def test_the_choices_of_the_validation_split_are_counted(results):
    table = tables.choice_table(results)
    rows = {row[0].text: row[1].text for row in table.rows}
    assert rows["k-NN"] == "–"
    rates = [c["rate"] for c in results["cells"] if c["method"] == "full" and c["shots"] == 10]
    assert rows["full fine-tuning"] == ", ".join(f"{rate:g} ({rates.count(rate)}×)" for rate in sorted(set(rates)))


@pytest.mark.parametrize(
    ("key", "values", "value", "shown"),
    [
        ("accuracy", [], 0.8766, "87.7"),
        ("accuracy", [], -0.00001, "0.0"),
        ("nll", [], 0.31449, "0.314"),
        ("nll", [], math.inf, "∞"),
        ("nll", [], math.nan, "–"),
        ("nll", [], None, "–"),
        ("rmse", [123.4, 50.0], 50.04, "50"),
        ("rmse", [12.3], 1.256, "1.3"),
        ("rmse", [0.00234], 0.00234, "0.00234"),
        ("rmse", [1.0e-7], 1.0e-7, "1.00e−07"),
        ("rmse", [0.0], 0.0, "0.000"),
        ("r2", [], -0.25, "−0.250"),
    ],
)
def test_values_are_written_with_the_digits_of_their_metric(key, values, value, shown):
    assert scale(metric(key), values).value(value) == shown


def test_details_are_shown_at_the_shots_of_the_verdict(results):
    moved = results | {"verdict": results["verdict"] | {"shots": 5}}
    values = [mean(results, method, 5, "accuracy")[0] for method in results["methods"]]
    shown = [cell.text for cell in column(tables.main_table(moved, [metric("accuracy")]), "accuracy % ↑")]
    assert shown == [f"{100 * value:.1f}" for value in values]
    assert confusion(moved, "full").tolist() != confusion(results, "full").tolist()
