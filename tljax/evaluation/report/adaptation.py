"""The report of an adaptation: what a method reaches on a target without labels, beside the source alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from tljax.evaluation.report import tables
from tljax.evaluation.report.blocks import Block, Cell, Heading, Paragraph, Picture, Preformatted, Table, Verdict
from tljax.evaluation.report.captions import confusion_picture, lines_note, percent_level
from tljax.evaluation.report.numbers import MISSING, plural
from tljax.evaluation.report.results import (
    SOURCE_ONLY,
    Results,
    cells,
    curves,
    is_finite,
    is_unlabelled,
    judged,
    label,
    main_scale,
    mean,
    recalls,
    scale_of,
    seeds,
    summary,
)

_SHOTS: Any = "all"


def document(results: Results) -> list[Block]:
    """The blocks of the report, in the order of reading."""
    sections = (_verdict, _methods, _choice, features_section, _curves, _recall, _confusion, protocol_section)
    return [block for section in sections for block in section(results)]


def subtitle(results: Results) -> str:
    """One line under the title: what ran."""
    model = results["model"]
    return (
        f"tljax adapt · {model['name']}, {plural(model['parameters'], 'parameter')} · "
        f"step chosen by {results['protocol']['validator']} · {plural(seeds(results), 'seed')}"
    )


def method_table(results: Results) -> Table:
    """A row for each method: accuracy on the target, the paired gain, and further metrics."""
    metric = main_scale(results).metric
    rest = [m for m in tables.reported_metrics(results) if m.key in ("macro_recall", "worst_recall", "nll", "ece")]
    head = ("method", metric.heading, "gain over source only", *(m.heading for m in rest), "source %", "A-distance")
    columns = [tables.metric_column(results, m, _SHOTS) for m in (metric, *rest)]
    rows = []
    for i, method in enumerate(results["methods"]):
        entry = summary(results, method, _SHOTS)
        rows.append(
            (
                Cell(label(method), strong=method == judged(results)),
                columns[0][i],
                gain_cell(results, method),
                *(column[i] for column in columns[1:]),
                _share(results, entry["source_test"]),
                Cell(plain(entry["a_distance"])),
            )
        )
    return Table(head, tuple(rows))


def method_note(results: Results) -> str:
    """What the numbers of the table are."""
    examples = plural(results["target"]["test"], "example")
    more = (
        "Source: accuracy on the source's test part. A-distance: how well a linear classifier tells the domains' "
        "features apart, from 0 (not at all) to 2."
    )
    gain = f"Gain: the paired difference in {main_scale(results).metric.label}, in percentage points"
    if seeds(results) == 1:
        return f"One seed on the target's test part ({examples}): intervals are undefined. Best in bold. {gain}. {more}"
    return (
        f"Mean over {plural(seeds(results), 'seed')} ± half-width of its {percent_level(results)} interval, on the "
        f"target's test part ({examples}). Best in bold. {gain}, with its interval; ▲ helped and ▼ hurt mark those "
        f"that leave out zero. {more}"
    )


def gain_cell(results: Results, method: str) -> Cell:
    """The paired gain of `method` over the source alone."""
    gain = summary(results, method, _SHOTS)["gain"]
    if not gain or not is_finite(gain["mean"]):
        return Cell(MISSING)
    text = f"{main_scale(results).gain(gain['mean'])} {tables.SIGNS.get(gain['outcome'], '')}".strip()
    return Cell(text, tables.interval(results, gain), tone=tables.TONES.get(gain["outcome"], ""))


def negative_sentence(results: Results) -> str:
    """Which methods did worse than the source alone.

    >>> entries = [{"method": "dann", "shots": "all", "metrics": {}, "gain": {"negative": "weak"}}]
    >>> negative_sentence({"methods": ["dann"], "summary": entries})
    'Negative transfer: dann weak (mean below 0).'
    """
    means = {"strong": "strong (interval below 0)", "weak": "weak (mean below 0)"}
    found = [(method, summary(results, method, _SHOTS)["gain"]) for method in results["methods"]]
    said = [f"{label(method)} {means[gain['negative']]}" for method, gain in found if gain and gain["negative"]]
    return f"Negative transfer: {'; '.join(said)}." if said else "Negative transfer: none."


def choice_table(results: Results) -> Table:
    """Accuracy at the step that the validator chose, at the last, and at the best for the test's labels."""
    rows = []
    for method in results["methods"]:
        entry, runs = summary(results, method, _SHOTS), cells(results, method, _SHOTS)
        value, half = mean(results, method, _SHOTS, "accuracy")
        rows.append(
            (
                Cell(label(method), strong=method == judged(results)),
                _share(results, {"mean": value, "half_width": half}, _steps([run["best_step"] for run in runs])),
                _share(results, entry["last"], str(results["protocol"]["steps"])),
                _share(results, entry["oracle"], _steps([run["oracle_step"] for run in runs])),
            )
        )
    by = results["protocol"]["validator"]
    return Table(("method", f"chosen by {by} %", "last step %", "best on the test (oracle) %"), tuple(rows))


def _steps(found: Sequence[int | None]) -> str:
    known = sorted(step for step in found if step is not None)
    return MISSING if not known else f"{known[0]} to {known[-1]}" if known[0] != known[-1] else str(known[0])


def _share(results: Results, found: Mapping[str, Any], steps: str = "") -> Cell:
    scale = main_scale(results)
    if not is_finite(found["mean"]):
        return Cell(MISSING)
    half = f"± {scale.value(found['half_width'])}" if is_finite(found["half_width"]) else ""
    return Cell(scale.value(found["mean"]), ", ".join(filter(None, (half, f"step {steps}" if steps else ""))))


def plain(found: Mapping[str, Any]) -> str:
    """A mean with two decimals."""
    return f"{found['mean']:.2f}" if is_finite(found["mean"]) else MISSING


def _verdict(results: Results) -> list[Block]:
    verdict, scale = results["verdict"], main_scale(results)
    tiles = []
    for method in (judged(results), SOURCE_ONLY):
        value, half = mean(results, method, _SHOTS, verdict["metric"])
        around = "" if half is None else f" ± {scale.value(half)}"
        tiles.append((scale.value(value) + scale.unit, f"{scale.metric.label} on the target, {label(method)}{around}"))
    tiles.append(distance_tile(results))
    return [Verdict(verdict["outcome"], str(verdict["sentence"]), tuple(tiles))]


def distance_tile(results: Results) -> tuple[str, str]:
    """The A-distance before and after, and what it is."""
    distances = [plain(summary(results, method, _SHOTS)["a_distance"]) for method in (SOURCE_ONLY, judged(results))]
    return " → ".join(distances), "A-distance of the domains' features, before and after"


def _methods(results: Results) -> list[Block]:
    return [
        Heading("On the target"),
        method_table(results),
        Paragraph(f"{method_note(results)} {negative_sentence(results)}", small=True),
    ]


def _choice(results: Results) -> list[Block]:
    note = (
        f"Accuracy on the target's test part. Chosen by {results['protocol']['chosen_by']}. The last column chooses "
        "with the labels that it is measured on, which nobody has in use: it only tells how much the choice lost."
    )
    return [Heading("Which step"), choice_table(results), Paragraph(note, small=True)]


def features_section(results: Results) -> list[Block]:
    """The picture of both domains' features before and after."""
    found = results["features"]
    names = " and ".join(label(panel["method"]) for panel in found["panels"])
    distances = ", ".join(
        f"{label(p['method'])} {plain(summary(results, p['method'], _SHOTS)['a_distance'])}" for p in found["panels"]
    )
    source, target = found["sizes"]
    which, colours = "target test examples", "by the labels, which training did not see on the target"
    if is_unlabelled(results):
        which = "target examples, which were trained on without labels,"
        colours = "by the source's labels, and for the target as each model predicts them"
    caption = (
        f"Features of {source} source test examples and {target} {which} by {found['made_by']}, first seed: each model "
        f"by itself, so only positions within a panel compare. Colours: classes, {colours}. A-distance: {distances}."
    )
    alt = f"Features of both domains on a plane, {names}; A-distance {distances}."
    return [Heading("Features of both domains"), Picture("features", alt, caption)]


def _curves(results: Results) -> list[Block]:
    scale = main_scale(results)
    found = curves(results, scale.metric.key)
    if not found:
        return []
    ends = "; ".join(f"{label(c.method)} {scale.value(float(c.values[:, -1].mean()))}{scale.unit}" for c in found)
    caption = "Accuracy on the target's test part, for the report alone, and the training loss."
    caption += lines_note(results)
    return [Heading("Learning curves"), Picture("curves", f"Accuracy against the step; at the end: {ends}.", caption)]


def _recall(results: Results) -> list[Block]:
    names = [str(name) for name in results["target"]["classes"]]
    after, before = recalls(results, judged(results)), recalls(results, SOURCE_ONLY)
    gains = summary(results, judged(results), _SHOTS).get("recall_gains")
    if not after or not before or not gains:
        return []
    order = sorted(range(len(names)), key=lambda i: -abs((gains[i] or {}).get("mean") or 0.0))
    kept = sorted(order[: tables.MOST_RECALLS])
    scale = scale_of(results, "macro_recall")
    rows = tuple(
        (
            Cell(names[i]),
            *(Cell(scale.value(column[i]), bar=column[i]) for column in (before, after)),
            _class_gain(results, gains[i]),
        )
        for i in kept
    )
    left = len(names) - len(kept)
    note = (
        "Share of each class's test examples of the target that were recognised, before and after; the paired gain in "
        f"percentage points{', with its interval' if seeds(results) > 1 else ''}."
        + (f" The {left} classes that changed least are left out." if left else "")
    )
    table = Table(("class", f"{label(SOURCE_ONLY)} %", f"{label(judged(results))} %", "gain"), rows)
    return [Heading("Recall of each class"), table, Paragraph(note, small=True)]


def _class_gain(results: Results, gain: Mapping[str, Any] | None) -> Cell:
    if not gain or not is_finite(gain["mean"]):
        return Cell(MISSING)
    text = f"{main_scale(results).gain(gain['mean'])} {tables.SIGNS.get(gain['outcome'], '')}".strip()
    return Cell(text, tables.interval(results, dict(gain)), tone=tables.TONES.get(gain["outcome"], ""))


def _confusion(results: Results) -> list[Block]:
    found = confusion_picture(results)
    return [Heading("Confusion on the target"), *found] if found else []


def protocol_section(results: Results) -> list[Block]:
    """The data, and how the runs were made."""
    protocol = results["protocol"]
    steady = f"; constant for {', '.join(protocol['steady'])}" if protocol["steady"] else ""
    slower = f", the backbone's times {protocol['backbone_factor']:g}" if protocol["backbone_factor"] != 1 else ""
    rows = (
        *((label(name), text) for name, text in results["objectives"].items()),
        ("optimiser", f"{protocol['optimizer']}{slower}{steady}"),
        ("steps", f"{plural(protocol['steps'], 'step')} of {plural(protocol['batch_size'], 'example')} of each domain"),
        ("bottleneck", f"{protocol['bottleneck'] or 'none'}, the same for every method"),
        ("step chosen by", protocol["chosen_by"]),
        ("seeds", str(protocol["seeds"])),
        ("interval", f"{percent_level(results)} {protocol['interval']}"),
    )
    head = ("task", "data", "classes", "training", "validation", "test", "input")
    data = (
        tables.task_row("source", results["source"], "train", "with labels"),
        tables.task_row("target", results["target"], "pool", "without labels"),
    )
    return [
        Heading("Data and protocol"),
        Table(head, data, numeric=False),
        Paragraph(". ".join(results["notes"]), small=True),
        Table(("setting", "value"), tuple((Cell(name), Cell(value)) for name, value in rows), numeric=False),
        Paragraph("The model:"),
        Preformatted(str(results["model"]["text"]).strip("\n")),
    ]
