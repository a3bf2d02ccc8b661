"""From scored cells to the results that the report shows."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tljax.evaluation import classification, interval, paired_gain, verdict
from tljax.recipes.runs import Cell
from tljax.recipes.settings import Settings
from tljax.recipes.tasks import Examples, Task
from tljax.tree import GraftReport, count

CLASS_METRICS = ("accuracy", "macro_recall", "macro_precision", "macro_f1", "worst_recall", "nll", "brier", "ece")
NUMBER_METRICS = ("mae", "rmse", "r2")


@dataclasses.dataclass(frozen=True)
class Scored:
    """A method's result in one cell."""

    test: Mapping[str, Any]
    """Every metric on the test split."""
    valid: float
    """The monitored metric on the validation split."""
    rate: float | None = None
    best_step: int | None = None
    history: Sequence[Mapping[str, Any]] = ()


Table = Mapping[str, Mapping[Cell, Scored]]


def score_logits(logits: np.ndarray, test: Examples) -> dict[str, Any]:
    """The metrics of the class scores `[M, C]` of all of `test`."""
    metric = classification(test.outputs)
    found = metric.compute(metric.update(metric.init(), jnp.asarray(logits, jnp.float32), jnp.asarray(test.y)))
    return {name: np.asarray(value).tolist() for name, value in jax.device_get(found).items()}


def score_probabilities(probabilities: np.ndarray, test: Examples) -> dict[str, Any]:
    """The metrics of class probabilities `[M, C]`, for methods that are no model."""
    return score_logits(np.log(np.maximum(np.asarray(probabilities, np.float32), 1e-12)), test)


def collect(
    settings: Settings,
    source: Task,
    target: Task,
    pretrained: Mapping[str, Any],
    report: GraftReport,
    params: Any,
    table: Table,
) -> dict[str, Any]:
    """The results as plain JSON values; see the schema in `tljax.evaluation.report`."""
    metrics = NUMBER_METRICS if target.regression else CLASS_METRICS
    summary = [_summary(table, method, shots, metrics) for method in table for shots in settings.all_shots]
    sizes = target.described()
    return {
        "title": settings.title,
        "verdict": _verdict(settings, table, metrics[0] if not target.regression else "rmse"),
        "source": source.described()
        | {
            "test_metrics": numbers_of(pretrained["test"], CLASS_METRICS),
            "seeds": 1,
            "steps": settings.pretrain_steps,
            "best_step": pretrained["best_step"],
            "augmentation": pretrained["augmentation"],
        },
        "target": {k: v for k, v in sizes.items() if k != "train"} | {"pool": sizes["train"]},
        "model": {"name": settings.model, "parameters": count(params)},
        "graft": {"text": str(report), "counts": dict(report.leaves)},
        "protocol": _protocol(settings, target),
        "shots": list(settings.all_shots),
        "methods": list(table),
        "cells": [_cell(m, c, s, metrics) for m, cells in table.items() for c, s in cells.items()],
        "curves": _curves(settings, table, "rmse" if target.regression else "accuracy"),
        "summary": summary,
    }


def _protocol(settings: Settings, target: Task) -> dict[str, Any]:
    monitor = "rmse" if target.regression else "accuracy"
    return {
        "seeds": settings.seeds,
        "steps": settings.steps,
        "batch_size": settings.batch_size,
        "rates": list(settings.learning_rates),
        "optimizer": "adamw, cosine decay",
        "chosen_by": f"{monitor} on the validation split ({len(target.valid)} examples), never the test split",
        "level": 0.95,
        "interval": "t-interval over seeds; a seed is a draw of labels, initialisation and data order",
    }


def _cell(method: str, cell: Cell, scored: Scored, metrics: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "method": method,
        "shots": cell[0],
        "seed": cell[1],
        "rate": scored.rate,
        "best_step": scored.best_step,
        "valid": scored.valid,
        "test": numbers_of(scored.test, metrics),
    }
    if "confusion" in scored.test:
        found |= {
            "confusion": np.asarray(scored.test["confusion"]).tolist(),
            "worst_class": int(scored.test["worst_class"]),
        }
    return found


def _summary(table: Table, method: str, shots: int, metrics: Sequence[str]) -> dict[str, Any]:
    return {
        "method": method,
        "shots": shots,
        "metrics": {name: mean_of(_over_seeds(table[method], shots, name)) for name in metrics},
        "gain": None
        if method == "scratch"
        else _gain(table, method, shots, "rmse" if "rmse" in metrics else "accuracy"),
    }


def mean_of(values: Sequence[float]) -> dict[str, float | None]:
    """The mean over seeds, and half the width of its interval.

    >>> mean_of([0.5])
    {'mean': 0.5, 'half_width': None}
    """
    found = interval(values)
    return {"mean": found.mean, "half_width": or_none(found.half_width)}


def _gain(table: Table, method: str, shots: int, metric: str) -> dict[str, Any]:
    values, base = (_over_seeds(table[name], shots, metric) for name in (method, "scratch"))
    return gain_over("scratch", values, base, metric)


def gain_over(baseline: str, values: Sequence[float], base: Sequence[float], metric: str) -> dict[str, Any]:
    """The paired gain over the method `baseline`, one value a seed, as JSON values.

    >>> gain_over("scratch", [0.5, 0.75], [0.25, 0.5], "accuracy")["mean"]
    0.25
    """
    gain = paired_gain(values, base, higher_is_better=metric != "rmse")
    return {
        "over": baseline,
        "mean": gain.mean,
        "low": or_none(gain.interval.low),
        "high": or_none(gain.interval.high),
        "values": list(gain.differences),
        "outcome": verdict(gain, metric=metric).outcome,
    }


def _verdict(settings: Settings, table: Table, metric: str) -> dict[str, Any]:
    shots = settings.labels_per_class
    a, b = (_over_seeds(table[method], shots, metric) for method in (settings.method, "scratch"))
    found = verdict(paired_gain(a, b, higher_is_better=metric != "rmse"), metric=metric)
    judged = {"method": settings.method, "shots": shots, "metric": metric}
    return {"outcome": found.outcome, "sentence": found.sentence} | judged


def _curves(settings: Settings, table: Table, metric: str) -> list[dict[str, Any]]:
    found = []
    for method, cells in table.items():
        for shots in settings.all_shots:
            runs = [scored.history for (k, _), scored in cells.items() if k == shots and scored.history]
            if runs:
                found.append({"method": method, "shots": shots} | curve(runs, metric))
    return found


def curve(runs: Sequence[Sequence[Mapping[str, Any]]], metric: str) -> dict[str, Any]:
    """The learning curves of some runs from the rows of their logs, a list a run; None where a run has no value.

    >>> curve([[{"step": 2, "split": "valid", "accuracy": 0.5}]], "accuracy")
    {'steps': [2], 'accuracy': [[0.5]], 'train_loss': [[None]]}
    """

    def by_step(rows: Sequence[Mapping[str, Any]], part: str, name: str) -> dict[int, float]:
        return {row["step"]: row[name] for row in rows if row["split"] == part and name in row}

    valid = [by_step(rows, "valid", metric) for rows in runs]
    loss = [by_step(rows, "train", "loss") for rows in runs]
    steps = sorted({step for run in valid for step in run})
    return {
        "steps": steps,
        metric: [[run.get(step) for step in steps] for run in valid],
        "train_loss": [[run.get(step) for step in steps] for run in loss],
    }


def _over_seeds(cells: Mapping[Cell, Scored], shots: int, metric: str) -> list[float]:
    return [float(scored.test[metric]) for (k, _), scored in cells.items() if k == shots]


def numbers_of(found: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    """Those of the metrics `names` that were found.

    >>> numbers_of({"accuracy": 1, "confusion": [[1]]}, ["accuracy", "nll"])
    {'accuracy': 1.0}
    """
    return {name: float(found[name]) for name in names if name in found}


def or_none(value: float) -> float | None:
    """`value` where it is finite, as JSON has no other.

    >>> or_none(0.5), or_none(math.nan)
    (0.5, None)
    """
    return value if math.isfinite(value) else None
