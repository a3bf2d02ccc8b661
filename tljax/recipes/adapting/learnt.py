"""What the methods of a finished adaptation learnt, on new data."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

from tljax.checkpoints.run import RunError
from tljax.recipes.adapting.reading import read_labelled
from tljax.recipes.adapting.settings import adapt_settings
from tljax.recipes.adapting.setup import Setup, load_setup
from tljax.recipes.adapting.train import folder_of, kept
from tljax.recipes.finetune.scoring import outputs
from tljax.recipes.results import CLASS_METRICS, mean_of, numbers_of, or_nan, score_logits
from tljax.types import Params


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
    settings = adapt_settings({name: value for name, value in config.items() if value is not None})
    setup = load_setup(settings)
    examples = read_labelled(settings, setup.domains, data, label or settings.label)
    shots = results["shots"][0]
    calm = {(cell["method"], cell["seed"]): cell.get("temperature") for cell in results["cells"]}
    rows = []
    for number, method in enumerate(settings.compared):
        place = folder_of(folder, number, method)
        found = [
            _scored(setup, kept(place, seed), examples, calm.get((method.name, seed)) or math.nan)
            for seed in range(settings.seeds)
        ]
        metrics = {name: mean_of([or_nan(scores[name]) for scores in found]) for name in found[0]}
        row = {"method": method.name, "shots": shots, "seeds": len(found), "examples": len(examples)}
        rows.append(row | {"metrics": metrics})
    return rows


def _scored(setup: Setup, params: Params, examples: Any, calmer: float) -> dict[str, float | None]:
    logits = outputs(setup.model, params, examples).logits
    return numbers_of(score_logits(logits, examples, calmer), CLASS_METRICS)
