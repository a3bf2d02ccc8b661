"""What can be told of a target whose labels nobody knows: signs, and what each example is predicted to be."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax.evaluation import validator
from tljax.evaluation.report.numbers import metric, scale
from tljax.recipes.adapting.measure import accuracy_of, distance
from tljax.recipes.adapting.methods import BASELINE
from tljax.recipes.adapting.results import about
from tljax.recipes.adapting.setup import Setup
from tljax.recipes.adapting.train import Trained
from tljax.recipes.finetune.scoring import outputs
from tljax.recipes.results import drawn, fitted_temperature, gain_over, mean_of, or_nan, or_none

PREDICTIONS = "predictions.csv"
METRIC = "validator"
"""What the number that chose the step is called in the results."""


class Look(NamedTuple):
    """What one run says of the target."""

    cell: dict[str, Any]
    """JSON values."""
    chances: np.ndarray
    """The probability of each class `[N, C]`, at the temperature that the source's validation part likes best."""

    @property
    def classes(self) -> np.ndarray:
        """The class that each example is predicted to be, `[N]`."""
        return self.chances.argmax(-1)


def look(setup: Setup, name: str, run: Trained) -> Look:
    """What the run of method `name` says of the target, and how well it does on the source."""
    source, target = setup.domains
    found = {key: outputs(setup.model, run.params, part) for key, part in
             (("valid", source.valid), ("source", source.test), ("target", target.test))}  # fmt: skip
    calmer = fitted_temperature(found["valid"].logits, source.valid)
    chances = np.asarray(jax.nn.softmax(jnp.asarray(found["target"].logits, jnp.float32) / calmer))
    counts = np.bincount(chances.argmax(-1), minlength=chances.shape[1])
    cell = {
        "method": name,
        "shots": "all",
        "seed": run.seed,
        "rate": setup.settings.learning_rate,
        "best_step": run.best_step,
        "test": {METRIC: or_none(run.value), "confidence": or_none(float(chances.max(-1).mean()))},
        "source_test": accuracy_of(found["source"], source.test.y),
        "a_distance": distance(found["source"], found["target"]),
        "temperature": or_none(calmer),
        "predicted": counts.tolist(),
        "labels": drawn(np.arange(len(source.train)), source.train.y),
    }
    return Look(cell, chances)


def collect_signs(setup: Setup, runs: Mapping[str, Sequence[Trained]], looks: Mapping[str, list[Look]]) -> dict:
    """The adaptation as plain JSON values; see `tljax.evaluation.report`."""
    number = validator(setup.settings.validator).number
    told, y = about(setup, runs, METRIC, number), setup.domains.source.train.y
    summary = [_summary(looks, name) for name in looks]
    return told | {
        "verdict": _verdict(summary, setup.settings.validator, len(setup.domains.target.test)),
        "cells": [found.cell for runs_of in looks.values() for found in runs_of],
        "summary": summary,
        "source": told["source"] | {"counts": np.bincount(y, minlength=len(setup.domains.classes)).tolist()},
    }


def predictions(setup: Setup, looks: Mapping[str, list[Look]]) -> str:
    """A table in CSV, a line for each example of the target.

    Of the first method the class of highest mean probability over the seeds, that probability, and the share of seeds
    that predict this class by themselves; of the others the class alone.
    """
    target, names = setup.domains.target.test, setup.domains.classes
    first, *others = looks
    classes, confidence = _together(looks[first])
    agreeing = _agreement(looks[first], classes)
    more = [_together(looks[name])[0] for name in others]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("name", "prediction", "confidence", "agreement", *others))
    for i, name in enumerate(target.names):
        numbers = (f"{confidence[i]:.4f}", f"{agreeing[i]:.4g}")
        writer.writerow((name, names[classes[i]], *numbers, *(names[column[i]] for column in more)))
    return text.getvalue()


def _together(looks: Sequence[Look]) -> tuple[np.ndarray, np.ndarray]:
    """By the mean over the seeds: the class of each example, and its probability."""
    mean = np.mean([found.chances for found in looks], axis=0)
    return mean.argmax(-1), mean.max(-1)


def _agreement(looks: Sequence[Look], classes: np.ndarray) -> np.ndarray:
    """The share of the seeds that predict `classes`, for each example."""
    return np.mean([found.classes == classes for found in looks], axis=0)


def _summary(looks: Mapping[str, list[Look]], name: str) -> dict[str, Any]:
    own, base = looks[name], looks[BASELINE]
    tested = {key: _values([one.cell["test"] for one in own], key) for key in own[0].cell["test"]}
    gain = None
    if name != BASELINE:
        gain = gain_over(BASELINE, tested[METRIC], _values([one.cell["test"] for one in base], METRIC), METRIC)
    agreeing = _agreement(own, _together(own)[0])
    return {
        "method": name,
        "shots": "all",
        "metrics": {key: mean_of(values) for key, values in tested.items()},
        "gain": gain,
        "gains": {BASELINE: gain} if gain else {},
        "changed": mean_of([float(np.mean(a.classes != b.classes)) for a, b in zip(own, base)]),
        "agreement": float(agreeing.mean()) if len(own) > 1 else None,
        "predicted": np.mean([one.cell["predicted"] for one in own], axis=0).tolist(),
    } | {key: mean_of(_values([one.cell for one in own], key)) for key in ("source_test", "a_distance")}


def _values(found: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [or_nan(one[key]) for one in found]


def _verdict(summary: Sequence[Mapping[str, Any]], chooser: str, examples: int) -> dict[str, Any]:
    """What can be said of the first method, which is not whether it helped."""
    judged = summary[0]
    by_method = {entry["method"]: entry["metrics"][METRIC]["mean"] for entry in summary}
    chance = {"helped": "beyond chance", "hurt": "beyond chance", "undecided": "within chance"}
    sure = chance[judged["gain"]["outcome"]] if len(judged["gain"]["values"]) > 1 else "by one seed"
    written = scale(metric(METRIC), by_method.values())
    numbers = [written.value(by_method[name]) for name in (judged["method"], BASELINE)]
    sentence = (
        f"Untold: without labels of the target nobody can tell whether {judged['method']} helped. It predicts another "
        f"class than the source alone for {100 * judged['changed']['mean']:.1f} % of the {examples} examples; the "
        f"validator {chooser} is {numbers[0]} with it and {numbers[1]} with the source alone, {sure}."
    )
    return {"method": judged["method"], "shots": "all", "metric": METRIC, "outcome": "untold", "sentence": sentence}
