"""`tljax evaluate`: the metrics of finished runs side by side, as they recorded them or on new data."""

import dataclasses
import json
import os
import pathlib
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from tljax.evaluation import evaluate, predict
from tljax.evaluation.report.numbers import count, in_order, plural, scale
from tljax.evaluation.report.results import label, main_shots, summary
from tljax.evaluation.report.text import WIDTH, aligned
from tljax.recipes.adapting.learnt import on_new_data as adapted_on_new_data
from tljax.recipes.chosen import new_data, read_kept
from tljax.recipes.finetune.learnt import on_new_data
from tljax.recipes.finished import Finished, names_of, read_methods
from tljax.recipes.options import SettingsError
from tljax.recipes.results import CLASS_METRICS, NUMBER_METRICS, mean_of, score_logits

SHOWN = ("accuracy", "macro_f1", "worst_recall", "nll", "brier", "ece", "rmse", "mae", "r2")
"""The metrics of the table; the JSON has all."""


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """The metrics of some runs: one row for each run and method, as JSON values."""

    rows: list[dict[str, Any]]
    notes: list[str]

    @property
    def json(self) -> str:
        """All that is known, for programs."""
        return json.dumps({"rows": self.rows, "notes": self.notes}, indent=1)

    def __str__(self) -> str:
        keys = {key for row in self.rows for key in row["metrics"]} & set(SHOWN)
        metrics = in_order(keys)
        scales = [
            scale(m, [row["metrics"][m.key]["mean"] for row in self.rows if m.key in row["metrics"]]) for m in metrics
        ]
        runs = len({row["run"] for row in self.rows}) > 1
        table = [(*(("run",) if runs else ()), "method", "labels", *(m.heading for m in metrics))]
        for row in self.rows:
            cells = [_cell(row["metrics"].get(s.metric.key), s) for s in scales]
            table.append((*((_short(row["run"]),) if runs else ()), label(row["method"]), str(row["shots"]), *cells))
        text = [aligned(_joined(table) if runs else table), *(textwrap.fill(note, WIDTH) for note in self.notes)]
        return "\n\n".join(text) + "\n"


def run_evaluate(
    folders: Sequence[str | os.PathLike[str]],
    *,
    data: str | None = None,
    classes: str | None = None,
    label: str | None = None,
) -> Evaluated:
    """The metrics of the finished runs in `folders`, at the number of labels of their verdicts.

    Args:
      data: new data, of which all examples are evaluated with the models that validation chose; None reads what the
        runs recorded of their own test splits.
      classes: only these classes of the new data; for runs of `tljax transfer`.
      label: the label column of the new data, where they are a table.

    Raises:
      RunError: a folder that holds no complete run, or no models.
      DataError, SettingsError: new data that cannot be read or do not fit.

    >>> run_evaluate(["nowhere"])
    Traceback (most recent call last):
    tljax.checkpoints.run.RunError: there is no folder 'nowhere'; ...
    """
    runs = [read_methods(folder, measured=data is None) for folder in folders]
    rows, notes = [], []
    for name, run in zip(names_of(runs), runs):
        if classes is not None and run.command != "transfer":
            raise SettingsError(f"classes={classes!r} is for runs of tljax transfer; {run.folder} is of {run.command}")
        if data is None:
            found = _recorded(run)
        elif run.command == "transfer":
            found = _transferred(run, data, classes, label)
        elif run.command == "adapt":
            found = adapted_on_new_data(run.folder, run.config, run.results, data, label)
        else:
            found = on_new_data(run.folder, run.config, run.results, data, label)
        rows += [{"run": name, "folder": str(run.folder)} | row for row in found]
    notes.append(_about(rows, data))
    if len({json.dumps(_task(run)) for run in runs}) > 1:
        notes.append("The runs are of different tasks: their numbers are no comparison.")
    return Evaluated(rows, notes)


def _recorded(run: Finished) -> list[dict[str, Any]]:
    shots = main_shots(run.results)
    rows = []
    for method in run.results["methods"]:
        metrics = summary(run.results, method, shots)["metrics"]
        seeds, test = run.results["protocol"]["seeds"], run.results["target"]["test"]
        rows.append({"method": method, "shots": shots, "seeds": seeds, "examples": test, "metrics": dict(metrics)})
    return rows


def _transferred(run: Finished, spec: str, classes: str | None, column: str | None) -> list[dict[str, Any]]:
    kept = read_kept(run.folder)
    data = new_data(kept.about, spec, classes=classes, label=column)
    calm = {
        (c["method"], c["shots"], c["seed"], c.get("repeat", 0)): c.get("temperature") for c in run.results["cells"]
    }
    rows = []
    for method in (name for name in run.results["methods"] if name in kept.params):
        by_seed: dict[int, list[dict[str, Any]]] = {}
        for cell, params in kept.params[method].items():
            if kept.about["classes"]:
                logits = np.asarray(predict(kept.model, params, data.x).logits)
                scores = score_logits(logits, data, calm.get((method, *cell)) or float("nan"))
            else:
                scores = dict(evaluate(kept.model, params, data))
            by_seed.setdefault(cell.seed, []).append(scores)
        names = CLASS_METRICS if kept.about["classes"] else NUMBER_METRICS
        means = {n: [float(np.mean([s[n] for s in scores])) for scores in by_seed.values()] for n in names}
        metrics = {name: mean_of(values) | {"values": values} for name, values in means.items()}
        shots = next(iter(kept.params[method])).shots
        rows.append(
            {"method": method, "shots": shots, "seeds": len(by_seed), "examples": len(data), "metrics": metrics}
        )
    return rows


def _task(run: Finished) -> Any:
    target = run.results["target"]
    return [target.get("classes"), target.get("test")]


def _about(rows: list[dict[str, Any]], data: str | None) -> str:
    sizes = sorted({row["examples"] for row in rows})
    where = "the test split of each run" if data is None else f"all of {pathlib.PurePath(data).name}"
    examples = plural(sizes[0], "example") if len(sizes) == 1 else f"{count(sizes[0])} to {count(sizes[-1])} examples"
    seeds = sorted({row["seeds"] for row in rows})
    if seeds == [1]:
        return f"One seed on {where} ({examples}): intervals are undefined."
    each = plural(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    one = " One seed has no interval." if seeds[0] == 1 else ""
    return f"Mean over {each} ± half-width of its 95 % interval, on {where} ({examples}).{one}"


def _cell(found: dict[str, Any] | None, by: Any) -> str:
    if not found:
        return "–"
    half = found.get("half_width")
    return by.value(found["mean"]) + ("" if half is None else f" ± {by.value(half)}")


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else f"…{name[1 - most :]}"


def _joined(table: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Run and method in one column, so that a table that is cut repeats both."""
    return [(f"{row[0]}  {row[1]}" if i else "run  method", *row[2:]) for i, row in enumerate(table)]
