"""The report of an adaptation to a target whose labels nobody knows: signs, where else accuracy would stand."""

import math
from typing import Any

from tljax.evaluation.report import adaptation, tables
from tljax.evaluation.report.blocks import Block, Cell, Heading, Paragraph, Picture, Table, Verdict
from tljax.evaluation.report.captions import lines_note, percent_level
from tljax.evaluation.report.numbers import MISSING, plural
from tljax.evaluation.report.results import (
    SOURCE_ONLY,
    Results,
    curves,
    is_finite,
    judged,
    label,
    main_scale,
    mean,
    seeds,
    summary,
)
from tljax.evaluation.statistics import wilson

_SHOTS: Any = "all"
SAMPLE = 100
"""How many labels the report proposes to make."""


def document(results: Results) -> list[Block]:
    """The blocks of the report, in the order of reading."""
    sections = (_verdict, _signs, _predicted, adaptation.features_section, _curves, adaptation.protocol_section)
    return [block for section in sections for block in section(results)]


def signs_table(results: Results) -> Table:
    """A row for each method: what can be measured of it without labels."""
    chooser = results["protocol"]["validator"]
    head = ("method", chooser, f"{chooser} over source only", "changed %", "seeds agree %", "confidence %", "source %",
            "A-distance")  # fmt: skip
    rows = []
    for method in results["methods"]:
        entry = summary(results, method, _SHOTS)
        value, half = mean(results, method, _SHOTS, "validator")
        rows.append(
            (
                Cell(label(method), strong=method == judged(results)),
                Cell(main_scale(results).value(value), "" if half is None else f"± {main_scale(results).value(half)}"),
                _over(results, method),
                Cell(MISSING) if method == SOURCE_ONLY else _percent(entry["changed"]),
                _percent({"mean": entry["agreement"]}),
                _percent(entry["metrics"]["confidence"]),
                _percent(entry["source_test"]),
                Cell(adaptation.plain(entry["a_distance"])),
            )
        )
    return Table(head, tuple(rows))


def signs_note(results: Results) -> str:
    """What the numbers of the table are, and what they cannot tell."""
    chooser, several = results["protocol"]["validator"], seeds(results) > 1
    spread = (
        f"Mean over {plural(seeds(results), 'seed')} ± half-width of its {percent_level(results)} interval. "
        if several
        else "One seed: intervals are undefined. "
    )
    return (
        f"{spread}{chooser}: the number that chose the step, more is better. Changed: share of the target's "
        f"{plural(results['target']['test'], 'example')} that are predicted to be of another class than by the source "
        "alone. Seeds agree: share of seeds that predict what they predict together. Confidence: mean probability of "
        "the predicted class, calibrated on the source. Source: accuracy on the source's test part. A-distance: how "
        "well a linear classifier tells the source's test part and the target, which was trained on without labels, "
        "apart by their features, from 0 (not at all) to 2. None of them is "
        "accuracy on the target: a method can be sure of wrong classes, and one that raises a number by its own loss "
        "is high in it for no other reason."
    )


def advice(results: Results) -> str:
    """How to find out."""
    whole = int(results["target"]["test"])
    if whole <= SAMPLE:
        return f"To know: label all {whole} examples of the target and run tljax evaluate on this folder with --data."
    found = wilson(SAMPLE // 2, SAMPLE)
    half = 50 * (found.high - found.low) * math.sqrt((whole - SAMPLE) / (whole - 1))  # of a part of a finite whole
    return (
        f"To know: label {SAMPLE} examples of the target, drawn at random, and run tljax evaluate on this folder with "
        f"--data; an accuracy near 50 % is then known to about ±{half:.0f} points."
    )


def predicted_table(results: Results) -> Table:
    """A row for each class: its share of the source's labels, and of what is predicted for the target."""
    names = [str(name) for name in results["target"]["classes"]]
    methods = list(dict.fromkeys((SOURCE_ONLY, judged(results))))
    columns = [results["source"]["counts"], *(summary(results, method, _SHOTS)["predicted"] for method in methods)]
    shares = [[count / sum(column) for count in column] for column in columns]
    order = sorted(range(len(names)), key=lambda i: -abs(shares[2][i] - shares[0][i]))
    rows = tuple(
        (Cell(names[i]), *(Cell(f"{100 * column[i]:.1f}", bar=column[i]) for column in shares))
        for i in sorted(order[: tables.MOST_RECALLS])
    )
    return Table(("class", "labels of the source %", *(f"{label(method)} %" for method in methods)), rows)


def _over(results: Results, method: str) -> Cell:
    """The paired difference in the validator's number; no sign of good or bad, as it is neither."""
    gain = summary(results, method, _SHOTS)["gain"]
    if not gain or not is_finite(gain["mean"]):
        return Cell(MISSING)
    return Cell(main_scale(results).gain(gain["mean"]), tables.interval(results, gain))


def _percent(found: Any) -> Cell:
    if not is_finite(found["mean"]):
        return Cell(MISSING)
    half = found.get("half_width")
    return Cell(f"{100 * found['mean']:.1f}", f"± {100 * half:.1f}" if is_finite(half) else "")


def _verdict(results: Results) -> list[Block]:
    verdict, entry = results["verdict"], summary(results, judged(results), _SHOTS)
    tiles = (
        (f"{_percent(entry['changed']).text} %", "of the target predicted otherwise than by the source alone"),
        (f"{_percent(entry['source_test']).text} %", "accuracy on the source's test part, adapted"),
        adaptation.distance_tile(results),
    )
    return [Verdict(verdict["outcome"], str(verdict["sentence"]), tiles), Paragraph(advice(results))]


def _signs(results: Results) -> list[Block]:
    return [Heading("Signs"), signs_table(results), Paragraph(signs_note(results), small=True)]


def _predicted(results: Results) -> list[Block]:
    names = [str(name) for name in results["target"]["classes"]]
    counts = summary(results, judged(results), _SHOTS)["predicted"]
    never = [name for name, count in zip(names, counts) if not count]
    left = len(names) - tables.MOST_RECALLS
    note = (
        "Share of each class in the source's training labels, and in what is predicted for the target, mean over the "
        "seeds. A class that swallows others is a sign of collapse, unless the target is like that."
        + (f" Never predicted, adapted: {', '.join(never[: tables.MOST_RECALLS])}." if never else "")
        + (f" The {left} classes that differ least are left out." if left > 0 else "")
        + " predictions.csv in the run folder has the class of each example."
    )
    return [Heading("What is predicted"), predicted_table(results), Paragraph(note, small=True)]


def _curves(results: Results) -> list[Block]:
    found = curves(results, "validator")
    if not found:
        return []
    scale = main_scale(results)
    ends = "; ".join(f"{label(c.method)} {scale.value(float(c.values[:, -1].mean()))}" for c in found)
    caption = f"The validator's number ({results['protocol']['validator']}), and the training loss."
    caption += lines_note(results)
    alt = f"The validator's number against the step; at the end: {ends}."
    return [Heading("Learning curves"), Picture("curves", alt, caption)]
