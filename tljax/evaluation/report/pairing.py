"""Which numbers of two runs belong together: the same draw of labels of one task."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tljax.evaluation.gain import Gain, paired_gain
from tljax.evaluation.report.numbers import metric as metric_called
from tljax.evaluation.report.results import ReportError, Results, cells, is_finite, main_shots


class Run(NamedTuple):
    """A finished run, and what it is called beside another."""

    name: str
    results: Results


class Pairs(NamedTuple):
    """The paired difference of two runs, second minus first."""

    gain: Gain | None
    """None where nothing is paired."""
    unpaired: int
    """Draws of labels that only one of the runs has, or that were others."""


def check_same_task(first: Run, second: Run) -> None:
    """Raise `ReportError` unless both runs are of one target task: the same classes, splits of the same sizes."""
    tasks = [run.results["target"] for run in (first, second)]
    for key, said in (("classes", "classes"), ("test", "test examples"), ("valid", "validation examples")):
        a, b = (task.get(key) for task in tasks)
        if (a or None) != (b or None):
            raise ReportError(
                f"the runs are of different tasks: {first.name} ({tasks[0].get('name')}) has {said} {_told(a)}, "
                f"{second.name} ({tasks[1].get('name')}) {_told(b)}; runs side by side need one target task"
            )


def _told(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def common_shots(first: Run, second: Run) -> Any:
    """The number of labels at which both can be compared: that of both verdicts, else the largest that both have.

    None where they have none in common.
    """
    mains = [main_shots(run.results) for run in (first, second)]
    if mains[0] == mains[1]:
        return mains[0]
    both = [shots for shots in first.results["shots"] if shots in second.results["shots"]]
    return both[-1] if both else None


def paired(first: Run, second: Run, methods: tuple[str, str], shots: Any, metric: str) -> Pairs:
    """The difference in `metric` between a method of each run, over the draws of labels that both have.

    Draws are the same where their number and the examples drawn are; runs that did not record these are not paired. A
    draw with several training seeds counts once, by their mean. A fall of an error counts as a gain.
    """
    a, b = (_by_draw(run.results, name, shots, metric) for run, name in zip((first, second), methods))
    both = [draw for draw in a if draw in b and draw[1] is not None and is_finite(a[draw]) and is_finite(b[draw])]
    left = len(a.keys() | b.keys()) - len(both)
    if not both:
        return Pairs(None, left)
    better = metric_called(metric).higher_is_better is not False
    step = _step(cells(second.results, methods[1], shots), metric)
    gain = paired_gain([b[d] for d in both], [a[d] for d in both], higher_is_better=better, resolution=step)
    return Pairs(gain, left)


def _step(cells: Sequence[Mapping[str, Any]], metric: str) -> float:
    """In which steps the accuracy comes; 0 where that was not recorded, or for another metric."""
    known = [cell["confusion"] for cell in cells if cell.get("confusion")]
    return 1 / float(np.sum(known[0])) if known and metric == "accuracy" else 0.0


def _by_draw(results: Results, method: str, shots: Any, metric: str) -> dict[tuple[int, Any], float]:
    found: dict[tuple[int, Any], list[float]] = {}
    for cell in cells(results, method, shots):
        value = cell["test"].get(metric)
        found.setdefault((cell["seed"], cell.get("labels")), []).append(np.nan if value is None else value)
    return {draw: float(np.mean(values)) for draw, values in found.items()}
