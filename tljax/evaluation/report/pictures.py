"""The line and dot pictures of the report."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tljax.evaluation.report.canvas import label_ends, limits, new_figure, place
from tljax.evaluation.report.captions import gains
from tljax.evaluation.report.numbers import Scale
from tljax.evaluation.report.results import (
    Curve,
    Results,
    cells,
    curves,
    is_adaptation,
    is_finite,
    is_unlabelled,
    label,
    labels_noun,
    main_scale,
    main_shots,
    mean,
    scale_of,
)
from tljax.evaluation.report.theme import Theme, style

_BESIDE = 0.24
"""How far under its mean the dots of the seeds stand, in rows."""


def gain_figure(results: Results, theme: Theme) -> Any:
    """The paired gain of every method: each seed a dot, the mean a mark with its interval."""
    found = gains(results)
    scale = main_scale(results)
    figure = new_figure(0.75 + 0.42 * len(found), theme)
    axes = place(figure, 1.3, 0.55, 0.3, 0.1)
    axes.margins(x=0.06)
    axes.axvline(0, color=theme.muted, linewidth=1)
    axes.grid(axis="x")
    for row, (method, gain) in enumerate(found):
        drawn = style(method, results["methods"])
        colour = drawn.colour(theme)
        values = scale.factor * np.asarray([v for v in gain.get("values") or () if is_finite(v)], np.float64)
        _dots(axes, values, row, colour)
        if is_finite(gain.get("low")) and is_finite(gain.get("high")):
            ends = [scale.factor * gain["low"], scale.factor * gain["high"]]
            axes.plot(ends, [row, row], "-", color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot(
            scale.factor * gain["mean"], row, drawn.marker, color=colour, markersize=7.5, markeredgecolor=theme.paper
        )
    axes.set_yticks(range(len(found)), [label(method) for method, _ in found])
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    change = "fall" if scale.metric.higher_is_better is False else "gain"
    axes.set_xlabel(f"{change} in {scale.metric.label} over scratch{',' if scale.gain_unit else ''}{scale.gain_unit}")
    return figure


def _dots(axes: Any, values: np.ndarray, row: int, colour: str) -> None:
    """One dot a seed, under the mark of their mean; a single seed is its own mean."""
    if len(values) > 1:
        axes.plot(values, np.full(len(values), row + _BESIDE), ".", color=colour, alpha=0.65, markersize=6)


def _spans(series: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """What an axis should show of `(means, half-widths)`: all means, and of an interval so wide that it would squeeze
    them only a part, so that two seeds do not hide what they found."""
    means = np.concatenate([y for y, _ in series])
    halves = np.concatenate([half for _, half in series])
    if not means.size:
        return []
    most = max(0.6 * float(np.ptp(means)), float(np.median(halves)))
    shown = np.minimum(halves, most)
    return [*(means - shown).tolist(), *(means + shown).tolist()]


def accuracy_figure(results: Results, theme: Theme) -> Any:
    """The verdict's metric against shots; with one number of shots, one row a method."""
    return _by_shots(results, theme) if len(results["shots"]) > 1 else _one_shot(results, theme)


def _by_shots(results: Results, theme: Theme) -> Any:
    scale = main_scale(results)
    figure = new_figure(3.7, theme)
    axes = place(figure, 0.65, 0.55, 1.6, 0.12)
    axes.set_xscale("log")
    shots = sorted(results["shots"])
    reach = np.log(shots[-1] / shots[0])
    series = [(m, *_series(results, m, shots, scale)) for m in results["methods"]]
    ends = []
    for i, (method, x, y, half) in enumerate(series):
        drawn = style(method, results["methods"])
        shift = np.exp(min(0.008, 0.04 / len(shots)) * reach * (i - (len(series) - 1) / 2))
        colour = drawn.colour(theme)
        axes.errorbar(
            x * shift, y, half, color=colour, marker=drawn.marker, linestyle=drawn.line, linewidth=1.7,
            markersize=5.5, markeredgecolor=theme.paper, markeredgewidth=0.6, elinewidth=1.1, capsize=2.5,
        )  # fmt: skip
        if len(x):
            ends.append((float(x[-1] * shift), float(y[-1]), label(method), colour))
    axes.set_ylim(limits(_spans([(y, half) for _, _, y, half in series]), share=scale.metric.percent))
    axes.set_xlim(shots[0] * np.exp(-0.05 * reach), shots[-1] * np.exp(0.05 * reach))
    axes.set_xticks(shots, _sparse(shots, reach / 22), minor=False)
    axes.set_xticks([], minor=True)
    axes.grid(axis="y")
    axes.set_xlabel(labels_noun(results))
    axes.set_ylabel(_axis_label(scale))
    label_ends(axes, ends)
    return figure


def _one_shot(results: Results, theme: Theme) -> Any:
    scale, shots, methods = main_scale(results), main_shots(results), results["methods"]
    figure = new_figure(0.75 + 0.42 * len(methods), theme)
    axes = place(figure, 1.3, 0.55, 0.3, 0.1)
    axes.grid(axis="x")
    spans, everything = [], []
    for row, method in enumerate(methods):
        drawn = style(method, methods)
        colour = drawn.colour(theme)
        _, y, half = _series(results, method, [shots], scale)
        each = [cell["test"].get(scale.metric.key) for cell in cells(results, method, shots)]
        dots = scale.factor * np.asarray([value for value in each if is_finite(value)], np.float64)
        _dots(axes, dots, row, colour)
        rows = np.full(len(y), row + 0.0)
        axes.errorbar(
            y, rows, xerr=half, color=colour, marker=drawn.marker, linestyle="none",
            markersize=7.5, elinewidth=2.2, markeredgecolor=theme.paper,
        )  # fmt: skip
        spans.append((y, half))
        everything += dots.tolist()
    axes.set_xlim(limits(_spans(spans) + everything, share=scale.metric.percent))
    axes.set_yticks(range(len(methods)), [label(method) for method in methods])
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"{_axis_label(scale)}, {shots} {labels_noun(results, shots)}")
    return figure


def curves_figure(results: Results, theme: Theme) -> Any:
    """The verdict's metric on the validation split, and where there is one the training loss, against the step."""
    scale = main_scale(results)
    of = "" if is_unlabelled(results) else "target " if is_adaptation(results) else "validation "
    panels = [(curves(results, scale.metric.key), scale, _axis_label(scale, of))]
    losses = curves(results, "train_loss")
    if losses:
        panels.append((losses, scale_of(results, "train_loss"), "training loss"))
    figure = new_figure(3.2, theme)
    width = figure.get_size_inches()[0] / len(panels)
    for i, (found, panel_scale, name) in enumerate(panels):
        axes = place(figure, i * width + 0.65, 0.55, (len(panels) - 1 - i) * width + 0.2, 0.45)
        lines = _draw_curves(axes, found, panel_scale, list(results["methods"]), theme)
        axes.set_ylabel(name)
        if i == 0:
            _key(figure, lines)
    return figure


def _key(figure: Any, lines: list[Any]) -> None:
    """The names of the lines in a row above the panels, which share them."""
    key = figure.legend(
        handles=lines, loc="upper left", bbox_to_anchor=(0.06, 1.0), ncols=len(lines), frameon=False,
        handlelength=2.6, columnspacing=2.2, labelcolor="linecolor", borderaxespad=0.3,
    )  # fmt: skip
    for text in key.get_texts():
        text.set_fontweight("bold")


def _draw_curves(axes: Any, found: list[Curve], scale: Scale, methods: Sequence[str], theme: Theme) -> list[Any]:
    lines = []
    for curve in found:
        drawn = style(curve.method, list(methods))
        colour, values = drawn.colour(theme), scale.factor * curve.values
        if len(values) > 1:
            axes.fill_between(
                curve.steps, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.14, linewidth=0
            )
        middle = values.mean(axis=0)
        name = label(curve.method)
        lines += axes.plot(curve.steps, middle, linestyle=drawn.line, color=colour, linewidth=1.7, label=name)
    everything = [v for curve in found for v in (scale.factor * curve.values).ravel()]
    axes.set_ylim(limits(everything, share=scale.metric.percent))
    last = max(float(curve.steps[-1]) for curve in found)
    axes.set_xlim(-0.01 * last, last * 1.02 or 1.0)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="y")
    axes.set_xlabel("step")
    return lines


def _series(
    results: Results, method: str, shots: Sequence[int], scale: Scale
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(shots, means, half-widths)`, each `[N]`, of those with a mean, in percent where the metric is a share."""
    found = [(number, *mean(results, method, number, scale.metric.key)) for number in shots]
    known = [(number, value, half if is_finite(half) else 0.0) for number, value, half in found if is_finite(value)]
    table = np.asarray(known, np.float64).reshape(-1, 3)
    return table[:, 0], scale.factor * table[:, 1], scale.factor * table[:, 2]


def _sparse(shots: Sequence[int], gap: float) -> list[str]:
    """The shots as tick labels, but none where it would run into the next larger one that has one."""
    shown, last = [], np.inf
    for number in reversed(shots):
        fits = last - np.log(number) >= gap * max(1.0, len(str(number)) / 2)
        shown.append(str(number) if fits else "")
        last = np.log(number) if fits else last
    return shown[::-1]


def _axis_label(scale: Scale, split: str = "test ") -> str:
    return f"{split}{scale.metric.label}{', %' if scale.metric.percent else ''}"
