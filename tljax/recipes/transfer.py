"""`tljax transfer`: pretrain, graft, adapt, compare with what costs the same, and say whether it helped."""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import jax
import numpy as np
import optax

from tljax.checkpoints.run import write_atomically
from tljax.data import Augment, random_crop
from tljax.evaluation import evaluate, predict
from tljax.evaluation.report import write_report
from tljax.models import build
from tljax.plans import Plan, linear_probe, plan
from tljax.probes import knn
from tljax.recipes.folder import claim_folder, read_results
from tljax.recipes.outcome import Outcome, tell
from tljax.recipes.results import Scored, collect, score_probabilities
from tljax.recipes.runs import Budget, Cell, tune
from tljax.recipes.settings import Settings
from tljax.recipes.tasks import Task, few_labels, load_tasks
from tljax.training import fit
from tljax.tree import GraftReport, graft
from tljax.types import Model, Params

NEIGHBOURS = (1, 3, 5)
"""How many neighbours k-NN may choose from, on validation."""


def run_transfer(settings: Settings, *, show: bool = True) -> Outcome:
    """Do what `settings` say, in its run folder; continue there if it was begun before.

    Raises:
      RunError: the folder holds a run of other settings, or cannot be written to.
      DataError, SettingsError, TljaxError: as their messages say; earlier results stay as they are.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run_transfer(Settings(target="digitz", run_dir=folder), show=False)
    Traceback (most recent call last):
    tljax.data.error.DataError: ...'digitz'...
    """
    folder = settings.folder
    claim_folder(folder, settings.described(), resume=settings.resume)
    file = folder / "results.json"
    results = read_results(folder)
    if results is not None:
        tell(show, f"{folder} holds this run complete; writing its report anew")
    else:
        if file.exists():
            tell(show, f"{file} is damaged; working it out again from the checkpoints")
        results = _compute(settings, folder, show)
        write_atomically(file, json.dumps(results, indent=1))
    write_report(results, folder)
    return Outcome(results, folder)


def _compute(settings: Settings, folder: pathlib.Path, show: bool) -> dict[str, Any]:
    source, target = load_tasks(settings)
    for task in (source, target):
        tell(show, "\n".join([f"{task.name}: {task.train.describe()}", *(f"  {note}" for note in task.notes)]))
    pretrained = _pretrain(settings, source, folder / "pretrain", show)
    model = build(settings.model, target.train.outputs)
    cells = [(shots, seed) for shots in settings.all_shots for seed in range(settings.seeds)]
    fresh, grafted, report = _starts(settings, model, target, pretrained["params"])
    tell(show, f"\nGraft of the backbone into a model for {target.name}:\n{report}\n")
    draws = [few_labels(target, settings.all_shots, settings.seed + seed) for seed in range(settings.seeds)]
    bench = _Bench(settings, target, model, cells, {c: draws[c[1]][c[0]] for c in cells}, folder, show)
    scored = {settings.method: bench.adapt(settings.method, grafted), "scratch": bench.train("scratch", fresh, plan())}
    if settings.method != "linear-probe":
        scored["linear-probe"] = bench.train("linear-probe", grafted, linear_probe())
    if not target.regression:
        scored["knn"] = bench.knn(grafted[0])
    return collect(settings, source, target, pretrained, report, grafted[0], scored)


def _pretrain(settings: Settings, source: Task, folder: pathlib.Path, show: bool) -> dict[str, Any]:
    """The source model: its parameters and how it does on the source's test data."""
    model = build(settings.model, source.train.outputs)
    start = model.init(jax.random.key(settings.seed), source.train.x[:1])
    shifts = _shifts(source.train.x.shape[1:]) if settings.augment else None
    result = fit(
        model,
        start,
        source.objective,
        train=source.train,
        valid=source.valid,
        optimizer=optax.adamw(optax.cosine_decay_schedule(3e-3, settings.pretrain_steps)),
        seed=settings.seed,
        steps=settings.pretrain_steps,
        batch_size=settings.batch_size,
        monitor="nll",
        augment=shifts,
        run_dir=folder,
        progress="pretrain on the source" if show else False,
    )
    test = evaluate(model, result.params, source.test)
    return {
        "params": result.params,
        "best_step": int(result.best_step),
        "test": dict(test),
        "augmentation": "randomly shifted images" if shifts else None,
    }


def _shifts(shape: tuple[int, ...]) -> Augment | None:
    """Shifts by an eighth of an image; None where inputs are no images."""
    return random_crop(max(1, min(shape[:2]) // 8)) if len(shape) == 3 else None


def _starts(
    settings: Settings, model: Model, target: Task, source: Params
) -> tuple[list[Params], list[Params], GraftReport]:
    """For each seed fresh parameters, and the same with the backbone grafted in."""
    keys = [jax.random.key(settings.seed + 1 + seed) for seed in range(settings.seeds)]
    fresh = [model.init(key, target.train.x[:1]) for key in keys]
    pairs = [graft(params, source, reinit="head/**") for params in fresh]
    return fresh, [params for params, _ in pairs], pairs[0][1]


@dataclasses.dataclass(frozen=True)
class _Bench:
    """The target task with its cells: every method is measured on it in the same way."""

    settings: Settings
    target: Task
    model: Model
    cells: list[Cell]
    subsets: dict[Cell, np.ndarray]
    folder: pathlib.Path
    show: bool

    def adapt(self, method: str, starts: list[Params]) -> dict[Cell, Scored]:
        """The transfer method under judgement."""
        if method == "full":
            return self.train(method, starts, plan())
        if method == "linear-probe":
            return self.train(method, starts, linear_probe())
        first, second = self.settings.steps // 2, self.settings.steps - self.settings.steps // 2
        head = self._tune("lp-ft head", {c: starts[c[1]] for c in self.cells}, linear_probe(), max(1, first))
        return self._score(self._tune("lp-ft", {c: chosen.params for c, chosen in head.items()}, plan(), second))

    def train(self, method: str, starts: list[Params], rules: Plan) -> dict[Cell, Scored]:
        """`method` from one start per seed."""
        return self._score(self._tune(method, {c: starts[c[1]] for c in self.cells}, rules, self.settings.steps))

    def knn(self, params: Params) -> dict[Cell, Scored]:
        """Nearest neighbours among the labelled examples, by the frozen features of the grafted backbone."""
        parts = (self.target.train, self.target.valid, self.target.test)
        pool, valid, test = (np.asarray(predict(self.model, params, part.x).features) for part in parts)
        return {cell: self._nearest(pool, valid, test, self.subsets[cell]) for cell in self.cells}

    def _nearest(self, pool: np.ndarray, valid: np.ndarray, test: np.ndarray, rows: np.ndarray) -> Scored:
        def answer(queries: np.ndarray, k: int) -> np.ndarray:
            labels, classes = self.target.train.y[rows], self.target.train.outputs
            return np.asarray(knn(pool[rows], labels, k=k, num_classes=classes).predict(queries))

        right = [float(np.mean(answer(valid, k).argmax(-1) == self.target.valid.y)) for k in NEIGHBOURS]
        best = int(np.argmax(right))
        test_scores = score_probabilities(answer(test, NEIGHBOURS[best]), self.target.test)
        return Scored(test_scores, valid=right[best])

    def _tune(self, name: str, starts: dict[Cell, Params], rules: Plan, steps: int) -> Any:
        rates = self.settings.learning_rates
        optimizer = _optimizer(steps)
        return tune(
            self.model,
            self.target.objective,
            rules,
            starts,
            self.subsets,
            self.target.train,
            self.target.valid,
            Budget(steps, self.settings.batch_size, rates, optimizer),
            first_seed=self.settings.seed,
            folder=self.folder / name.replace(" ", "-"),
            title=name,
            show=self.show,
            minimise=self.target.regression,
        )

    def _score(self, chosen: dict[Cell, Any]) -> dict[Cell, Scored]:
        return {
            cell: Scored(
                dict(evaluate(self.model, c.params, self.target.test)), c.value, c.rate, c.best_step, c.history
            )
            for cell, c in chosen.items()
        }


@functools.cache
def _optimizer(steps: int) -> optax.GradientTransformation:
    """AdamW at rate 1, to be scaled by each run's own; one object per schedule, so that programs are shared."""
    return optax.adamw(optax.cosine_decay_schedule(1.0, steps))
