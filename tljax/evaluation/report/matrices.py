"""The picture of confusion matrices."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tljax.evaluation.report.canvas import FONT, WIDTH, drawable, new_figure, place
from tljax.evaluation.report.captions import MOST_CLASSES_WITH_COUNTS
from tljax.evaluation.report.results import Results, baseline, confusion, judged, label
from tljax.evaluation.report.theme import Theme

_MOST_NAMES = 45
"""Beyond this, names of classes would run into one another; only some are written."""


def confusion_figure(results: Results, theme: Theme) -> Any:
    """The matrices of the judged method and the baseline side by side, each row normalised to its class."""
    found = [(m, confusion(results, m)) for m in dict.fromkeys((judged(results), baseline(results)))]
    matrices = [(method, matrix) for method, matrix in found if matrix is not None]
    size = len(matrices[0][1])
    names = [drawable(str(name), f"class {i}") for i, name in enumerate(results["target"]["classes"])]
    names += [str(i) for i in range(len(names), size)]
    font = float(np.clip(185 / size, 4.8, FONT))
    room = 0.35 + max(map(len, names)) * font * 0.62 / 72
    upright = max(map(len, names)) * font * 0.62 / 72 > 2.9 / size
    side = (WIDTH - room - 0.75 - 0.25) / 2
    below = 0.35 + (room - 0.35 if upright else 0.15)
    figure = new_figure(side + below + 0.35, theme)
    for i, (method, matrix) in enumerate(matrices):
        left = room + i * (side + 0.25)
        axes = place(figure, left, below, WIDTH - left - side, 0.35)
        image = _draw(axes, matrix, theme, font)
        axes.set_title(label(method), fontweight="bold")
        _name_ticks(axes, names, font, upright, i == 0)
    left = room + len(matrices) * (side + 0.25) - 0.12
    _colour_bar(figure, image, place(figure, left, below, WIDTH - left - 0.11, 0.35))
    return figure


def _draw(axes: Any, matrix: np.ndarray, theme: Theme, font: float) -> Any:
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros(matrix.shape, np.float64), where=totals > 0)
    ramp = LinearSegmentedColormap.from_list("tljax", list(theme.ramp))
    stretch = PowerNorm(0.5, vmin=0.0, vmax=1.0)  # a few errors in a hundred must be seen
    image = axes.imshow(shares, cmap=ramp, norm=stretch, interpolation="none", aspect="equal")
    size = len(matrix)
    if size <= MOST_CLASSES_WITH_COUNTS:
        for i, j in zip(*np.nonzero(matrix)):
            strong = shares[i, j] > 0.3
            colour = theme.paper if strong else theme.ink
            text = str(matrix[i, j])
            fits = 0.8 * 3.3 / size * 72 / (0.65 * len(text))
            axes.text(j, i, text, ha="center", va="center", fontsize=min(font, fits), color=colour)
    if size <= 2 * MOST_CLASSES_WITH_COUNTS:
        for edge in np.arange(size - 1) + 0.5:
            axes.axhline(edge, color=theme.grid, linewidth=0.6)
            axes.axvline(edge, color=theme.grid, linewidth=0.6)
    for spine in axes.spines.values():
        spine.set_visible(True)
    return image


def _name_ticks(axes: Any, names: Sequence[str], font: float, upright: bool, first: bool) -> None:
    every = -(-len(names) // _MOST_NAMES)
    at = range(0, len(names), every)
    shown = [names[i] for i in at]
    axes.set_xticks(at, shown, fontsize=font, rotation=90 if upright else 0)
    axes.set_yticks(at, shown if first else [""] * len(shown), fontsize=font)
    axes.tick_params(length=0, pad=3)
    axes.set_xlabel("predicted")
    if first:
        axes.set_ylabel("true")


def _colour_bar(figure: Any, image: Any, axes: Any) -> None:
    bar = figure.colorbar(image, cax=axes, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1])
    bar.ax.set_yticklabels(["0 %", "1 %", "5 %", "20 %", "50 %", "100 %"])
    bar.ax.tick_params(length=0, labelsize=FONT - 1)
    bar.outline.set_visible(False)
