"""The paired gains over every baseline, and the flag of negative transfer."""

from collections.abc import Mapping
from typing import Any

from tljax.evaluation.report import tables
from tljax.evaluation.report.blocks import Block, Cell, Heading, Paragraph, Table
from tljax.evaluation.report.numbers import MISSING
from tljax.evaluation.report.results import (
    BASELINE,
    REFERENCES,
    Results,
    at_main_shots,
    judged,
    label,
    labels_noun,
    main_scale,
    main_shots,
    seeds,
    summary,
)


def gains_of(results: Results, method: str, shots: Any) -> Mapping[str, Mapping[str, Any]]:
    """The paired gains of a method, by the baseline that they are over."""
    entry = summary(results, method, shots)
    return entry.get("gains") or ({BASELINE: entry["gain"]} if entry["gain"] else {})


def references(results: Results) -> list[str]:
    """The baselines that some gain is over, in the report's order.

    >>> references({"methods": ["full", "scratch"], "summary": [], "verdict": {}, "shots": [1]})
    []
    """
    shots = main_shots(results)
    known = {name for method in results["methods"] for name in gains_of(results, method, shots)}
    return [name for name in REFERENCES if name in known]


def gain_over_cell(results: Results, method: str, reference: str) -> Cell:
    """The gain of `method` over `reference` at the main shots, with its interval."""
    gain = gains_of(results, method, main_shots(results)).get(reference)
    if not gain or gain["mean"] is None:
        return Cell(MISSING)
    outcome = gain.get("outcome", "")
    text = f"{main_scale(results).gain(gain['mean'])} {tables.SIGNS.get(outcome, '')}".strip()
    return Cell(text, tables.interval(results, dict(gain)), tone=tables.TONES.get(outcome, ""))


def gains_section(results: Results) -> list[Block]:
    """One table with the gain of every method over every baseline; nothing where there is one baseline alone."""
    found = references(results)
    if len(found) < 2:
        return []
    rows = tuple(
        (Cell(label(m), strong=m == judged(results)), *(gain_over_cell(results, m, name) for name in found))
        for m in results["methods"]
    )
    head = ("method", *(f"over {'scratch' if name == BASELINE else label(name)}" for name in found))
    scale = main_scale(results)
    unit = ", in percentage points" if scale.metric.percent else ""
    bounds = "" if seeds(results) == 1 else ", with its interval; ▲ and ▼ mark those that leave out zero"
    note = (
        f"The paired difference in {scale.metric.label}{unit}, with {at_main_shots(results)}{bounds}. "
        f"{negative_sentence(results)}"
    )
    return [Heading("Gain over each baseline"), Table(head, rows), Paragraph(note, small=True)]


def negative_sentence(results: Results) -> str:
    """Where the judged method shows negative transfer; "" where the results do not tell.

    >>> gain = {"mean": -0.1, "negative": "weak"}
    >>> entry = {"method": "full", "shots": 5, "metrics": {}, "gain": gain}
    >>> target = {"classes": ["a", "b"]}
    >>> negative_sentence({"summary": [entry], "shots": [5], "verdict": {"method": "full"}, "target": target})
    'Negative transfer of full fine-tuning: weak (mean below 0) with 5 labels per class.'
    """
    flags: dict[str, list[str]] = {}
    for shots in results["shots"]:
        gain = gains_of(results, judged(results), shots).get(BASELINE)
        if gain is None or "negative" not in gain:
            return ""
        if gain["negative"]:
            flags.setdefault(gain["negative"], []).append(str(shots))
    name = label(judged(results))
    if not flags:
        return f"Negative transfer of {name}: none at any number of labels."
    means = {"strong": "strong (interval below 0)", "weak": "weak (mean below 0)"}
    said = [f"{means[flag]} with {', '.join(flags[flag])}" for flag in ("strong", "weak") if flag in flags]
    last = list(flags.values())[-1]
    return f"Negative transfer of {name}: {'; '.join(said)} {labels_noun(results, 1 if last == ['1'] else None)}."
