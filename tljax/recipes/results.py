"""Scored cells, and the JSON values that results are made of."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tljax.evaluation import (
    calibration_error,
    classification,
    interval,
    negative_transfer,
    paired_gain,
    verdict,
)
from tljax.probes import temperature
from tljax.recipes.tasks import Examples

CLASS_METRICS = (
    "accuracy", "macro_recall", "macro_precision", "macro_f1", "worst_recall", "nll", "brier", "ece", "ece_mass",
    "ece_tempered",
)  # fmt: skip
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


def score_logits(logits: Any, test: Examples, calmer: float) -> dict[str, Any]:
    """The metrics of the class scores `[M, C]` of all of `test`; `calmer` is the temperature for `ece_tempered`."""
    z, y = np.asarray(logits, np.float32), np.asarray(test.y)
    found = {name: np.asarray(value).tolist() for name, value in _counted(test.outputs)(z, y).items()}
    return found | {
        "ece_mass": calibration_error(z, y, equal="mass"),
        "ece_tempered": calibration_error(z / np.float32(calmer), y),
        "temperature": calmer,
    }


def fitted_temperature(logits: Any, valid: Examples) -> float:
    """The temperature that the validation split likes best; NaN where a score is no finite number."""
    z = np.asarray(logits, np.float32)
    return math.nan if not np.isfinite(z).all() else float(temperature(z, np.asarray(valid.y)))


@functools.cache
def _counted(outputs: int) -> Callable[[Any, Any], Mapping[str, Any]]:
    metric = classification(outputs)
    program = jax.jit(lambda z, y: metric.compute(metric.update(metric.init(), z, y)))
    return lambda z, y: jax.device_get(program(jnp.asarray(z), jnp.asarray(y)))


def as_logits(probabilities: Any) -> np.ndarray:
    """Class probabilities `[M, C]` as scores, for methods that are no model.

    >>> as_logits([[1.0, 0.25]]).round(3)
    array([[ 0.   , -1.386]], dtype=float32)
    """
    return np.log(np.maximum(np.asarray(probabilities, np.float64), 1e-12)).astype(np.float32)


def mean_of(values: Sequence[float]) -> dict[str, Any]:
    """The mean over seeds, and half the width of its interval.

    >>> mean_of([0.5])
    {'mean': 0.5, 'half_width': None}
    """
    found = interval(values)
    return {"mean": or_none(found.mean), "half_width": or_none(found.half_width)}


def accuracy_step(cells: Sequence[Mapping[str, Any]]) -> float:
    """In which steps the test accuracy of runs comes: one over the examples, `resolution` of `paired_gain`.

    >>> accuracy_step([{"test": {"confusion": [[3, 1], [0, 4]]}}])
    0.125
    """
    return 1 / float(np.sum(cells[0]["test"]["confusion"]))


def gain_over(
    baseline: str, values: Sequence[float], base: Sequence[float], metric: str, *, resolution: float = 0.0
) -> dict[str, Any]:
    """The paired gain over the method `baseline`, one value a seed, as JSON values; `resolution` as of `paired_gain`.

    `outcome` is helped, hurt or undecided; `negative` the flag of negative transfer.

    >>> found = gain_over("scratch", [0.5, 0.25], [0.75, 0.375], "accuracy")
    >>> found["mean"], found["outcome"], found["negative"]
    (-0.1875, 'undecided', 'weak')
    """
    better = metric not in ("rmse", "mae", "nll")
    gain = paired_gain(values, base, higher_is_better=better, resolution=resolution)
    return {
        "over": baseline,
        "mean": or_none(gain.mean),
        "low": or_none(gain.interval.low),
        "high": or_none(gain.interval.high),
        "bootstrap": [or_none(gain.bootstrap.low), or_none(gain.bootstrap.high)],
        "values": [or_none(value) for value in gain.differences],
        "outcome": verdict(gain, metric=metric).outcome,
        "negative": negative_transfer(gain),
    }


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


def drawn(rows: np.ndarray, labels: np.ndarray) -> str:
    """What tells two draws of labelled examples of one pool apart: a hash of their positions and labels.

    >>> drawn(np.array([1, 0]), np.array([5, 7])) == drawn(np.array([1, 0]), np.array([5, 7, 9]))
    True
    """
    content = np.asarray(rows, np.int64).tobytes() + np.asarray(labels)[rows].astype(np.float64).tobytes()
    return hashlib.sha256(content).hexdigest()[:12]


def numbers_of(found: Mapping[str, Any], names: Sequence[str]) -> dict[str, float | None]:
    """Those of the metrics `names` that were found.

    >>> numbers_of({"accuracy": 1, "confusion": [[1]]}, ["accuracy", "nll"])
    {'accuracy': 1.0}
    """
    return {name: or_none(float(found[name])) for name in names if name in found}


def or_nan(value: float | None) -> float:
    """`value`, or NaN in place of None: the way back from `or_none`.

    >>> or_nan(0.5), or_nan(None)
    (0.5, nan)
    """
    return math.nan if value is None else value


def or_none(value: float) -> float | None:
    """`value` where it is finite, as JSON has no other.

    >>> or_none(0.5), or_none(math.nan)
    (0.5, None)
    """
    return value if math.isfinite(value) else None
