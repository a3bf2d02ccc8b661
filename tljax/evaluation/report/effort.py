"""Where the spread comes from, and what training took: compute, seconds and memory."""

from collections.abc import Mapping
from typing import Any

from tljax.evaluation.report.blocks import Block, Cell, Heading, Paragraph, Table
from tljax.evaluation.report.captions import percent_level
from tljax.evaluation.report.numbers import MISSING, count, operations, plural, seconds_text, size
from tljax.evaluation.report.results import (
    Results,
    at_main_shots,
    judged,
    label,
    main_scale,
    main_shots,
    summary,
)

NEAR = ("90", "95", "99")
"""Percent of a run's own best."""


def spread_section(results: Results) -> list[Block]:
    """The standard deviation of a run by what makes it, beside the noise of the test split."""
    shots, scale = main_shots(results), main_scale(results)
    found = [(m, summary(results, m, shots).get("spread")) for m in results["methods"]]
    known = [(method, spread) for method, spread in found if spread]
    if not known or max(spread["draws"] for _, spread in known) < 2:
        return []
    repeats = max(spread["repeats"] for _, spread in known)
    apart = ("labels", "training") if repeats > 1 else ("whole",)
    rows = tuple((Cell(label(m), strong=m == judged(results)), *_spread_cells(scale, s, apart)) for m, s in known)
    unit = " (points)" if scale.metric.percent else ""
    heads = {"labels": "labels drawn", "training": "training seed", "whole": "labels and training"}
    head = ("method", *(f"{heads[part]}{unit}" for part in apart), f"test split, {percent_level(results)}")
    said = f"Standard deviation of one run's {scale.metric.label} with {at_main_shots(results)}"
    if repeats > 1:
        said += (
            ", by what makes it: which examples were labelled, and the training seed (initialisation and order), by "
            "the analysis of variance; an estimate below zero is 0"
        )
    else:
        said += "; what the draw of labels and what training makes of it can be told apart with --repeats 2 or more"
    test = f" Test split: Wilson's interval of the mean on {plural(results['target']['test'], 'example')}."
    note = f"{said}.{'' if scale.metric.key != 'accuracy' else test}"
    return [Heading("Where the spread comes from"), Table(head, rows), Paragraph(note, small=True)]


def _spread_cells(scale: Any, spread: Mapping[str, Any], apart: tuple[str, ...]) -> tuple[Cell, ...]:
    parts = [Cell(MISSING if spread.get(key) is None else scale.value(spread[key])) for key in apart]
    bounds = spread.get("test")
    test = MISSING if bounds is None else f"{scale.value(bounds[0])} to {scale.value(bounds[1])}"
    return *parts, Cell(test)


def compute_section(results: Results) -> list[Block]:
    """Examples, FLOPs, seconds and memory of every method, and how much of it brings a run near to its end."""
    found = results.get("compute")
    if not found:
        return []
    timing = (results.get("timing") or {}).get("methods") or {}
    rows = [_compute_row(results, method, found[method], timing.get(method)) for method in found]
    head = ("method", "examples", "FLOPs", *(f"to {share} %" for share in NEAR), "compile", "run", "ms/step", "memory")
    return [Heading("Compute to accuracy"), Table(head, tuple(rows)), Paragraph(_compute_note(results), small=True)]


def _compute_row(
    results: Results, method: str, found: Mapping[str, Any], timed: Mapping[str, Any] | None
) -> tuple[Cell, ...]:
    near = [_near(found["to"].get(share)) for share in NEAR]
    timed = timed or {}
    seconds = [Cell(seconds_text(timed.get(key))) for key in ("compile_seconds", "run_seconds")]
    step = timed.get("step_seconds")
    memory = timed.get("peak_bytes")
    return (
        Cell(label(method), strong=method == judged(results)),
        Cell(count(found["examples"])),
        Cell(operations(found["flops"])),
        *near,
        *seconds,
        Cell(MISSING if step is None else f"{1000 * step:.3g}"),
        Cell(MISSING if memory is None else size(memory)),
    )


def _near(found: Mapping[str, Any] | None) -> Cell:
    return Cell(MISSING) if not found else Cell(operations(found["flops"]), f"{count(round(found['examples']))} ex.")


def _compute_note(results: Results) -> str:
    found, timing = results["compute"], results.get("timing") or {}
    runs = next(iter(found.values()))["runs"]
    note = (
        "Of one run: examples seen and FLOPs of its steps, as XLA counts them; and those until the validation split is "
        "at 90, 95 and 99 % of the run's best there, read off the evaluations made, mean over runs at the main number "
        "of labels."
    )
    source = results["source"]
    if source.get("flops"):
        note += f" Pretraining before took {operations(source['flops'])} FLOPs on {count(source['examples'])} examples."
    if timing.get("device"):
        note += (
            f" Of all {plural(runs, 'run')} of a method together, on {timing['device']}: seconds that compiling took, "
            "and the rest, with validation. Step: one run's. Memory: what the compiled program of a step needs at once."
        )
    return note
