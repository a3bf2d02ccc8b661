"""From the runs of all methods to the results of an adaptation, which the report shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tljax.evaluation import paired_gain, verdict
from tljax.recipes.adapting.methods import BASELINE
from tljax.recipes.adapting.settings import AdaptSettings
from tljax.recipes.adapting.setup import Setup
from tljax.recipes.adapting.train import DECAY, MOMENTUM, ORACLE, Trained
from tljax.recipes.results import CLASS_METRICS, accuracy_step, curve, gain_over, mean_of, numbers_of, or_nan, or_none
from tljax.tree import count

METRIC = "accuracy"
_NAMES = {"source_accuracy": "accuracy on the source's validation part", "source_likelihood":
          "likelihood of the source's validation labels", "certainty": "certainty of the predictions for the target",
          "im": "information maximisation on the target", "bnm": "nuclear norm of the target's predictions",
          "snd": "soft neighbourhood density of the target", "dev": "deep embedded validation",
          "oracle": "the accuracy on the target's test labels (oracle)"}  # fmt: skip


def collect(setup: Setup, runs: Mapping[str, Sequence[Trained]], cells: Mapping[str, list[dict[str, Any]]]) -> dict:
    """The adaptation as plain JSON values; see `tljax.evaluation.report`."""
    return about(setup, runs, METRIC, ORACLE) | {
        "verdict": _verdict(cells),
        "cells": [_told(cell) for found in cells.values() for cell in found],
        "summary": [_summary(cells, name) for name in cells],
    }


def about(setup: Setup, runs: Mapping[str, Sequence[Trained]], metric: str, logged: str) -> dict[str, Any]:
    """The part of the results that tells of what, and how; the curves are of `metric`, which logs call `logged`."""
    settings, (source, target) = setup.settings, setup.domains
    sizes = target.described()
    return {
        "kind": "adaptation",
        "unlabelled": settings.unlabelled,
        "title": settings.title,
        "source": source.described(),
        "target": {k: v for k, v in sizes.items() if k != "train"} | {"pool": sizes["train"]},
        "notes": [f"{task.name}: {note}" for task in setup.domains for note in task.notes] + _doubts(settings, runs),
        "model": {"name": setup.model.name, "parameters": count(setup.starts[0]), "text": setup.about},
        "protocol": _protocol(setup),
        "shots": ["all"],
        "methods": list(runs),
        "objectives": {a.name: str(a.objective) for a in settings.compared},
        "curves": [
            {"method": name, "shots": "all"} | _curves([run.history for run in found], metric, logged)
            for name, found in runs.items()
        ],
    }


def _doubts(settings: AdaptSettings, runs: Mapping[str, Sequence[Trained]]) -> list[str]:
    """A note where DEV's estimates of the error rate, which nothing bounds, are none that there can be."""
    values = [run.value for found in runs.values() for run in found]
    beyond = [-value for value in values if not -1 <= value <= 0] if settings.validator == "dev" else []
    if not beyond:
        return []
    return [
        f"dev: in {len(beyond)} of {len(values)} runs the error rate that it estimates for the chosen step is outside "
        f"0 to 1 ({min(beyond):.2f} to {max(beyond):.2f}), and the choice means little: take another --validator"
    ]


def _curves(histories: Sequence[Sequence[Mapping[str, Any]]], metric: str, logged: str) -> dict[str, Any]:
    """Against the step: `metric`, and the training loss."""
    return {(metric if key == logged else key): value for key, value in curve(histories, logged).items()}


def _told(cell: Mapping[str, Any]) -> dict[str, Any]:
    test = cell["test"]
    return dict(cell) | {
        "test": numbers_of(test, CLASS_METRICS),
        "confusion": test["confusion"],
        "temperature": or_none(test["temperature"]),
    }


def _values(cells: Sequence[Mapping[str, Any]], metric: str = METRIC) -> list[float]:
    return [float(cell["test"][metric]) for cell in cells]


def _summary(cells: Mapping[str, list[dict[str, Any]]], name: str) -> dict[str, Any]:
    own, base = cells[name], cells[BASELINE]
    gain = (
        None
        if name == BASELINE
        else gain_over(BASELINE, _values(own), _values(base), METRIC, resolution=accuracy_step(own))
    )
    more = {
        key: mean_of([or_nan(cell[key]) for cell in own]) for key in ("source_test", "last", "oracle", "a_distance")
    }
    return {
        "method": name,
        "shots": "all",
        "metrics": {metric: mean_of(_values(own, metric)) for metric in CLASS_METRICS},
        "gain": gain,
        "gains": {BASELINE: gain} if gain else {},
        "recall_gains": None if gain is None else _recall_gains(own, base),
    } | more


def _recall_gains(own: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | None]:
    """The paired gain in each class's recall; None for a class without test examples."""
    matrices = [np.asarray([cell["test"]["confusion"] for cell in found], np.float64) for found in (own, base)]
    found: list[dict[str, Any] | None] = []
    for c in range(matrices[0].shape[1]):
        if not matrices[0][0, c].sum():
            found.append(None)
            continue
        shares = [[float(m[c, c] / m[c].sum()) for m in stack] for stack in matrices]
        gain = gain_over(BASELINE, shares[0], shares[1], METRIC, resolution=1 / matrices[0][0, c].sum())
        found.append({key: gain[key] for key in ("mean", "low", "high", "outcome")})
    return found


def _verdict(cells: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Whether the first method is better than training on the source alone."""
    judged = next(iter(cells))
    gain = paired_gain(_values(cells[judged]), _values(cells[BASELINE]), resolution=accuracy_step(cells[judged]))
    said = verdict(gain, metric=METRIC, baseline="training on the source alone", subject="Adaptation")
    return {
        "method": judged, "shots": "all", "metric": METRIC, "outcome": said.outcome, "sentence": said.sentence,
    }  # fmt: skip


def _protocol(setup: Setup) -> dict[str, Any]:
    settings, target = setup.settings, setup.domains.target
    falling = f"rate {settings.learning_rate:g} (1 + {DECAY:g} i)^-0.75{settings.clipping}"
    labels = "read for the choice" if settings.validator == "oracle" else "read for the report alone"
    known = f"the labels of the target's {len(target.test)} test examples are {labels}"
    return {
        "seeds": settings.seeds,
        "steps": settings.steps,
        "batch_size": settings.batch_size,
        "optimizer": f"SGD, Nesterov momentum {MOMENTUM:g}, weight decay {settings.weight_decay:g}, {falling}",
        "steady": [a.name for a in settings.compared if a.steady],
        "backbone_factor": settings.backbone_factor,
        "bottleneck": settings.width,
        "validator": settings.validator,
        "chosen_by": f"{_NAMES[settings.validator]}; "
        + ("no labels of the target are known" if settings.unlabelled else known),
        "level": 0.95,
        "interval": "t-interval over seeds; a seed is initialisation and data order",
    }
