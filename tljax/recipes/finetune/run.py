"""`tljax finetune`: one or several methods on one data set, their accuracies, what they cost, and the best model."""

import functools
import pathlib
from typing import Any

from tljax.evaluation.report import write_report
from tljax.processes import by_first, from_first
from tljax.recipes.finetune.bench import Bench
from tljax.recipes.finetune.methods import METHODS
from tljax.recipes.finetune.results import chosen_method, collect
from tljax.recipes.finetune.settings import FinetuneSettings
from tljax.recipes.finetune.setup import load_setup
from tljax.recipes.finetune.stored import write_adapters, write_model
from tljax.recipes.folder import results_of
from tljax.recipes.outcome import Outcome, tell


def run_finetune(settings: FinetuneSettings, *, show: bool = True) -> Outcome:
    """Do what `settings` say, in its run folder; continue there if it was begun before.

    The folder gets results.json, report.html, report.md, for each method ``methods/NAME/learnt.safetensors``, which is
    what has to be stored for the task, and ``adapters/`` there, a folder of Hugging Face peft, where the method has
    adapters that its format can hold; and the model of the best method in ``model/``.

    Raises:
      RunError: the folder holds a run of other settings, or cannot be written to.
      CheckpointError, ModelError, DataError, SettingsError, PeftError: as their messages say.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run_finetune(FinetuneSettings("nowhere", "digits", run_dir=folder), show=False)
    Traceback (most recent call last):
    tljax.checkpoints.errors.CheckpointError: ...nowhere...
    """
    folder = settings.folder
    results = results_of(settings, lambda: _compute(settings, folder, show), say=functools.partial(tell, show))
    by_first(lambda: write_report(results, folder))
    return Outcome(results, folder)


def _compute(settings: FinetuneSettings, folder: pathlib.Path, show: bool) -> dict[str, Any]:
    setup = load_setup(settings)
    task = setup.task
    tell(show, "\n".join([f"{task.name}: {task.train.describe()}", *(f"  {note}" for note in task.notes)]))
    tell(show, f"\n{setup.pretrained.report}\n")
    bench = Bench(settings, setup, folder, show)
    bench.compile()
    found = {name: bench.run(name) for name in settings.compared}
    results = collect(settings, setup, found)
    for name in settings.compared:
        if METHODS[name].adapt is not None:
            place = folder / "methods" / name / "adapters"
            by_first(functools.partial(write_adapters, setup, bench.learnt(name), place))
    best = chosen_method(found)
    params = bench.learnt(best)
    said = from_first(lambda: write_model(setup, params, folder / "model"))
    return results | {"exported": {"method": best, "text": said}}
