"""What labels are worth: the factor against training from scratch, and the area under the curve."""

from collections.abc import Mapping
from typing import Any

from tljax.evaluation.report import tables
from tljax.evaluation.report.blocks import Block, Cell, Heading, Paragraph, Table
from tljax.evaluation.report.captions import percent_level
from tljax.evaluation.report.numbers import MISSING
from tljax.evaluation.report.results import (
    BASELINE,
    Results,
    at_main_shots,
    judged,
    label,
    labels_noun,
    main_scale,
    main_shots,
    seeds,
)


def worth_section(results: Results) -> list[Block]:
    """What each method is worth in labels, at every number of them, and the areas; nothing with one number alone."""
    found = results.get("labels") or {}
    if not found.get("factors"):
        return []
    shots = [str(number) for number in results["shots"]]
    rows = []
    for method, factors in found["factors"].items():
        cells = [_cell(factor) for factor in factors["method"]]
        rows.append((Cell(label(method), strong=method == judged(results)), *cells, *_areas(results, method)))
    rows.append((Cell(label(BASELINE)), *(Cell(MISSING) for _ in shots), *_areas(results, BASELINE)))
    scale = main_scale(results)
    head = (labels_noun(results), *shots, f"area{' %' if scale.metric.percent else ''}", "gain in area")
    return [
        Heading("What labels are worth"),
        Paragraph(worth_sentence(results)),
        Table(head, tuple(rows)),
        Paragraph(_note(results), small=True),
    ]


def worth_sentence(results: Results) -> str:
    """The headline: how many labels the judged method makes do with, for what scratch reaches; "" where unknown."""
    factors = ((results.get("labels") or {}).get("factors") or {}).get(judged(results))
    shots = main_shots(results)
    found = next((f for f in (factors or {}).get("baseline", ()) if f["shots"] == shots), None)
    if found is None or found["factor"] is None:
        return ""
    name = label(judged(results))
    noun, needed = labels_noun(results), shots / found["factor"]
    start = f"What training from scratch reaches with {at_main_shots(results)}, {name}"
    if found["relation"] == "<=":
        return f"{start} does not reach with as many: it is worth at most {found['factor']:.2g} times the labels."
    few = "at most " if found["relation"] == ">=" else "about "
    worth = "at least " if found["relation"] == ">=" else ""
    bounds = _bounds(found)
    interval = f" ({percent_level(results)} interval {bounds})" if bounds else ""
    return (
        f"{start} reaches with {few}{needed:.2g} {noun if needed != 1 else labels_noun(results, 1)}: it is worth "
        f"{worth}{found['factor']:.2g} times the labels{interval}."
    )


def _note(results: Results) -> str:
    bootstrap = (
        "" if seeds(results) == 1 else f" In brackets the {percent_level(results)} bootstrap interval over seeds."
    )
    metric = main_scale(results).metric.label
    return (
        f"How many times as many labels training from scratch would need for the {metric} that each method reaches, "
        "read off its curve, straight between points on a logarithmic axis; ≥ where its curve ends before, ≤ where it "
        f"begins beyond.{bootstrap} Area: the mean {metric} over the curve, against log₂ of the labels."
    )


def _cell(found: Mapping[str, Any]) -> Cell:
    if found["factor"] is None:
        return Cell(MISSING)
    sign = {"=": "", ">=": "≥ ", "<=": "≤ "}[found["relation"]]
    bounds = _bounds(found)
    return Cell(f"{sign}{found['factor']:.2g}×", f"[{bounds.replace(' to ', ', ')}]" if bounds else "")


def _bounds(found: Mapping[str, Any]) -> str:
    if not found.get("interval"):
        return ""
    low = f"{found['low']:.2g}" if found["low"] else "0"
    return f"{low} to {'∞' if found['high'] is None else format(found['high'], '.2g')}"


def _areas(results: Results, method: str) -> tuple[Cell, Cell]:
    scale, found = main_scale(results), results["labels"]
    area, gain = found["areas"].get(method) or {}, found["area_gains"].get(method)
    half = area.get("half_width")
    value = Cell(scale.value(area.get("mean")), "" if half is None else f"± {scale.value(half)}")
    if not gain or gain["mean"] is None:
        return value, Cell(MISSING)
    text = f"{scale.gain(gain['mean'])} {tables.SIGNS.get(gain['outcome'], '')}".strip()
    return value, Cell(text, tables.interval(results, gain), tone=tables.TONES.get(gain["outcome"], ""))


def area_row(results: Results) -> list[Cell]:
    """The area under the curve of every method; empty where there are none."""
    found = (results.get("labels") or {}).get("factors")
    return [_areas(results, method)[0] for method in results["methods"]] if found else []
