"""The pictures: what is drawn is what was measured, no label lies on another, and nothing global is touched."""

import itertools
import sys

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from test_report_fakes import fake_results

from tljax.evaluation.report import ReportError, render_html, render_text, write_report
from tljax.evaluation.report.canvas import drawable, drawing, limits, spread, to_svg
from tljax.evaluation.report.drawing import draw
from tljax.evaluation.report.matrices import confusion_figure
from tljax.evaluation.report.pictures import accuracy_figure, curves_figure, gain_figure
from tljax.evaluation.report.theme import DARK, LIGHT, style

matplotlib = pytest.importorskip("matplotlib")
NAMES = (
    "tench", "goldfish", "great white shark", "hammerhead", "stingray", "cock", "hen", "ostrich", "brambling", "junco",
    "goldfinch", "house finch", "robin", "bulbul", "jay", "magpie", "chickadee", "kite", "bald eagle", "vulture",
    "great grey owl", "salamander", "newt", "bullfrog", "tree frog", "loggerhead", "terrapin", "mud turtle", "gecko",
    "iguana",
)  # fmt: skip


def drawn(figure_of, results, theme=LIGHT):
    """The figure, and `(text, its box)` for all texts in it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with drawing(theme):
        figure = figure_of(results, theme)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return figure, texts(figure, canvas.get_renderer())


def texts(figure, renderer):
    """`(text, its box)` for all texts that are drawn; matplotlib also keeps labels of ticks out of view."""
    out_of_view = set()
    for axes in figure.axes:
        for i, axis in enumerate((axes.xaxis, axes.yaxis)):
            low, high = sorted(axis.get_view_interval())
            labels = axis.get_ticklabels()
            out_of_view |= {t for t in labels if not low - 1e-9 <= t.get_position()[i] <= high + 1e-9}
    found = set(figure.findobj(lambda t: isinstance(t, matplotlib.text.Text) and t.get_visible())) - out_of_view
    extent = matplotlib.text.Text.get_window_extent  # an annotation's own includes its arrow
    return [(t.get_text(), extent(t, renderer)) for t in found if t.get_text().strip()]


def overlapping(boxes):
    return [
        (a, b)
        for (a, box), (b, other) in itertools.combinations(boxes, 2)
        if min(box.x1, other.x1) - max(box.x0, other.x0) > 0.5 and min(box.y1, other.y1) - max(box.y0, other.y0) > 0.5
    ]


@pytest.fixture(scope="module")
def results():
    return fake_results()


@pytest.mark.one_in(2)
@pytest.mark.parametrize("figure_of", [gain_figure, accuracy_figure, curves_figure, confusion_figure])
@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"seeds": 1, "shots": (10,), "classes": ("cat", "dog")},
        {"gain": 0.0, "classes": NAMES, "seeds": 2},
        {"gain": 0.0, "shots": (*range(1, 11), 20, 50, 100, 1000), "classes": tuple(map(str, range(40)))},
    ],
    ids=["five", "one-seed", "names", "many"],
)
def test_no_text_lies_on_another_or_leaves_the_picture(figure_of, variant):
    figure, boxes = drawn(figure_of, fake_results(**variant))
    assert overlapping(boxes) == []
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.x1 <= width, text
        assert box.y0 >= 0, text
        assert box.y1 <= height, text


def test_accuracy_is_drawn_at_its_mean_with_its_interval(results):
    figure, _ = drawn(accuracy_figure, results)
    bars = figure.axes[0].containers
    assert len(bars) == 4
    for container, method in zip(bars, results["methods"]):
        line, _, (segments,) = container.lines
        entries = [e["metrics"]["accuracy"] for e in results["summary"] if e["method"] == method]
        np.testing.assert_allclose(line.get_ydata(), [100 * e["mean"] for e in entries])
        ends = [[100 * (e["mean"] + sign * e["half_width"]) for sign in (-1, 1)] for e in entries]
        np.testing.assert_allclose([segment[:, 1] for segment in segments.get_segments()], ends)
        np.testing.assert_allclose(np.log(line.get_xdata()), np.log(results["shots"]), atol=0.05)
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["1", "2", "5", "10"]


def test_every_mean_lies_inside_the_axes_however_wide_the_intervals():
    results = fake_results(seeds=2)
    for entry in results["summary"]:
        entry["metrics"]["accuracy"]["half_width"] *= 50
    figure, _ = drawn(accuracy_figure, results)
    low, high = figure.axes[0].get_ylim()
    means = [100 * e["metrics"]["accuracy"]["mean"] for e in results["summary"]]
    assert low < min(means) < max(means) < high


def test_curves_show_the_mean_of_the_carried_runs(results):
    figure, _ = drawn(curves_figure, results)
    raw = next(c for c in results["curves"] if c["method"] == "full" and c["shots"] == 10)
    rows = np.asarray(raw["accuracy"], float)
    for row in rows:
        stop = int(np.isfinite(row).sum())
        row[stop:] = row[stop - 1]
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), 100 * rows.mean(axis=0))
    assert len(figure.axes) == 2


def test_gains_are_drawn_seed_by_seed_with_their_interval(results):
    figure, _ = drawn(gain_figure, results)
    gain = next(e["gain"] for e in results["summary"] if e["method"] == "full" and e["shots"] == 10)
    drawn_x = [np.sort(np.ravel(line.get_xdata())) for line in figure.axes[0].lines]
    for expected in (gain["values"], [gain["low"], gain["high"]], [gain["mean"]]):
        expected = 100 * np.sort(expected)
        assert any(len(x) == len(expected) and np.allclose(x, expected) for x in drawn_x)


@pytest.mark.slow
def test_confusion_rows_are_normalised_and_counts_written(results):
    figure, _ = drawn(confusion_figure, results)
    cells = [c for c in results["cells"] if c["method"] == "full" and c["shots"] == 10]
    counts = np.sum([c["confusion"] for c in cells], axis=0)
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(shown, counts / counts.sum(axis=1, keepdims=True))
    assert sorted(t.get_text() for t in figure.axes[0].texts) == sorted(str(c) for c in counts.ravel() if c)


def test_many_classes_are_drawn_without_counts():
    figure, _ = drawn(confusion_figure, fake_results(classes=NAMES, seeds=1, shots=(10,)))
    assert list(figure.axes[0].texts) == []


def test_numbers_that_are_not_finite_are_left_out_of_the_pictures():
    results = fake_results(classes=None, seeds=2, shots=(5, 10))
    for entry in results["summary"]:
        if entry["method"] == "linear-probe":
            entry["metrics"]["rmse"] = {"mean": float("nan"), "half_width": None}
            entry["gain"] |= {"mean": float("inf"), "low": None, "high": float("nan")}
    assert set(draw(results, LIGHT)) == {"gain", "accuracy", "curves"}


def test_the_same_results_give_the_same_bytes_whatever_the_settings(results):
    first = draw(results, DARK)
    with matplotlib.rc_context({"font.size": 30, "svg.hashsalt": "other", "lines.linewidth": 9, "axes.grid": True}):
        before = dict(matplotlib.rcParams)
        assert draw(results, DARK) == first
        assert dict(matplotlib.rcParams) == before
    assert all("<dc:date>" not in svg for svg in first.values())


def test_no_figure_stays_in_pyplot(results):
    draw(fake_results(shots=(10,), seeds=1), LIGHT)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_without_matplotlib_one_error_says_how_to_get_it(results, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for call in (lambda: render_html(results), lambda: write_report(results, tmp_path / "report")):
        with pytest.raises(ReportError, match=r"pip install 'tljax\[demo\]'"):
            call()
    assert not (tmp_path / "report").exists()
    assert "full fine-tuning" in render_text(results)


def test_methods_differ_in_colour_mark_and_line():
    methods = ["full", "scratch", "linear-probe", "knn", "lp-ft", "mine", "yours"]
    styles = [style(method, methods) for method in methods]
    for theme in (LIGHT, DARK):
        assert len({s.colour(theme) for s in styles}) == len(methods)
        assert all(contrast(s.colour(theme), theme.paper) >= 3 for s in styles)
    assert len({s.marker for s in styles}) == len({s.line for s in styles}) == len(methods)
    assert style("full", ["full"]) == style("full", methods)


def contrast(one, other):
    """The contrast ratio of WCAG 2; 3 is its least for graphical objects."""

    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_names_the_font_cannot_draw_are_replaced_and_long_ones_cut():
    assert drawable("cat", "class 0") == "cat"
    assert drawable("猫", "class 0") == "class 0"
    assert drawable(" \x00 ", "class 0") == "class 0"
    assert drawable("x" * 40, "class 0") == "x" * 13 + "…"


def test_class_names_are_drawn_literally():
    results = fake_results(classes=("$x^2$", "$unclosed", "<b>&amp;"), seeds=1, shots=(10,))
    with drawing(LIGHT):
        assert "<svg" in to_svg(confusion_figure(results, LIGHT))


unhurried = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])


@unhurried
@hypothesis.given(st.lists(st.floats(0, 100), min_size=1, max_size=8))
def test_spread_keeps_order_gap_and_range(wanted):
    places = spread(wanted, 10.0, 0.0, 100.0)
    order = np.argsort(wanted, kind="stable")
    assert np.all(np.diff(np.asarray(places)[order]) >= 10.0 - 1e-6)
    assert -1e-6 <= min(places) <= max(places) <= 100 + 1e-6


@unhurried
@hypothesis.given(
    st.lists(st.floats(30, 70), min_size=2, max_size=4), st.lists(st.floats(-3, 3), min_size=4, max_size=4)
)
def test_no_other_places_are_nearer_in_squares(wanted, moves):
    places = np.asarray(spread(wanted, 5.0, 0.0, 100.0))
    other = places + np.asarray(moves[: len(wanted)])
    order = np.argsort(wanted, kind="stable")
    hypothesis.assume(np.all(np.diff(other[order]) >= 5.0))
    assert np.sum((places - wanted) ** 2) <= np.sum((other - wanted) ** 2) + 1e-6


def test_limits_hold_shares_to_a_hundred_percent():
    low, high = limits([50.0, 140.0, float("nan")], share=True)
    assert low < 50
    assert high == 102
    assert limits([3.0, 3.0], share=False) == pytest.approx((2.85, 3.15))
