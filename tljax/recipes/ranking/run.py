"""`tljax rank`: weight files ranked for a labelled set, in a run folder with a report."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import numpy as np

from tljax.data import k_shot
from tljax.evaluation.report import write_report
from tljax.features import extract
from tljax.models import load_pretrained
from tljax.processes import by_first
from tljax.recipes.finetune.setup import Setup, load_setup
from tljax.recipes.folder import results_of
from tljax.recipes.outcome import tell
from tljax.recipes.ranking.entries import Entry
from tljax.recipes.ranking.models import rank_entries
from tljax.recipes.ranking.settings import RankSettings
from tljax.recipes.ranking.tuning import Tuning
from tljax.selection import Candidate
from tljax.tree import count


@dataclasses.dataclass(frozen=True)
class RankOutcome:
    """A finished ranking."""

    results: dict[str, Any]
    folder: pathlib.Path

    def __str__(self) -> str:
        return f"{self.results['text']}\n\nReport: {self.folder / 'report.html'}"


def run_rank(settings: RankSettings, *, show: bool = True) -> RankOutcome:
    """Do what `settings` say, in its run folder, which gets results.json, report.html and report.md.

    Raises:
      RunError: the folder holds a run of other settings, or cannot be written to.
      CheckpointError, ModelError, DataError, SettingsError, SelectionError: as their messages say.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run_rank(RankSettings(("nowhere",), "digits", run_dir=folder), show=False)
    Traceback (most recent call last):
    tljax.checkpoints.errors.CheckpointError: ...nowhere...
    """
    folder = settings.folder
    results = results_of(settings, lambda: _compute(settings, show), say=functools.partial(tell, show))
    by_first(lambda: write_report(results, folder))
    return RankOutcome(results, folder)


def _compute(settings: RankSettings, show: bool) -> dict[str, Any]:
    setups = {}
    for name, path in settings.paths.items():
        setups[name] = load_setup(settings.finetuning(path))
        tell(show, f"{name}: {setups[name].pretrained.report.recognised}")
    first = next(iter(setups.values())).task
    rows = _rows(settings, first)
    entries = {name: _entry(settings, name, setup, rows, show) for name, setup in setups.items()}
    ranking = rank_entries(
        entries,
        None if settings.labels_per_class else {name: setup.task.valid for name, setup in setups.items()},
        finetune=settings.finetune,
        tuning=Tuning(settings.steps, settings.batch_size, settings.learning_rates, settings.seeds, settings.seed),
        subsets=settings.subsets,
        seed=settings.seed,
        racing=settings.racing,
        progress=show,
    )
    notes = [*first.notes, _judged(settings, first)] if settings.finetune else list(first.notes)
    return {
        "kind": "ranking",
        "title": settings.title,
        "target": first.described() | {"train": len(rows)},
        "summary": ranking.as_dict(),
        "models": {name: _described(settings.paths[name], setup) for name, setup in setups.items()},
        "notes": notes,
        "text": "\n".join([str(ranking), *notes]),
    }


def _rows(settings: RankSettings, task: Any) -> np.ndarray:
    if settings.labels_per_class is None:
        return np.arange(len(task.train))
    return k_shot(task.train.y, settings.labels_per_class, seed=settings.seed, classes=task.train.classes)


def _entry(settings: RankSettings, name: str, setup: Setup, rows: np.ndarray, show: bool) -> Entry:
    """The features of the labelled examples, and what the head in the file says of them, where there is one."""
    data = setup.task.train.take(rows)
    own = load_pretrained(settings.paths[name], example=jax.tree.map(lambda leaf: leaf[:1], data.x))
    title = f"features of {name}" if show else False
    found = extract(own.model, own.params, data, cache=settings.cache, progress=title)
    fresh = any(row.name.startswith("head/") and row.action == "reinitialised" for row in own.report.graft.rows)
    logits = None if fresh else found.logits
    if logits is not None and logits.ndim == 2 and logits.shape[1] > 1:
        shifted = np.exp(logits - logits.max(1, keepdims=True))
        probabilities = shifted / shifted.sum(1, keepdims=True)
    else:
        probabilities = None
    prior = settings.known.get(name, {}).get("prior")
    candidate = Candidate(found.features, probabilities, count(own.params["backbone"]), prior=prior)
    return Entry(candidate, data, setup.pretrained.model, setup.pretrained.params)


def _judged(settings: RankSettings, task: Any) -> str:
    if settings.labels_per_class:
        return "Fine-tuning was judged by cross-validation of the same labels."
    return f"Fine-tuning was judged on the validation part, {len(task.valid)} examples."


def _described(path: str, setup: Setup) -> dict[str, Any]:
    pretrained = setup.pretrained
    return {"path": path, "recognised": pretrained.report.recognised, "parameters": count(pretrained.params)}
