"""What every picture is drawn on: matplotlib without global state, the same bytes for the same content."""

import contextlib
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tljax.evaluation.report.blocks import one_line
from tljax.evaluation.report.results import ReportError
from tljax.evaluation.report.theme import Theme

WIDTH = 8.6
"""Inches; the page shows this as its full width."""
FONT = 9.0
"""Points."""


def require_matplotlib() -> Any:
    """The module `matplotlib`; raises `ReportError`, which says how to get it, where it is missing."""
    try:
        import matplotlib
    except ImportError as error:
        raise ReportError(
            "the pictures of the report need matplotlib, which is not installed here; "
            "install it with: pip install 'tljax[demo]'"
        ) from error
    return matplotlib


@contextlib.contextmanager
def drawing(theme: Theme) -> Iterator[None]:
    """Matplotlib's own defaults and `theme` inside the block, whatever the user's settings are; as before after it."""
    require_matplotlib()
    import matplotlib.style

    settings = {
        "svg.hashsalt": "tljax",
        "svg.fonttype": "path",
        "font.family": ["DejaVu Sans"],
        "font.size": FONT,
        "text.parse_math": False,
        "text.color": theme.ink,
        "axes.facecolor": theme.paper,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.ink,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.titlesize": FONT + 1,
        "axes.titlelocation": "left",
        "axes.formatter.useoffset": False,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "xtick.major.width": 0.7,
        "ytick.major.width": 0.7,
    }
    with matplotlib.style.context(["default", settings], after_reset=True):
        yield


def new_figure(height: float, theme: Theme, width: float = WIDTH) -> Any:
    """An empty figure of `width` x `height` inches that belongs to no window and no global list."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor=theme.paper)


def place(figure: Any, left: float, bottom: float, right: float, top: float) -> Any:
    """Axes that leave these margins, in inches, to the sides of the figure."""
    width, height = figure.get_size_inches()
    box = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    return figure.add_axes(box)


def to_svg(figure: Any) -> str:
    """The figure as SVG text without date or version."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    lines = buffer.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


def drawable(text: str, instead: str, most: int = 14) -> str:
    """`text` cut to `most` characters, or `instead` where the picture's font lacks one of its signs."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    line = one_line(text)
    glyphs = get_font(findfont(FontProperties(family=["DejaVu Sans"]))).get_charmap()
    if not line or any(ord(c) not in glyphs for c in line):
        return instead
    return line if len(line) <= most else line[: most - 1] + "…"


def label_ends(axes: Any, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write `(x, y, text, colour)` to the right of the axes beside the ends of their lines, none over another."""
    height = axes.figure.get_size_inches()[1] * axes.get_position().height * 72
    low, high = axes.get_ylim()
    places = spread([(y - low) / (high - low) * height for _, y, _, _ in ends], 1.3 * FONT, 0, height)
    for (x, y, text, colour), at in zip(ends, places):
        axes.annotate(
            text,
            (x, y),
            xytext=(1.045, at / height),
            textcoords="axes fraction",
            color=colour,
            va="center",
            fontweight="bold",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.6, "shrinkA": 1, "shrinkB": 4},
        )


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions `gap` apart in [low, high], in the order of `wanted` and as near to it as least squares gets.

    With the sorted y_i, z_i = y_i - i gap must not fall: isotonic regression, by pooling adjacent violators.
    Where the range is too small for all, they leave it at the upper end.

    >>> spread([1.0, 1.0, 5.0], 1.0, 0.0, 10.0)
    [0.5, 1.5, 5.0]
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    pools: list[tuple[float, int]] = []
    for rank, i in enumerate(order):
        mean, size = wanted[i] - rank * gap, 1
        while pools and pools[-1][0] > mean:
            earlier, count = pools.pop()
            mean, size = (mean * size + earlier * count) / (size + count), size + count
        pools.append((mean, size))
    heights = [mean for mean, size in pools for _ in range(size)]
    room = max(low, high - (len(wanted) - 1) * gap)
    places = [0.0] * len(wanted)
    for rank, i in enumerate(order):
        places[i] = min(max(heights[rank], low), room) + rank * gap
    return places


def limits(values: Sequence[float], *, share: bool) -> tuple[float, float]:
    """Axis limits around `values`, the finite ones; those of a share in percent stay within 0 to 100 and a bit."""
    known = [v for v in np.asarray(values, np.float64).ravel().tolist() if math.isfinite(v)] or [0.0]
    low, high = min(known), max(known)
    pad = 0.06 * (high - low) or max(abs(high), 1.0) * 0.05
    low, high = low - pad, high + pad
    return (max(low, -2.0), min(high, 102.0)) if share else (low, high)
