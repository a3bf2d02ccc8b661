"""From the results of the methods to those of the comparison, which the report shows."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tljax.evaluation import paired_gain, verdict
from tljax.evaluation.report.comparison import REFERENCES
from tljax.evaluation.report.results import label
from tljax.recipes.finetune.methods import BASELINE
from tljax.recipes.finetune.settings import FinetuneSettings
from tljax.recipes.finetune.setup import Setup
from tljax.recipes.results import CLASS_METRICS, accuracy_step, curve, gain_over, mean_of, numbers_of, or_none
from tljax.tree import count

METRIC = "accuracy"


def collect(settings: FinetuneSettings, setup: Setup, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The comparison as plain JSON values; `found` has the result of every method."""
    shots = settings.labels_per_class or "all"
    sizes = setup.task.described()
    return {
        "kind": "comparison",
        "title": settings.title,
        "verdict": _verdict(settings, found, shots),
        "target": {k: v for k, v in sizes.items() if k != "train"} | {"pool": sizes["train"]},
        "notes": [*setup.task.notes, *_added(settings)],
        "model": {
            "name": setup.pretrained.model.name,
            "parameters": count(setup.pretrained.params),
            "text": str(setup.pretrained.report),
        },
        "protocol": _protocol(settings, setup, found),
        "shots": [shots],
        "methods": list(found),
        "cells": [_cell(name, shots, cell) for name, result in found.items() for cell in result["cells"]],
        "curves": [
            {"method": name, "shots": shots} | curve([cell["history"] for cell in result["cells"]], METRIC)
            for name, result in found.items()
        ],
        "summary": [_summary(found, name, shots) for name in found],
    }


def chosen_method(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The method that validation likes best, as a mean over seeds; of equals the first.

    >>> chosen_method({"a": {"cells": [{"valid": 0.5}]}, "b": {"cells": [{"valid": 0.75}]}})
    'b'
    """
    return max(found, key=lambda name: float(np.mean([cell["valid"] for cell in found[name]["cells"]])))


def _added(settings: FinetuneSettings) -> list[str]:
    """What says that the loss was regularised."""
    parts = ", ".join(f"{weight:g} times {name}" for name, weight in settings.regularizers.items())
    return [f"added to the loss of all but the probe: {parts}"] if parts else []


def _values(result: Mapping[str, Any], metric: str) -> list[float]:
    return [float(cell["test"][metric]) for cell in result["cells"]]


def _summary(found: Mapping[str, Mapping[str, Any]], name: str, shots: Any) -> dict[str, Any]:
    result = found[name]
    gains = {
        other: gain_over(
            other,
            _values(result, METRIC),
            _values(found[other], METRIC),
            METRIC,
            resolution=accuracy_step(result["cells"]),
        )
        for other in REFERENCES
        if other in found and other != name
    }
    return {
        "method": name,
        "shots": shots,
        "metrics": {m: mean_of(_values(result, m)) for m in CLASS_METRICS if m in result["cells"][0]["test"]},
        "gains": gains,
        "cost": result["cost"],
        "rates": result["rates"],
        "steps": result["steps"],
        "on_features": result["on_features"],
    }


def _verdict(settings: FinetuneSettings, found: Mapping[str, Mapping[str, Any]], shots: Any) -> dict[str, Any]:
    """Whether the first method that is no probe is better than the probe."""
    judged = next((name for name in settings.methods if name != BASELINE), BASELINE)
    own, base = (_values(found[name], METRIC) for name in (judged, BASELINE))
    gain = paired_gain(own, base, resolution=accuracy_step(found[judged]["cells"]))
    subject = label(judged)
    said = verdict(
        gain, metric=METRIC, baseline="a linear probe of the frozen model", subject=subject[0].upper() + subject[1:]
    )
    return {
        "method": judged, "shots": shots, "metric": METRIC, "outcome": said.outcome, "sentence": said.sentence,
    }  # fmt: skip


def _protocol(settings: FinetuneSettings, setup: Setup, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    tuned = "every seed its own" if settings.tune == "every" else "the first seed chooses for all"
    return {
        "seeds": settings.seeds,
        "steps": settings.steps,
        "batch_size": settings.batch_size,
        "optimizer": f"adamw, linear warm-up and cosine decay{settings.clipping}",
        "chosen_by": f"{METRIC} on the validation split ({len(setup.task.valid)} examples), never the test split",
        "tuned": tuned,
        "adapters": {"rank": settings.rank, "alpha": settings.alpha, "target": list(settings.target)},
        "level": 0.95,
        "interval": "t-interval over seeds; a seed is a draw of labels, head and adapters, and data order",
    }


def _cell(name: str, shots: Any, cell: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "method": name,
        "shots": shots,
        "seed": cell["seed"],
        "rate": cell["rate"],
        "tried": {rate: or_none(value) for rate, value in cell["tried"].items()},
        "best_step": cell["best_step"],
        "valid": or_none(cell["valid"]),
        "test": numbers_of(cell["test"], CLASS_METRICS),
        "confusion": cell["test"]["confusion"],
        "temperature": or_none(cell["test"].get("temperature", float("nan"))),
        "labels": cell.get("labels"),
    }
