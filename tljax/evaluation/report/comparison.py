"""The report of a comparison of methods on one data set: what each reaches, and what each costs."""

from collections.abc import Mapping
from typing import Any

from tljax.evaluation.report import tables
from tljax.evaluation.report.blocks import Block, Cell, Heading, Paragraph, Picture, Preformatted, Table, Verdict
from tljax.evaluation.report.captions import curves_picture, percent_level
from tljax.evaluation.report.numbers import MISSING, count, milliseconds, plural, size
from tljax.evaluation.report.results import (
    Results,
    at_main_shots,
    is_finite,
    judged,
    label,
    main_scale,
    main_shots,
    mean,
    seeds,
    summary,
)

REFERENCES = ("linear-probe", "full")
"""What every method is compared to, where it was run."""


def document(results: Results) -> list[Block]:
    """The blocks of the report, in the order of reading."""
    sections = (_verdict, _methods, _tradeoff, _metrics, _curves, _protocol, _model)
    return [block for section in sections for block in section(results)]


def subtitle(results: Results) -> str:
    """One line under the title: what ran."""
    model = results["model"]
    return (
        f"tljax finetune · {model['name']}, {plural(model['parameters'], 'parameter')} · "
        f"{at_main_shots(results)} · {plural(seeds(results), 'seed')}"
    )


def method_table(results: Results) -> Table:
    """A row for each method: accuracy, paired gains, and costs."""
    metric = main_scale(results).metric
    references = [name for name in REFERENCES if name in results["methods"]]
    head = ["method", metric.heading, *(f"over {_short(name)}" for name in references)]
    head += ["trained", "optimiser", "ms/step", "stored"]
    accuracies = tables.metric_column(results, metric, main_shots(results))
    rows = []
    for method, accuracy in zip(results["methods"], accuracies):
        entry = summary(results, method, main_shots(results))
        gains = [_gain_cell(results, entry["gains"].get(name)) for name in references]
        cost = entry["cost"]
        costs = (
            count(cost["trainable"]),
            size(cost["optimizer_bytes"]),
            milliseconds(cost["step_ms"]) + ("*" if entry["on_features"] else ""),
            size(cost["stored_bytes"]),
        )
        name = Cell(label(method), strong=method == judged(results))
        rows.append((name, accuracy, *gains, *map(Cell, costs)))
    return Table(tuple(head), tuple(rows))


def method_note(results: Results) -> str:
    """What the numbers of the table are."""
    scale, examples = main_scale(results), plural(results["target"]["test"], "example")
    unit = ", in percentage points" if scale.metric.percent else ""
    costs = (
        "Trained: parameters that learn. Optimiser: the size of its state. Step: median wall time on this machine, "
        "without compilation. Stored: the size of the file that holds what a task adds to the pretrained model."
    )
    if any(summary(results, method, main_shots(results))["on_features"] for method in results["methods"]):
        costs += " *: on features that were computed once."
    gain = f"Over: the paired difference in {scale.metric.label}{unit}"
    if seeds(results) == 1:
        return f"One seed on {examples} of the test split: intervals are undefined. Best in bold. {gain}. {costs}"
    return (
        f"Mean over {plural(seeds(results), 'seed')} ± half-width of its {percent_level(results)} interval, on "
        f"{examples} of the test split. Best in bold. {gain}; ▲ better and ▼ worse mark those whose interval leaves "
        f"out zero. {costs}"
    )


def _short(method: str) -> str:
    return {"linear-probe": "probe"}.get(method, method)


def _gain_cell(results: Results, gain: Mapping[str, Any] | None) -> Cell:
    if not gain:
        return Cell(MISSING)
    scale, outcome = main_scale(results), gain["outcome"]
    text = f"{scale.gain(gain['mean'])} {tables.SIGNS.get(outcome, '')}".strip()
    low, high = gain["low"], gain["high"]
    note = f"± {scale.value((high - low) / 2)}" if is_finite(low) and is_finite(high) else ""
    return Cell(text, note, tone=tables.TONES.get(outcome, ""))


def _verdict(results: Results) -> list[Block]:
    verdict, scale, shots = results["verdict"], main_scale(results), main_shots(results)
    tiles = []
    for method in dict.fromkeys((judged(results), REFERENCES[0])):
        value, half = mean(results, method, shots, verdict["metric"])
        around = "" if half is None else f" ± {scale.value(half)}"
        tiles.append((scale.value(value) + scale.unit, f"{scale.metric.label}, {label(method)}{around}"))
    return [Verdict(verdict["outcome"], str(verdict["sentence"]), tuple(tiles))]


def _methods(results: Results) -> list[Block]:
    return [
        Heading(f"Methods with {at_main_shots(results)}"),
        method_table(results),
        Paragraph(method_note(results), small=True),
    ]


def _tradeoff(results: Results) -> list[Block]:
    scale, shots = main_scale(results), main_shots(results)
    said = []
    for method in results["methods"]:
        value, _ = mean(results, method, shots, scale.metric.key)
        trained = summary(results, method, shots)["cost"]["trainable"]
        said.append(f"{label(method)} {scale.value(value)}{scale.unit} with {plural(trained, 'parameter')}")
    bars = "" if seeds(results) == 1 else f" Bars: {percent_level(results)} interval."
    name = scale.metric.label
    return [
        Picture(
            "tradeoff",
            f"{name} on the test split against the parameters that learn: {'; '.join(said)}.",
            f"{name[0].upper()}{name[1:]} on the test split against the parameters that learn.{bars}",
        )
    ]


def _metrics(results: Results) -> list[Block]:
    """Every other metric."""
    rest = [m for m in tables.reported_metrics(results) if m.key != results["verdict"]["metric"]]
    columns = [tables.metric_column(results, m, main_shots(results)) for m in rest]
    rows = tuple(
        (Cell(label(method)), *(column[i] for column in columns)) for i, method in enumerate(results["methods"])
    )
    return [Heading("Other metrics"), Table(("method", *(m.heading for m in rest)), rows)]


def _curves(results: Results) -> list[Block]:
    found = curves_picture(results)
    return [Heading("Learning curves"), *found] if found else []


def _protocol(results: Results) -> list[Block]:
    protocol, adapters = results["protocol"], results["protocol"]["adapters"]
    target = ", ".join(adapters["target"]) or "each method's own"
    level = percent_level(results)
    rows = (
        ("optimiser", protocol["optimizer"]),
        ("examples per step", str(protocol["batch_size"])),
        ("learning rate and stopping step chosen by", f"{protocol['chosen_by']}; {protocol['tuned']}"),
        ("seeds", str(protocol["seeds"])),
        ("interval", f"{level} {protocol['interval']}"),
        ("adapters", f"rank {adapters['rank']}, alpha {adapters['alpha']:g}, on {target}"),
    )
    head = ("task", "data", "classes", "training", "validation", "test", "input")
    data = Table(head, (tables.task_row("target", results["target"], "pool", "labels drawn from"),), numeric=False)
    return [
        Heading("Data and protocol"),
        data,
        Paragraph(". ".join(results["notes"]), small=True),
        Table(("setting", "value"), tuple((Cell(name), Cell(value)) for name, value in rows), numeric=False),
        _choices(results),
    ]


def _choices(results: Results) -> Table:
    """Which learning rates were tried, and which the validation split chose."""
    chosen = {row[0].plain: row for row in tables.choice_table(results).rows}
    rows = []
    for method in results["methods"]:
        entry = summary(results, method, main_shots(results))
        tried = ", ".join(f"{rate:g}" for rate in entry["rates"])
        name, rate, step = chosen[label(method)]
        rows.append((name, Cell(str(entry["steps"])), Cell(tried), rate, step))
    return Table(("method", "steps", "rates tried", "rate chosen", "best step"), tuple(rows), numeric=False)


def _model(results: Results) -> list[Block]:
    exported = results.get("exported")
    said = f"The model of {label(exported['method'])} is in model/: {exported['text']}." if exported else ""
    blocks: list[Block] = [Heading("The pretrained model"), Preformatted(str(results["model"]["text"]).strip("\n"))]
    return [*blocks, Paragraph(said)] if said else blocks
