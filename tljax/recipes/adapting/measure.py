"""What is measured of trained models: how well they do on both domains, and how far apart the domains' features are."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tljax.evaluation import a_distance
from tljax.recipes.adapting.projection import on_a_plane
from tljax.recipes.adapting.setup import Setup
from tljax.recipes.adapting.train import Trained, best_on_test
from tljax.recipes.finetune.scoring import outputs
from tljax.recipes.results import drawn, fitted_temperature, or_none, score_logits
from tljax.types import Output

MOST_EXAMPLES = 1000
"""Of each domain for the A-distance, at most."""
MOST_DRAWN = 250
"""Of each domain in the picture, at most."""


def cell(setup: Setup, name: str, run: Trained) -> dict[str, Any]:
    """What one run reached, as JSON values; the temperature of calibration is chosen on the source."""
    source, target = setup.domains
    found = {key: outputs(setup.model, run.params, part) for key, part in
             (("valid", source.valid), ("source", source.test), ("target", target.test))}  # fmt: skip
    calmer = fitted_temperature(found["valid"].logits, source.valid)
    best, best_step = best_on_test(run.history)
    last = accuracy_of(outputs(setup.model, run.last, target.test), target.test.y)
    return {
        "method": name,
        "shots": "all",
        "seed": run.seed,
        "rate": setup.settings.learning_rate,
        "best_step": run.best_step,
        "valid": or_none(run.value),
        "test": score_logits(found["target"].logits, target.test, calmer),
        "source_test": accuracy_of(found["source"], source.test.y),
        "last": last,
        "oracle": best,
        "oracle_step": best_step,
        "a_distance": distance(found["source"], found["target"]),
        "labels": drawn(np.arange(len(source.train)), source.train.y),
    }


def pictured(setup: Setup, runs: Sequence[tuple[str, Trained]]) -> dict[str, Any]:
    """The features of both domains' test examples by each of `runs`, on a plane, as JSON values.

    The classes are those of the labels, or where the target has none those that each model predicts there.
    """
    panels, made = [], ""
    source, target = parts = [task.test.take(_some(len(task.test), MOST_DRAWN)) for task in setup.domains]
    known = [int(y) for y in source.y]
    for name, run in runs:
        found = [outputs(setup.model, run.params, part) for part in parts]
        places, made = on_a_plane(np.concatenate([np.asarray(o.features) for o in found]), setup.settings.projection)
        panel = {"method": name, "x": _short(places[:, 0]), "y": _short(places[:, 1])}
        if setup.settings.unlabelled:
            panel["classes"] = known + np.asarray(found[1].logits).argmax(-1).tolist()
        panels.append(panel)
    picture = {"made_by": made, "seed": runs[0][1].seed, "sizes": [len(part) for part in parts], "panels": panels}
    return picture if setup.settings.unlabelled else picture | {"classes": known + [int(y) for y in target.y]}


def distance(source: Output, target: Output) -> float | None:
    """The proxy A-distance of the two domains' features."""
    few = [np.asarray(o.features)[_some(len(o.features), MOST_EXAMPLES)] for o in (source, target)]
    if not all(np.isfinite(features).all() for features in few) or min(map(len, few)) < 4:
        return None
    return or_none(float(a_distance(*few)))


def accuracy_of(found: Output, labels: np.ndarray) -> float:
    """The share of the labels `[N]` that are predicted."""
    return float(np.mean(np.asarray(found.logits).argmax(-1) == labels))


def _some(size: int, most: int) -> np.ndarray:
    return np.arange(size) if size <= most else np.sort(np.random.default_rng(0).permutation(size)[:most])


def _short(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]
