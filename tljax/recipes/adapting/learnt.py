"""What the methods of a finished adaptation learnt, on new data."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tljax.checkpoints.run import RunError
from tljax.recipes.adapting.settings import AdaptSettings, adapt_settings
from tljax.recipes.adapting.setup import Setup, load_setup
from tljax.recipes.adapting.train import folder_of, kept
from tljax.recipes.finetune.scoring import outputs
from tljax.recipes.results import CLASS_METRICS, mean_of, numbers_of, score_logits


def on_new_data(
    folder: pathlib.Path, config: Mapping[str, Any], results: Mapping[str, Any], data: str, label: str | None
) -> list[dict[str, Any]]:
    """For every method the metrics on all of `data`, over the seeds, as JSON values.

    The data of the run must still be where they were: new data are brought to their form.

    Raises:
      RunError: the folder lacks settings, or what a method learnt.
      CheckpointError, DataError, SettingsError: data or weights cannot be read, or do not fit.
    """
    if not config:
        raise RunError(f"{folder} lacks config.json, which tells the settings of the run; it cannot be evaluated anew")
    settings = _settings(config, label)
    load_setup(settings)  # the run's own, so that an error there is told as such
    setup = load_setup(dataclasses.replace(settings, target=data, unlabelled=False))
    shots = results["shots"][0]
    calm = {(cell["method"], cell["seed"]): cell.get("temperature") for cell in results["cells"]}
    rows = []
    for number, method in enumerate(settings.compared):
        place = folder_of(folder, number, method)
        found = [
            _scored(setup, place, seed, calm.get((method.name, seed)) or math.nan) for seed in range(settings.seeds)
        ]
        metrics = {name: mean_of([_number(scores[name]) for scores in found]) for name in found[0]}
        row = {"method": method.name, "shots": shots, "seeds": len(found), "examples": sum(map(len, _parts(setup)))}
        rows.append(row | {"metrics": metrics})
    return rows


class _Known(NamedTuple):
    """The labels of all new examples."""

    y: np.ndarray
    outputs: int


def _parts(setup: Setup) -> list[Any]:
    """All of the new data, in whatever parts they were read."""
    target = setup.domains.target
    return [target.train, target.test] if target.valid is target.train else [target.train, target.valid, target.test]


def _scored(setup: Setup, place: pathlib.Path, seed: int, calmer: float) -> dict[str, float | None]:
    parts, params = _parts(setup), kept(place, seed)
    logits = np.concatenate([np.asarray(outputs(setup.model, params, part).logits) for part in parts])
    known = _Known(np.concatenate([part.y for part in parts]), parts[0].outputs)
    return numbers_of(score_logits(logits, known, calmer), CLASS_METRICS)


def _settings(config: Mapping[str, Any], label: str | None) -> AdaptSettings:
    given = {name: value for name, value in config.items() if value is not None}
    return adapt_settings(given | ({"label": label} if label else {}))


def _number(value: float | None) -> float:
    return math.nan if value is None else value
