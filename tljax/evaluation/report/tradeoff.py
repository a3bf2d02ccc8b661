"""The picture of what methods reach against how many parameters they train."""

from typing import Any

import numpy as np

from tljax.evaluation.report.canvas import limits, new_figure, place
from tljax.evaluation.report.results import Results, is_finite, label, main_scale, main_shots, mean, summary
from tljax.evaluation.report.theme import Theme, style


def tradeoff_figure(results: Results, theme: Theme) -> Any:
    """The verdict's metric against the parameters that learn, on a logarithmic axis, with intervals."""
    scale, shots, methods = main_scale(results), main_shots(results), list(results["methods"])
    figure = new_figure(3.4, theme)
    axes = place(figure, 0.65, 0.55, 1.6, 0.15)
    axes.set_xscale("log")
    axes.grid(axis="y")
    everything, sizes = [], []
    for method in methods:
        value, half = mean(results, method, shots, scale.metric.key)
        if not is_finite(value):
            continue
        drawn, trained = style(method, methods), max(1, summary(results, method, shots)["cost"]["trainable"])
        y, error = scale.factor * value, scale.factor * half if is_finite(half) else 0.0
        axes.errorbar(
            trained, y, error, color=drawn.colour(theme), marker=drawn.marker, linestyle="none", markersize=7.5,
            markeredgecolor=theme.paper, elinewidth=1.6, capsize=2.5, label=label(method),
        )  # fmt: skip
        everything += [y - error, y + error]
        sizes.append(trained)
    if sizes:
        axes.set_xlim(min(sizes) / 1.6, max(sizes) * 1.6)  # one method alone has no span of its own
    axes.set_ylim(limits(np.asarray(everything).tolist(), share=scale.metric.percent))
    axes.set_xlabel("parameters that learn")
    axes.set_ylabel(f"test {scale.metric.label}{', %' if scale.metric.percent else ''}")
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, labelcolor="linecolor", handletextpad=0.4)
    return figure
