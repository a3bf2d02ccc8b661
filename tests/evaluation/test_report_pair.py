"""Two runs side by side, and the sections on gains, labels, compute and the source, on results that never ran."""

import copy
import re

import numpy as np
import pytest
from test_report_fakes import fake_results

from tljax.evaluation import label_factors
from tljax.evaluation.report import ReportError, render_pair, render_pair_text, render_text
from tljax.evaluation.report.effort import compute_section, spread_section
from tljax.evaluation.report.gains import gains_section, negative_sentence
from tljax.evaluation.report.pairing import Run, common_shots, paired
from tljax.evaluation.report.retained import forgetting_sentence, retained_section
from tljax.evaluation.report.worth import worth_section, worth_sentence


def with_labels(results, salt="pool"):
    """As real runs have it: what tells draws of labels apart."""
    for cell in results["cells"]:
        cell["labels"] = f"{salt}-{cell['shots']}-{cell['seed']}"
    return results


@pytest.fixture(scope="module")
def first():
    return with_labels(fake_results(shots=(1, 10)))


@pytest.fixture(scope="module")
def better(first):
    """The same run, with a known gain on every seed."""
    other = copy.deepcopy(first)
    for cell in other["cells"]:
        cell["test"]["accuracy"] += 0.01 + 0.001 * cell["seed"]
        cell["test"]["nll"] -= 0.1
    for entry in other["summary"]:
        entry["metrics"]["accuracy"]["mean"] += 0.012
    return other


def test_differences_are_paired_by_draw(first, better):
    found = paired(Run("a", first), Run("b", better), ("full", "full"), 10, "accuracy")
    np.testing.assert_allclose(found.gain.differences, [0.010, 0.011, 0.012, 0.013, 0.014], atol=1e-9)
    assert found.unpaired == 0
    losses = paired(Run("a", first), Run("b", better), ("full", "full"), 10, "nll")
    assert losses.gain.mean == pytest.approx(0.1)


def test_other_labels_seeds_and_nan_are_not_paired(first, better):
    other = with_labels(copy.deepcopy(better), salt="another")
    assert paired(Run("a", first), Run("b", other), ("full", "full"), 10, "accuracy").gain is None
    old = copy.deepcopy(better)
    for cell in old["cells"]:
        del cell["labels"]
    assert paired(Run("a", old), Run("b", old), ("full", "full"), 10, "accuracy").gain is None
    fewer = with_labels(fake_results(shots=(1, 10), seeds=2))
    found = paired(Run("a", first), Run("b", fewer), ("full", "full"), 10, "accuracy")
    assert (found.gain.interval.n, found.unpaired) == (2, 3)
    broken = copy.deepcopy(better)
    next(c for c in broken["cells"] if (c["method"], c["shots"], c["seed"]) == ("full", 10, 3))["test"]["accuracy"] = (
        None
    )
    assert paired(Run("a", first), Run("b", broken), ("full", "full"), 10, "accuracy").gain.interval.n == 4


def test_the_text_tells_the_gain_and_what_is_left_out(first, better):
    text = render_pair_text(("one", first), ("two", better))
    assert max(map(len, text.splitlines())) <= 100
    assert re.search(r"full fine-tuning .* \+1\.2 ▲ \[\+1\.0, \+1\.4\] +5", text)
    assert "two (full fine-tuning) helped: accuracy is 1.2 points better than with one" in " ".join(text.split())
    alone = render_pair_text(("one", first), ("two", with_labels(copy.deepcopy(better), "other")))
    assert "no draw of labels that both recorded" in " ".join(alone.split())


@pytest.mark.slow
def test_the_page_holds_both_reports_and_the_settings(first, better):
    pytest.importorskip("matplotlib")
    page = render_pair(("a<b", first), ("two", better), ["steps: was 100, now 200"])
    assert "a<b" not in page
    assert page.count("<h2>What was transferred</h2>") == 2
    assert '<th scope="row">steps</th><td>100</td><td>200</td>' in page
    assert page.count("<figure>") == 1 + 2 * 4
    assert "http" not in page.replace("http-equiv", "")
    assert "None that was recorded" in render_pair(("one", first), ("two", better))


def test_methods_that_differ_are_compared_by_what_each_was_judged_by(first):
    other = with_labels(fake_results(shots=(10,), methods=("lp-ft", "scratch")))
    assert common_shots(Run("a", first), Run("b", other)) == 10
    text = render_pair_text(("one", first), ("two", other))
    assert "full fine-tuning → LP-FT" in text
    none = with_labels(fake_results(shots=(3,)))
    assert common_shots(Run("a", first), Run("b", none)) is None
    assert "no number of labels in common" in render_pair_text(("one", first), ("two", none))


@pytest.mark.parametrize("other", [{"classes": ("a", "b", "c", "d", "e")}, {"classes": None}])
def test_different_tasks_are_refused(first, other):
    with pytest.raises(ReportError, match=r"different tasks: one .* two"):
        render_pair_text(("one", first), ("two", fake_results(**other)))
    smaller = copy.deepcopy(first)
    smaller["target"]["test"] = 7
    with pytest.raises(ReportError, match=r"test examples 300, two .* 7"):
        render_pair_text(("one", first), ("two", smaller))
    with pytest.raises(ReportError, match="lack"):
        render_pair_text(("one", first), ("two", {"title": "half"}))


def grown(results):
    """What newer runs record beside: gains, worth, spread, compute and what the source lost."""
    shots = results["shots"]

    def values(method, number):
        cells = results["cells"]
        return [c["test"]["accuracy"] for c in cells if (c["method"], c["shots"]) == (method, number)]

    for entry in results["summary"]:
        gain = entry["gain"]
        if gain:
            gain["negative"] = "weak" if entry["shots"] == 1 else ""
        entry["gains"] = {name: gain for name in ("scratch", "knn") if gain and name != entry["method"]}
        entry["spread"] = {"whole": 0.02, "labels": 0.0152, "training": 0.0061, "draws": 5, "repeats": 2,
                           "test": [0.85, 0.95]}  # fmt: skip
    a, b = (np.array([values(m, k) for k in shots]).T for m in ("full", "scratch"))
    told = {}
    for at in ("method", "baseline"):
        factors = label_factors(shots, a, b, at=at)
        told[at] = [{"shots": f.shots, "factor": f.factor, "relation": f.relation, "low": f.low,
                     "high": None if np.isinf(f.high) else f.high, "interval": True} for f in factors]  # fmt: skip
    areas = {m: {"mean": 0.8, "half_width": 0.01} for m in results["methods"]}
    results["labels"] = {"factors": {"full": told}, "areas": areas, "area_gains": {}}
    near = {share: {"steps": 5.5, "examples": 176.0, "flops": 1.2e9} for share in ("90", "95")}
    results["compute"] = {"full": {"runs": 10, "examples": 3200, "flops": 1.5e10, "to": near}}
    results["timing"] = {"device": "1 x toaster", "methods": {"full": {"compile_seconds": 1.234, "run_seconds": 250.0,
                         "step_seconds": 0.02, "peak_bytes": 5_000_000}}}  # fmt: skip
    spread = {"mean": 0.5, "half_width": 0.1, "values": [0.4, 0.6]}
    results["retention"] = {
        "method": "full", "examples": 270, "refit_on": 541, "before": 0.98, "after": spread, "forgotten": spread,
        "refit_before": 0.97, "refit_after": spread, "cka": spread, "cka_layers": {"backbone/**": spread},
        "distance": {"backbone/**": spread, "head/**": {"mean": None, "half_width": None, "values": []}},
        "tradeoff": {"alphas": [0.0, 0.5, 1.0], "source": [[0.98, 0.9, 0.4], [0.98, 0.9, 0.6]],
                     "target": [[0.7, 0.9, 0.9], [0.7, 0.9, 0.8]]},
    }  # fmt: skip
    return results


@pytest.fixture(scope="module")
def whole(first):
    return grown(copy.deepcopy(first))


def cells_of(blocks):
    table = next(block for block in blocks if hasattr(block, "rows"))
    return [[cell.plain for cell in row] for row in table.rows]


def test_gains_over_every_baseline(whole):
    rows = cells_of(gains_section(whole))
    assert rows[1][1:] == ["–", "–"]
    assert rows[0][1] == rows[0][2] != "–"
    assert negative_sentence(whole) == (
        "Negative transfer of full fine-tuning: weak (mean below 0) with 1 label per class."
    )
    assert "Negative transfer" in render_text(whole)


def test_what_labels_are_worth(whole):
    rows = cells_of(worth_section(whole))
    assert rows[0][0] == "full fine-tuning"
    assert re.match(r"[≥≤]? ?[\d.]+×", rows[0][1])
    assert rows[-1][1:3] == ["–", "–"]
    assert "times the labels (95 % interval" in worth_sentence(whole)


def test_compute_and_spread(whole):
    row = cells_of(compute_section(whole))[0]
    assert row == ["full fine-tuning", "3,200", "15.0 G", "1.20 G 176 ex.", "1.20 G 176 ex.", "–", "1.2 s", "4.2 min",
                   "20", "5.00 MB"]  # fmt: skip
    assert cells_of(spread_section(whole))[0] == ["full fine-tuning", "1.5", "0.6", "85.0 to 95.0"]


def test_what_the_source_lost(whole):
    said = forgetting_sentence(whole)
    assert "from 98.0 to 50.0 % with the old head (−50.0 ± 10.0 points), and from 97.0 to 50.0 %" in said
    blocks = retained_section(whole)
    assert cells_of(blocks)[0] == ["source head", "98.0", "50.0 ± 10.0", "+48.0 ± 10.0"]
    picture = next(block for block in blocks if type(block).__name__ == "Picture")
    assert "alpha 0.5: source 90.0 %, target 90.0 %" in picture.alt


def test_older_results_have_none_of_it(first):
    for section in (gains_section, worth_section, compute_section, retained_section, spread_section):
        assert section(first) == []
    assert (negative_sentence(first), worth_sentence(first), forgetting_sentence(first)) == ("", "", "")
