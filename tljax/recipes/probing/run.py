"""`tljax probe`: a model's features of the examples that are drawn, and heads on them, in a run folder."""

import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np

from tljax.data import load
from tljax.data.text import TextData, by_length
from tljax.features import extract
from tljax.recipes.finetune.setup import Setup, load_setup
from tljax.recipes.folder import results_of
from tljax.recipes.options import SettingsError
from tljax.recipes.outcome import tell
from tljax.recipes.probing.settings import ProbeSettings
from tljax.recipes.probing.table import draw, probe_draws, usual_shots

Part = tuple[np.ndarray, np.ndarray]
"""Features `[N, D]` and classes `[N]`."""


@dataclasses.dataclass(frozen=True)
class ProbeOutcome:
    """A finished probe."""

    results: dict[str, Any]
    folder: pathlib.Path

    def __str__(self) -> str:
        return f"{self.results['text']}\n\nResults: {self.folder / 'results.json'}"


def run_probe(settings: ProbeSettings, *, show: bool = True) -> ProbeOutcome:
    """Do what `settings` say, in its run folder, which gets results.json.

    Examples are drawn from the training and the validation part; only those that some draw needs go through the model.

    Raises:
      RunError: the folder holds a run of other settings, or cannot be written to.
      CheckpointError, ModelError, DataError, SettingsError, ProbeError: as their messages say.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run_probe(ProbeSettings("nowhere", "digits", run_dir=folder), show=False)
    Traceback (most recent call last):
    tljax.checkpoints.errors.CheckpointError: ...nowhere...
    """
    folder = settings.folder
    results = results_of(settings, lambda: _compute(settings, show), say=functools.partial(tell, show))
    return ProbeOutcome(results, folder)


def _compute(settings: ProbeSettings, show: bool) -> dict[str, Any]:
    setup = None if settings.features else load_setup(settings.reading())
    parts, classes, notes = _labelled(settings) if setup is None else _parts(setup)
    pool, test = parts
    tell(show, "\n".join([f"{len(pool.y):,} examples to draw from, {len(test.y):,} to test on", *notes]))
    shots = settings.shots or usual_shots(pool.y)
    drawn = draw(pool.y, shots, settings.seeds, settings.seed, classes)
    needed = np.unique(drawn[max(drawn)])
    if setup is None:
        features, queries = pool.x[needed], test.x
    else:
        features = _features(setup, pool.take(needed), settings, f"features of {len(needed):,} examples", show)
        queries = _features(setup, test, settings, f"features of {len(test.y):,} test examples", show)
    place = {k: np.searchsorted(needed, rows) for k, rows in drawn.items()}
    usual = int(np.argmax(np.bincount(pool.y)))
    found = probe_draws((features, pool.y[needed]), (queries, test.y), place, settings.heads, classes, usual)
    return {
        "kind": "probe",
        "title": settings.title,
        "settings": settings.described(),
        "features": {"width": int(features.shape[1]), "pool": len(pool.y), "computed": len(needed)},
        **found.as_dict(),
        "notes": list(notes),
        "text": "\n".join([settings.title, "", str(found)]),
    }


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Features that were given, with their classes."""

    x: np.ndarray
    y: np.ndarray


def _labelled(settings: ProbeSettings) -> tuple[tuple[Any, Any], tuple[str, ...], tuple[str, ...]]:
    """The parts of a file of features: what is drawn from, and what is tested on."""
    source = load(str(settings.features), label=settings.label)
    if source.train.task != "classes":
        raise SettingsError(f"{settings.features!r} has not one class per example; tljax probe needs that")
    if source.train.x.ndim != 2:
        shape = list(source.train.x.shape)
        raise SettingsError(f"{settings.features!r} should hold features [N, D]; found {shape}: give --model with them")
    drawn = [source.train] if source.valid is None else [source.train, source.valid]
    x, y = (np.concatenate([getattr(part, name) for part in drawn]) for name in ("x", "y"))
    return (_Rows(x, y), _Rows(source.test.x, source.test.y)), source.train.classes, source.notes


def _parts(setup: Setup) -> tuple[tuple[Any, Any], tuple[str, ...], tuple[str, ...]]:
    task = setup.task
    return (_Joined(task.train, task.valid), task.test), task.train.classes, task.notes


class _Joined:
    """The training part and the validation part, as what examples are drawn from."""

    def __init__(self, train: Any, valid: Any):
        self.parts = (train, valid)
        self.y = np.concatenate([part.y for part in self.parts])

    def take(self, rows: np.ndarray) -> list[Any]:
        """The examples at `rows`, ascending, as the two parts hold them."""
        size = len(self.parts[0])
        split = (rows[rows < size], rows[rows >= size] - size)
        return [part.take(chosen) for part, chosen in zip(self.parts, split) if len(chosen)]


def _features(setup: Setup, data: Any, settings: ProbeSettings, title: str, show: bool) -> np.ndarray:
    """The features `[N, D]` of `data`, or of several data sets one after the other."""
    if isinstance(data, list):
        return np.concatenate([_features(setup, part, settings, title, show) for part in data])
    model, params, progress = setup.pretrained.model, setup.pretrained.params, title if show else False
    if not isinstance(data, TextData):
        return extract(model, params, data.x, cache=settings.cache, progress=progress).features
    found: np.ndarray | None = None
    for indices, part in by_length(data.x):  # short sentences are not padded to the longest
        values = extract(model, params, part, batch_size=64, cache=settings.cache, progress=progress).features
        found = np.zeros((len(data), values.shape[1]), values.dtype) if found is None else found
        found[indices] = values
    assert found is not None
    return found
