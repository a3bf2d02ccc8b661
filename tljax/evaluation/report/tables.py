"""The tables of the report, from the results."""

from collections import Counter

from tljax.evaluation.report.blocks import Cell, Table
from tljax.evaluation.report.numbers import MISSING, Metric, count, in_order, plural
from tljax.evaluation.report.results import (
    BASELINE,
    Results,
    cells,
    is_finite,
    judged,
    label,
    labels_noun,
    main_scale,
    main_shots,
    mean,
    recalls,
    scale_of,
    summary,
)

GAIN = "gain over scratch"
"""The head of the column of paired gains."""

MOST_RECALLS = 40
"""The most classes whose recalls are listed."""

TONES = {"helped": "good", "hurt": "bad"}
SIGNS = {"helped": "▲", "hurt": "▼"}


def reported_metrics(results: Results) -> list[Metric]:
    """The metrics of the test split, in the report's order."""
    keys = dict.fromkeys(key for entry in results["summary"] for key in entry["metrics"])
    return in_order(keys)


def main_table(results: Results, metrics: list[Metric]) -> Table:
    """Methods x `metrics` at the main shots, with the paired gain over scratch after the metric it is of."""
    shots, methods = main_shots(results), results["methods"]
    columns = []
    for found in metrics:
        columns.append((found.heading, metric_column(results, found, shots)))
        if found.key == results["verdict"]["metric"]:
            columns.append((GAIN, [gain_cell(results, method, shots) for method in methods]))
    rows = [
        (Cell(label(method), strong=method == judged(results)), *(column[i] for _, column in columns))
        for i, method in enumerate(methods)
    ]
    return Table(("method", *(head for head, _ in columns)), tuple(rows))


def shots_table(results: Results) -> Table:
    """The verdict's metric for every method and number of labels, and the judged method's gain."""
    scale = main_scale(results)
    columns = [metric_column(results, scale.metric, shots) for shots in results["shots"]]
    rows = [
        (Cell(label(method), strong=method == judged(results)), *(column[i] for column in columns))
        for i, method in enumerate(results["methods"])
    ]
    gains = [gain_cell(results, judged(results), shots) for shots in results["shots"]]
    rows.append((Cell(f"gain of {label(judged(results))}"), *gains))
    return Table((labels_noun(results), *(str(shots) for shots in results["shots"])), tuple(rows))


def gain_cell(results: Results, method: str, shots: int) -> Cell:
    """The paired gain of `method` over scratch with its interval; its tone tells helped from hurt."""
    gain = summary(results, method, shots)["gain"]
    if not gain:
        return Cell(MISSING)
    scale = main_scale(results)
    outcome = gain.get("outcome", "")
    text = f"{scale.gain(gain['mean'])} {SIGNS.get(outcome, '')}".strip()
    return Cell(text, interval(results, gain), tone=TONES.get(outcome, ""))


def interval(results: Results, gain: dict[str, float | None]) -> str:
    """The interval of a gain as `[low, high]`; nothing where one seed defines none."""
    if gain.get("low") is None or gain.get("high") is None:
        return ""
    scale = main_scale(results)
    return f"[{scale.gain(gain['low'])}, {scale.gain(gain['high'])}]"


def recall_table(results: Results) -> Table:
    """Recall of each class for the judged method and scratch; the lowest of each in bold.

    Beyond `MOST_RECALLS` classes only those where the two differ most, still in the order of the classes.
    """
    methods = [judged(results), BASELINE]
    found = [recalls(results, method) for method in methods]
    scale = scale_of(results, "macro_recall")
    names = results["target"]["classes"]
    pairs = [[column[i] if column and i < len(column) else None for column in found] for i in range(len(names))]
    gaps = [abs(new - old) if new is not None and old is not None else 0.0 for new, old in pairs]
    kept = sorted(sorted(range(len(names)), key=lambda i: -gaps[i])[:MOST_RECALLS])
    rows = []
    for name, pair in ((names[i], pairs[i]) for i in kept):
        shown = [
            Cell(scale.value(value), strong=value is not None and value == _lowest(column), bar=value)
            for value, column in zip(pair, found)
        ]
        rows.append((Cell(str(name)), *shown, _change(scale.gain, *pair)))
    head = ("class", *(f"{label(method)} %" for method in methods), "difference")
    return Table(head, tuple(rows))


def split_table(results: Results) -> Table:
    """The sizes of every split of both tasks."""
    source, target = results["source"], results["target"]
    rows = (
        task_row("source", source, "train", "trained on"),
        task_row("target", target, "pool", "few-shot sets drawn from"),
    )
    return Table(("task", "data", "classes", "training", "validation", "test", "input"), rows, numeric=False)


def choice_table(results: Results) -> Table:
    """Which learning rates the validation split chose, and at which step it was best, at the main shots."""
    rows = []
    for method in results["methods"]:
        found = cells(results, method, main_shots(results))
        rates = Counter(cell["rate"] for cell in found if cell.get("rate") is not None)
        steps = sorted(cell["best_step"] for cell in found if cell.get("best_step") is not None)
        chosen = ", ".join(f"{rate:g} ({times}×)" for rate, times in sorted(rates.items())) or MISSING
        spread = MISSING if not steps else f"{steps[0]} to {steps[-1]}" if steps[0] != steps[-1] else str(steps[0])
        rows.append((Cell(label(method)), Cell(chosen), Cell(spread)))
    return Table(("method", "learning rate chosen", "best step"), tuple(rows), numeric=False)


def protocol_table(results: Results) -> Table:
    """How the runs were made, and who chose what."""
    protocol = results["protocol"]
    level = f"{100 * protocol.get('level', 0.95):g} %"
    settings = (
        ("optimiser", f"{protocol['optimizer']}, the same for every trained method"),
        ("steps", f"at most {plural(protocol['steps'], 'step')} of {plural(protocol['batch_size'], 'example')}"),
        ("learning rates tried", f"{', '.join(f'{rate:g}' for rate in protocol['rates'])}, for every trained method"),
        ("learning rate and stopping step chosen by", str(protocol["chosen_by"])),
        ("seeds", str(protocol["seeds"])),
        ("interval", f"{level} {protocol['interval']}"),
    )
    return Table(("setting", "value"), tuple((Cell(name), Cell(value)) for name, value in settings), numeric=False)


def metric_column(results: Results, found: Metric, shots: int) -> list[Cell]:
    """One cell a method; the best value, as it is written, is strong unless all are the same."""
    scale = scale_of(results, found.key)
    values = [mean(results, method, shots, found.key) for method in results["methods"]]
    known = [value for value, _ in values if is_finite(value)]
    best = None
    if found.higher_is_better is not None and len({scale.value(value) for value in known}) > 1:
        best = scale.value(max(known) if found.higher_is_better else min(known))
    return [
        Cell(scale.value(value), "" if half is None else f"± {scale.value(half)}", scale.value(value) == best)
        for value, half in values
    ]


def _lowest(column: list[float | None] | None) -> float | None:
    return min((value for value in column or () if value is not None), default=None)


def _change(write, new: float | None, old: float | None) -> Cell:
    if new is None or old is None:
        return Cell(MISSING)
    return Cell(write(new - old))


def task_row(kind: str, task: Results, size: str, note: str) -> tuple[Cell, ...]:
    """One row of the table of data: the classes, the shape and the sizes of a task."""
    classes = task.get("classes")
    shape = "×".join(str(side) for side in task.get("input") or ())
    sizes = [task.get(key) for key in (size, "valid", "test")]
    training, valid, test = (MISSING if found is None else count(found) for found in sizes)
    number = str(len(classes)) if classes else MISSING
    return (
        Cell(kind),
        Cell(str(task.get("name", MISSING))),
        Cell(number),
        Cell(training, f"({note})"),
        Cell(valid),
        Cell(test),
        Cell(shape or MISSING),
    )
