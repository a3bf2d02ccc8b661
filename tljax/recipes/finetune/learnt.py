"""What the methods of a finished comparison learnt, on new data."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tljax.checkpoints.run import RunError
from tljax.recipes.finetune.bench import Bench
from tljax.recipes.finetune.scoring import outputs
from tljax.recipes.finetune.settings import FinetuneSettings, finetune_settings
from tljax.recipes.finetune.setup import load_setup
from tljax.recipes.folder import read_object
from tljax.recipes.results import CLASS_METRICS, mean_of, numbers_of, or_nan, score_logits


def on_new_data(
    folder: pathlib.Path, config: Mapping[str, Any], results: Mapping[str, Any], data: str, label: str | None
) -> list[dict[str, Any]]:
    """For every method the metrics on all of `data`, with the seed that validation liked best, as JSON values.

    The pretrained model and the data of the run must still be where they were: new data are prepared by them.

    Raises:
      RunError: the folder lacks settings, or what a method learnt.
      CheckpointError, DataError, SettingsError: the model, the run's data, or the new ones cannot be read, or do
        not fit.
    """
    if not config:
        raise RunError(f"{folder} lacks config.json, which tells the settings of the run; it cannot be evaluated anew")
    settings = dataclasses.replace(_settings(config), test=data, label=label or config.get("label"))
    bench = Bench(settings, load_setup(settings), folder, show=False)
    rows = []
    for name in results["methods"]:
        found = read_object(folder / "methods" / name / "result.json")
        if found is None:
            raise RunError(f"{folder / 'methods' / name} lacks result.json, or it is damaged; run the comparison again")
        model = bench.setup.pretrained.model if found["on_features"] else bench.contender(name).model
        test = bench.setup.task.test
        logits = np.asarray(outputs(model, bench.learnt(name), test).logits)
        seed = found["winner"]
        calm = next((c["test"].get("temperature") for c in found["cells"] if c["seed"] == seed), None)
        metrics = numbers_of(score_logits(logits, test, calm or math.nan), CLASS_METRICS)
        told = {key: mean_of([or_nan(value)]) for key, value in metrics.items()}
        rows.append({"method": name, "shots": results["shots"][0], "seeds": 1, "examples": len(test), "metrics": told})
    return rows


def _settings(config: Mapping[str, Any]) -> FinetuneSettings:
    return finetune_settings({name: value for name, value in config.items() if value is not None})
