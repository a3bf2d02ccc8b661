"""The models that validation chose, in the run folder: what is evaluated on new data later."""

import json
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from tljax.checkpoints import load_weights, save_weights
from tljax.checkpoints.run import RunError, make_folder, write_atomically
from tljax.data import Dataset, Standardiser, load_whole, match_images, standardise
from tljax.data.classes import class_indices
from tljax.data.error import DataError
from tljax.models import build
from tljax.processes import by_first
from tljax.recipes.folder import read_object
from tljax.recipes.runs import Cell
from tljax.recipes.tasks import Task, of_classes, relabelled
from tljax.types import Model, Params

ABOUT = "model.json"


class Kept(NamedTuple):
    """The chosen models of a run folder."""

    model: Model
    params: dict[str, dict[Cell, Params]]
    """By method and cell."""
    about: dict[str, Any]


def keep_task(folder: pathlib.Path, name: str, task: Task, statistics: Standardiser) -> None:
    """Write down which model reads what: enough to prepare new data as the run's own were."""
    about = {
        "model": name,
        "classes": list(task.train.classes or ()),
        "outputs": task.train.outputs,
        "input": list(task.train.x.shape[1:]),
        "mean": np.asarray(statistics.mean).tolist(),
        "std": np.asarray(statistics.std).tolist(),
    }
    by_first(lambda: make_folder(folder / "chosen"))
    by_first(lambda: write_atomically(folder / "chosen" / ABOUT, json.dumps(about)))


def keep(folder: pathlib.Path, method: str, cell: Cell, params: Params) -> None:
    """Write the parameters of one cell."""
    file = _file(folder, method, cell)
    by_first(lambda: make_folder(file.parent))
    by_first(lambda: save_weights(jax.tree.map(np.asarray, params), file))


def read_kept(folder: pathlib.Path) -> Kept:
    """The chosen models of the transfer run in `folder`.

    Raises:
      RunError: there are none, or a file is missing or damaged.
    """
    about = read_object(folder / "chosen" / ABOUT)
    files = sorted((folder / "chosen").glob("*/*.safetensors"))
    if about is None or not files:
        raise RunError(
            f"{folder} holds no chosen models (chosen/{ABOUT} and chosen/METHOD/*.safetensors), so it cannot be "
            "evaluated on new data; runs of earlier versions kept none: run the same command again in a new --run-dir"
        )
    found: dict[str, dict[Cell, Params]] = {}
    for file in files:
        shots, seed, repeat = (int(part) for part in file.stem.split("-"))
        found.setdefault(file.parent.name, {})[Cell(shots, seed, repeat)] = load_weights(file)
    return Kept(build(about["model"], about["outputs"]), found, about)


def new_data(about: dict[str, Any], spec: str, *, classes: str | None = None, label: str | None = None) -> Dataset:
    """All examples of the data set `spec`, as the models of a run take them, labelled by the run's classes.

    Raises:
      DataError: they cannot be read, are of another kind or shape, or have classes that the models do not know.
    """
    shape, known = tuple(about["input"]), tuple(about["classes"])
    size = shape[0] if len(shape) == 3 and shape[0] == shape[1] else None
    data = load_whole(spec, label=label, size=size, task="classification" if known else "regression")
    if classes is not None:
        data = of_classes(data, tuple(known[i] for i in class_indices(classes, known)))
    data = relabelled(data, known) if known else data
    if data.x.shape[1:] != shape:
        if len(shape) != 3 or data.x.ndim != 4:
            raise DataError(
                f"{spec!r} has examples of shape {list(data.x.shape[1:])}; the run's model takes {list(shape)}"
            )
        data = match_images(data, *shape)
    statistics = Standardiser(np.asarray(about["mean"], np.float32), np.asarray(about["std"], np.float32))
    return Dataset(standardise(data.x, statistics), data.y, known, data.name)


def _file(folder: pathlib.Path, method: str, cell: Cell) -> pathlib.Path:
    return folder / "chosen" / method / f"{cell.shots}-{cell.seed}-{cell.repeat}.safetensors"
