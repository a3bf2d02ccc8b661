"""The picture of two runs: what the methods that both have reach with more labels."""

from typing import Any

import numpy as np

from tljax.evaluation.report.blocks import Picture
from tljax.evaluation.report.canvas import limits, new_figure, place
from tljax.evaluation.report.pairing import Run
from tljax.evaluation.report.results import is_finite, label, labels_noun, main_scale, mean
from tljax.evaluation.report.theme import Theme, style


def pair_picture(first: Run, second: Run) -> list[Picture]:
    """The picture, in words."""
    scale, said = main_scale(first.results), []
    for run in (first, second):
        for method in run.results["methods"]:
            value, _ = mean(run.results, method, run.results["shots"][-1], scale.metric.key)
            said.append(f"{run.name}, {label(method)}: {scale.value(value)}{scale.unit}")
    name = scale.metric.label
    caption = (
        f"{name[0].upper()}{name[1:]} on the target test split. Filled marks and full lines: {first.name}; open "
        f"marks and broken lines: {second.name}. Bars: intervals."
    )
    return [Picture("pair", f"{name} at the most labels. {'; '.join(said)}.", caption)]


def pair_figure(first: Run, second: Run, theme: Theme) -> Any:
    """The verdict's metric against the number of labels, for every method of either run."""
    scale = main_scale(first.results)
    methods = list(dict.fromkeys([*first.results["methods"], *second.results["methods"]]))
    figure = new_figure(3.8, theme)
    axes = place(figure, 0.65, 0.55, 2.6, 0.15)
    axes.grid(axis="y")
    shots = list(dict.fromkeys([*first.results["shots"], *second.results["shots"]]))
    places = {s: float(s) if isinstance(s, int) else float(i + 1) for i, s in enumerate(shots)}
    if len(shots) > 1:
        axes.set_xscale("log")
    everything: list[float] = []
    for run, line, shift in ((first, "-", 0.985), (second, "--", 1.015)):
        for method in methods:
            found = [(places[s], *mean(run.results, method, s, scale.metric.key)) for s in run.results["shots"]]
            known = [(x * shift, y, half if is_finite(half) else 0.0) for x, y, half in found if is_finite(y)]
            if not known:
                continue
            x, y, half = (np.array(column, np.float64) for column in zip(*known))
            drawn = style(method, methods)
            colour = drawn.colour(theme)
            axes.errorbar(
                x, scale.factor * y, scale.factor * half, color=colour, linestyle=line, marker=drawn.marker,
                markersize=5.5, linewidth=1.6, elinewidth=1, capsize=2, label=f"{label(method)}, {_short(run.name)}",
                markerfacecolor=colour if run is first else theme.paper,
            )  # fmt: skip
            everything += (scale.factor * y).tolist()
    axes.set_ylim(limits(everything, share=scale.metric.percent))
    axes.set_xticks([places[s] for s in shots], [str(s) for s in shots], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlabel(labels_noun(first.results))
    axes.set_ylabel(f"test {scale.metric.label}{', %' if scale.metric.percent else ''}")
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, labelcolor="linecolor", handletextpad=0.5)
    return figure


def _short(name: str, most: int = 16) -> str:
    return name if len(name) <= most else f"…{name[1 - most :]}"
