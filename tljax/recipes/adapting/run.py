"""`tljax adapt`: from a labelled source to an unlabelled target, and whether it helped beside the source alone."""

import functools
import pathlib
from typing import Any

from tljax.checkpoints.run import write_atomically
from tljax.evaluation.report import write_report
from tljax.processes import by_first
from tljax.recipes.adapting.measure import cell, pictured
from tljax.recipes.adapting.methods import BASELINE
from tljax.recipes.adapting.results import collect
from tljax.recipes.adapting.settings import AdaptSettings
from tljax.recipes.adapting.setup import load_setup
from tljax.recipes.adapting.signs import PREDICTIONS, collect_signs, look, predictions
from tljax.recipes.adapting.train import folder_of, train
from tljax.recipes.folder import results_of
from tljax.recipes.outcome import Outcome, tell
from tljax.recipes.timing import Timing


def run_adapt(settings: AdaptSettings, *, show: bool = True) -> Outcome:
    """Do what `settings` say, in its run folder; continue there if it was begun before.

    The folder gets results.json, report.html, report.md, and ``methods/NUMBER-NAME/seed_N.safetensors``, the parameters
    that the validator chose, for each method and seed. Of a target without labels also predictions.csv, a line for
    each of its examples.

    Raises:
      RunError: the folder holds a run of other settings, or cannot be written to.
      CheckpointError, ModelError, DataError, SettingsError: as their messages say.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run_adapt(AdaptSettings(target="digitz", run_dir=folder), show=False)
    Traceback (most recent call last):
    tljax.data.error.DataError: ...'digitz'...
    """
    folder = settings.folder
    results = results_of(settings, lambda: _compute(settings, folder, show), say=functools.partial(tell, show))
    by_first(lambda: write_report(results | {"timing": Timing(folder).read()}, folder))
    return Outcome(results, folder)


def _compute(settings: AdaptSettings, folder: pathlib.Path, show: bool) -> dict[str, Any]:
    setup = load_setup(settings)
    for task in setup.domains:
        tell(show, "\n".join([f"{task.name}: {task.train.describe()}", *(f"  {note}" for note in task.notes)]))
    tell(show, f"\n{setup.model.name}, {setup.about}\n")
    runs = {}
    for number, method in enumerate(settings.compared):
        tell(show, f"{method.name}: {method.objective}")
        runs[method.name] = train(setup, method, folder_of(folder, number, method), show)
    judged = settings.approaches[0].name
    picture = pictured(setup, [(BASELINE, runs[BASELINE][0]), (judged, runs[judged][0])])
    if settings.unlabelled:
        looks = {name: [look(setup, name, run) for run in found] for name, found in runs.items()}
        by_first(lambda: write_atomically(folder / PREDICTIONS, predictions(setup, looks)))
        return collect_signs(setup, runs, looks) | {"features": picture}
    cells = {name: [cell(setup, name, run) for run in found] for name, found in runs.items()}
    return collect(setup, runs, cells) | {"features": picture}
