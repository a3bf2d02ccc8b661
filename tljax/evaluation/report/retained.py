"""What fine-tuning did to the source: forgetting, features and weights, and the way between."""

from typing import Any

import numpy as np

from tljax.evaluation.report.blocks import Block, Cell, Heading, Paragraph, Picture, Table
from tljax.evaluation.report.canvas import limits, new_figure, place
from tljax.evaluation.report.numbers import plural
from tljax.evaluation.report.results import Results, is_finite, label, main_scale
from tljax.evaluation.report.theme import Theme, style


def retained_section(results: Results) -> list[Block]:
    """Nothing where the method leaves the backbone as it was."""
    found = results.get("retention")
    if not found:
        return []
    return [
        Heading("What the source lost"),
        Paragraph(forgetting_sentence(results)),
        _accuracies(results),
        *tradeoff_picture(results),
        _distances(results),
        Paragraph(_note(results), small=True),
    ]


def forgetting_sentence(results: Results) -> str:
    """What fine-tuning cost on the source, in one sentence; "" where it is not known."""
    found = results.get("retention")
    if not found:
        return ""
    after, lost, refit, alike = found["after"], found["forgotten"], found["refit_after"], found["cka"]["mean"]
    half = f" ± {_points(lost['half_width'])}" if is_finite(lost["half_width"]) else ""
    return (
        f"Forgetting: on the source {label(found['method'])} takes accuracy from {_points(found['before'])} to "
        f"{_points(after['mean'])} % with the old head ({_points(lost['mean'], sign=True, down=True)}{half} points), "
        f"and from {_points(found['refit_before'])} to {_points(refit['mean'])} % with a head fitted anew; "
        f"linear CKA of the features {'–' if alike is None else format(alike, '.2f')}."
    )


def _points(value: float | None, *, sign: bool = False, down: bool = False) -> str:
    if not is_finite(value):
        return "–"
    shown = -100 * value if down else 100 * value
    text = f"{shown:+.1f}" if sign else f"{shown:.1f}"
    return text.replace("-", "−")


def _accuracies(results: Results) -> Table:
    found = results["retention"]
    rows = (
        _row("source head", found["before"], found["after"], found["forgotten"]),
        _row("ridge head fitted anew", found["refit_before"], found["refit_after"], None),
    )
    return Table(("source accuracy %", "before", "after", "forgotten"), rows)


def _row(name: str, before: float, after: dict[str, Any], lost: dict[str, Any] | None) -> tuple[Cell, ...]:
    gap = _points(before - after["mean"], sign=True) if is_finite(after["mean"]) and is_finite(before) else "–"
    note = f"± {_points(lost['half_width'])}" if lost and is_finite(lost["half_width"]) else ""
    half = f"± {_points(after['half_width'])}" if is_finite(after["half_width"]) else ""
    return Cell(name), Cell(_points(before)), Cell(_points(after["mean"]), half), Cell(gap, note)


def _distances(results: Results) -> Table:
    """How far the weights of each group moved, and how much of the features' geometry is left."""
    found = results["retention"]
    layers = found.get("cka_layers") or {}
    rows = []
    for group, distance in found["distance"].items():
        alike = layers.get(group)
        rows.append((Cell(group), _number(distance), *([_number(alike)] if layers else [])))
    rows.append((Cell("features that the head reads"), Cell("–"), *([_number(found["cka"])] if layers else [])))
    head = ("group, stem to head", "‖after − before‖ / ‖before‖", *(["linear CKA"] if layers else []))
    return Table(head, tuple(rows if layers else rows[:-1]))


def _number(found: dict[str, Any] | None) -> Cell:
    if not found or not is_finite(found["mean"]):
        return Cell("–")
    return Cell(f"{found['mean']:.3f}", f"± {found['half_width']:.3f}" if is_finite(found["half_width"]) else "")


def _note(results: Results) -> str:
    found = results["retention"]
    seeds = len(found["after"]["values"])
    return (
        f"Before and after {label(found['method'])} at the main number of labels, on "
        f"{plural(found['examples'], 'example')} of the source test split; mean over {plural(seeds, 'seed')}. The new "
        f"head is a ridge regression on the features of {plural(found['refit_on'], 'source example')}: what it still "
        "reaches is not lost, only turned. CKA is 1 for features that only turned or grew. Distances are of weights, "
        "without running statistics; the head's is from its fresh start."
    )


def tradeoff_picture(results: Results) -> list[Picture]:
    """Source against target accuracy along the line from the pretrained to the fine-tuned weights."""
    curve = (results.get("retention") or {}).get("tradeoff")
    if not curve:
        return []
    scale = main_scale(results)
    source, target = (np.mean(np.asarray(curve[name], np.float64), axis=0) for name in ("source", "target"))
    said = "; ".join(
        f"alpha {alpha:g}: source {_points(float(a))} %, target {scale.value(float(b))}{scale.unit}"
        for alpha, a, b in zip(curve["alphas"], source, target)
        if alpha in (0.0, 0.5, 1.0)
    )
    bars = "" if len(curve["source"]) == 1 else " Thin lines: each seed; thick: their mean."
    caption = (
        "WiSE-FT: weights (1 − α) pretrained + α fine-tuned, from the linear probe (α = 0) to the fine-tuned model "
        f"(α = 1), each on the source with its own head and on the target.{bars} Both are test splits: the curve shows "
        "what there is to choose from, and chooses nothing."
    )
    return [Picture("wise", f"Trade-off between source and target. {said}.", caption)]


def wise_figure(results: Results, theme: Theme) -> Any:
    """The trade-off curve, seed by seed and as a mean, with alphas beside the points."""
    found, scale = results["retention"], main_scale(results)
    curve, methods = found["tradeoff"], list(results["methods"])
    source = 100 * np.asarray(curve["source"], np.float64)
    target = scale.factor * np.asarray(curve["target"], np.float64)
    figure = new_figure(3.6, theme)
    axes = place(figure, 0.65, 0.55, 0.3, 0.15)
    axes.grid()
    colour = style(found["method"], methods).colour(theme)
    if len(source) > 1:
        for x, y in zip(source, target):
            axes.plot(x, y, "-", color=colour, linewidth=0.7, alpha=0.35)
    x, y = source.mean(0), target.mean(0)
    axes.plot(x, y, "-", color=colour, linewidth=2)
    for alpha, a, b in zip(curve["alphas"], x, y):
        axes.plot(a, b, "o", color=colour, markersize=5, markeredgecolor=theme.paper, markeredgewidth=0.6)
        if alpha in (0.0, 0.5, 1.0):
            axes.annotate(f"α = {alpha:g}", (a, b), xytext=(6, 6), textcoords="offset points", color=theme.ink)
    axes.set_xlim(limits(source.ravel().tolist(), share=True))
    axes.set_ylim(limits(target.ravel().tolist(), share=scale.metric.percent))
    axes.set_xlabel("source accuracy, %")
    axes.set_ylabel(f"target {scale.metric.label}{', %' if scale.metric.percent else ''}")
    return figure
