"""The picture of two domains' features on a plane, before and after adaptation."""

from typing import Any

import numpy as np

from tljax.evaluation.report.canvas import WIDTH, drawable, new_figure, place
from tljax.evaluation.report.results import Results, label
from tljax.evaluation.report.theme import Theme

_MOST_COLOURS = 10
"""Beyond so many classes colours tell nothing; then they tell the domains."""
_DOMAINS = (("source", "o", 14), ("target", "x", 16))


def features_figure(results: Results, theme: Theme) -> Any:
    """A panel for each model: source examples as circles, target examples as crosses, colours by class."""
    found = results["features"]
    panels = found["panels"]
    side = (WIDTH - 0.3 * (len(panels) + 1)) / len(panels)
    figure = new_figure(side + 0.85, theme)
    for i, panel in enumerate(panels):
        left = 0.3 + i * (side + 0.3)
        axes = place(figure, left, 0.5, WIDTH - left - side, 0.35)
        axes.set_title(label(panel["method"]), fontweight="bold")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlim(-1.06, 1.06)
        axes.set_ylim(-1.06, 1.06)
        for spine in axes.spines.values():
            spine.set_visible(True)
        classes = np.asarray(panel["classes"] if "classes" in panel else found["classes"])
        _draw(axes, np.array([panel["x"], panel["y"]]), classes, found["sizes"], theme)
    _key(figure, results, theme)
    return figure


def _draw(axes: Any, places: np.ndarray, classes: np.ndarray, sizes: list[int], theme: Theme) -> None:
    colours = _colours(classes, sizes, theme)
    first = 0
    for (_, marker, size), count in zip(_DOMAINS, sizes):
        at = slice(first, first + count)
        face = {"facecolors": "none", "edgecolors": colours[at]} if marker == "o" else {"c": colours[at]}
        axes.scatter(*places[:, at], marker=marker, s=size, linewidths=0.9, alpha=0.85, **face)
        first += count


def _palette(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["tab10"](i) for i in range(count)]


def _colours(classes: np.ndarray, sizes: list[int], theme: Theme) -> list[Any]:
    if classes.max() < _MOST_COLOURS:
        palette = _palette(_MOST_COLOURS)
        return [palette[c] for c in classes]
    source, target = _palette(2)
    return [source] * sizes[0] + [target] * sizes[1]


def _key(figure: Any, results: Results, theme: Theme) -> None:
    from matplotlib.lines import Line2D

    names = [str(name) for name in results["target"]["classes"]]
    by_class = len(names) <= _MOST_COLOURS
    inks = [theme.ink] * 2 if by_class else _palette(2)
    entries = [
        Line2D([], [], linestyle="none", marker=marker, color=ink, markerfacecolor="none", label=name)
        for (name, marker, _), ink in zip(_DOMAINS, inks)
    ]
    if by_class:
        entries += [
            Line2D([], [], linestyle="none", marker="s", color=colour, label=drawable(name, f"class {i}"))
            for i, (name, colour) in enumerate(zip(names, _palette(_MOST_COLOURS)))
        ]
    figure.legend(
        handles=entries, loc="lower center", ncols=min(len(entries), 7), frameon=False, handletextpad=0.2,
        columnspacing=1.2, labelcolor=theme.ink,
    )  # fmt: skip
