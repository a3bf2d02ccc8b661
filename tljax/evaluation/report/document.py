"""The report as blocks: the verdict first, then the evidence, then how it came about."""

from tljax.evaluation.report import adaptation, comparison, standings, tables, unlabelled
from tljax.evaluation.report.blocks import Block, Heading, Paragraph, Picture, Preformatted, Verdict
from tljax.evaluation.report.captions import (
    accuracy_picture,
    confusion_picture,
    curves_picture,
    gain_picture,
    percent_level,
)
from tljax.evaluation.report.effort import compute_section, spread_section
from tljax.evaluation.report.gains import gains_section
from tljax.evaluation.report.numbers import plural
from tljax.evaluation.report.results import (
    BASELINE,
    Results,
    at_main_shots,
    cells,
    check,
    is_adaptation,
    is_comparison,
    is_ranking,
    is_regression,
    is_unlabelled,
    judged,
    label,
    labels_noun,
    main_scale,
    main_shots,
    mean,
    scale_of,
    seeds,
    summary,
)
from tljax.evaluation.report.retained import retained_section
from tljax.evaluation.report.worth import worth_section


def document(results: Results) -> list[Block]:
    """The blocks of the report, in the order of reading; raises `ReportError` for results that lack a part."""
    check(results)
    if is_ranking(results):
        return standings.document(results)
    if is_comparison(results):
        return comparison.document(results)
    if is_unlabelled(results):
        return unlabelled.document(results)
    if is_adaptation(results):
        return adaptation.document(results)
    sections = (
        _verdict, _table, gains_section, _labels, _shots, worth_section, _curves, compute_section, retained_section,
        _confusion, _recall, spread_section, _transferred, _protocol, _reading,
    )  # fmt: skip
    return [block for section in sections for block in section(results)]


def pictures(results: Results) -> list[Picture]:
    """The pictures that these results give rise to."""
    return [block for block in document(results) if isinstance(block, Picture)]


def subtitle(results: Results) -> str:
    """One line under the title: what ran."""
    if is_ranking(results):
        return standings.subtitle(results)
    if is_comparison(results):
        return comparison.subtitle(results)
    if is_adaptation(results):
        return adaptation.subtitle(results)
    shots = ", ".join(str(number) for number in results["shots"])
    noun = labels_noun(results, results["shots"][0] if len(results["shots"]) == 1 else None)
    model = results["model"]
    return (
        f"tljax transfer · {model['name']}, {plural(model['parameters'], 'parameter')} · "
        f"{shots} {noun} · {plural(seeds(results), 'seed')}"
    )


def table_note(results: Results) -> str:
    """What the numbers of the main table are."""
    scale, target = main_scale(results), results["target"]
    split = f"the target test split ({plural(target['test'], 'example')})"
    unit = ", in percentage points" if scale.metric.percent else ""
    worst = _worst(results)
    direction = "" if scale.metric.higher_is_better else " (a fall counts as a gain)"
    gain = f"Gain: the paired difference in {scale.metric.label} to training from scratch{unit}{direction}"
    if seeds(results) == 1:
        return f"One seed on {split}: intervals are undefined. Best in bold. {gain}.{worst}"
    level = percent_level(results)
    return (
        f"Mean over {_unit(results)} ± half-width of its {level} interval, on {split}. Best in bold. "
        f"{gain}, with its {level} interval; ▲ helped and ▼ hurt mark those that leave out zero.{worst}"
    )


def _unit(results: Results) -> str:
    """What the mean is over."""
    repeats = results["protocol"].get("repeats", 1)
    if repeats == 1:
        return plural(seeds(results), "seed")
    return f"{plural(seeds(results), 'draw')} of labels, {repeats} training seeds each,"


def _worst(results: Results) -> str:
    """Of how many test examples the recall of the worst classes is."""
    found = cells(results, judged(results), main_shots(results))
    sizes = sorted({cell["worst_support"] for cell in found if cell.get("worst_support")})
    if not sizes:
        return ""
    return f" Worst class: of {sizes[0]}{f' to {sizes[-1]}' if len(sizes) > 1 else ''} test examples."


def _verdict(results: Results) -> list[Block]:
    verdict = results["verdict"]
    scale = scale_of(results, verdict["metric"])
    shots = main_shots(results)
    tiles = []
    for method in dict.fromkeys((judged(results), BASELINE)):
        value, half = mean(results, method, shots, verdict["metric"])
        around = "" if half is None else f" ± {scale.value(half)}"
        tiles.append((scale.value(value) + scale.unit, f"{scale.metric.label}, {label(method)}{around}"))
    gain = summary(results, judged(results), shots)["gain"]
    if gain:
        bounds = tables.interval(results, gain) or "(one seed: no interval)"
        tiles.append((scale.gain(gain["mean"]) + scale.gain_unit, f"paired gain {bounds}"))
    return [Verdict(verdict["outcome"], str(verdict["sentence"]), tuple(tiles))]


def _table(results: Results) -> list[Block]:
    return [
        Heading(f"With {at_main_shots(results)}"),
        tables.main_table(results, tables.reported_metrics(results)),
        Paragraph(table_note(results), small=True),
        *gain_picture(results),
    ]


def _labels(results: Results) -> list[Block]:
    name = main_scale(results).metric.label
    several = len(results["shots"]) > 1
    heading = f"{name} against {labels_noun(results)}" if several else f"{name} with {at_main_shots(results)}"
    return [Heading(heading[0].upper() + heading[1:]), *accuracy_picture(results)]


def _curves(results: Results) -> list[Block]:
    found = curves_picture(results)
    return [Heading("Learning curves"), *found] if found else []


def _confusion(results: Results) -> list[Block]:
    found = confusion_picture(results)
    return [Heading("Confusion"), *found] if found else []


def _shots(results: Results) -> list[Block]:
    if len(results["shots"]) == 1:
        return []
    scale = main_scale(results)
    interval = "" if seeds(results) == 1 else f" ± half-width of the {percent_level(results)} interval"
    note = f"{scale.metric.heading.rstrip(' ↑↓')} on the target test split: mean{interval}; best in bold."
    return [
        Heading(f"By {labels_noun(results)}"),
        tables.shots_table(results),
        Paragraph(note[0].upper() + note[1:], small=True),
    ]


def _recall(results: Results) -> list[Block]:
    if is_regression(results) or not any(cell.get("confusion") for cell in results["cells"]):
        return []
    left_out = len(results["target"]["classes"]) - tables.MOST_RECALLS
    fewer = f" The {left_out} classes with the smallest differences are left out." if left_out > 0 else ""
    note = (
        f"Share of each class's test examples that were recognised, with {at_main_shots(results)}: mean over "
        f"{plural(seeds(results), 'seed')}; difference in percentage points. "
        f"The lowest recall of each method in bold.{fewer}"
    )
    return [Heading("Recall of each class"), tables.recall_table(results), Paragraph(note, small=True)]


def _transferred(results: Results) -> list[Block]:
    blocks: list[Block] = [Heading("What was transferred")]
    if sentence := _source_sentence(results):
        blocks.append(Paragraph(sentence))
    blocks.append(Preformatted(str(results["graft"]["text"]).strip("\n")))
    model = str(results["model"].get("text") or "").strip("\n")
    return [*blocks, Paragraph("The model:"), Preformatted(model)] if model else blocks


def _source_sentence(results: Results) -> str:
    """How the source model came about; nothing where it was not trained here."""
    source = results["source"]
    if not source.get("steps"):
        return ""
    tests = source.get("test_metrics") or {}
    scales = [scale_of(results, key) for key in ("accuracy", "macro_f1", "nll", "rmse", "r2") if key in tests]
    said = [f"{scale.metric.label} {scale.value(tests[scale.metric.key])}{scale.unit}" for scale in scales]
    once = "once, " if source.get("seeds") == 1 else ""
    means = f" with {source['augmentation']}" if source.get("augmentation") else ""
    best = f" (best on its validation split at step {source['best_step']})" if source.get("best_step") else ""
    tested = f"; on the source test split: {', '.join(said)}" if said else ""
    return f"The source model was trained {once}for {plural(source['steps'], 'step')}{means}{best}{tested}."


def _protocol(results: Results) -> list[Block]:
    return [
        Heading("Data and protocol"),
        tables.split_table(results),
        *_class_names(results),
        tables.protocol_table(results),
        tables.choice_table(results),
        Paragraph(f"What the validation split chose with {at_main_shots(results)}, over all seeds.", small=True),
    ]


def _class_names(results: Results) -> list[Block]:
    lines = []
    for task in ("source", "target"):
        names = [str(name) for name in results[task].get("classes") or ()]
        if names:
            more = f" … and {len(names) - 40} more" if len(names) > 40 else ""
            lines.append(f"{task.capitalize()} classes: {', '.join(names[:40])}{more}.")
    return [Paragraph(" ".join(lines), small=True)] if lines else []


def _reading(results: Results) -> list[Block]:
    protocol = results["protocol"]
    interval = (
        f"A value after ± is the half-width of the {percent_level(results)} interval of a mean "
        f"({protocol['interval']}); a gain is paired: within each seed method and scratch get the same labels, "
        "so what both share cancels out, and its interval may be narrower than theirs."
    )
    if seeds(results) == 1:
        interval = (
            "With one seed there are no intervals: a difference of one run from another may be chance, and only more "
            "seeds can tell."
        )
    undecided = (
        "“Undecided” means that the interval of the paired gain contains zero, or that there is none: these runs do "
        "not tell help from harm, which is not the same as no effect; more seeds narrow the interval."
    )
    return [Heading("How to read it"), Paragraph(f"{interval} {undecided}")]
