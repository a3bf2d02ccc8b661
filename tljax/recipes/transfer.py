"""`tljax transfer`: pretrain, graft, adapt, compare with what costs the same, and say whether it helped."""

import functools
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from tljax.evaluation import predict
from tljax.evaluation.report import write_report
from tljax.models import build
from tljax.plans import linear_probe, plan
from tljax.processes import at_hand, by_first, from_first
from tljax.recipes.chosen import keep_task
from tljax.recipes.collected import Collected
from tljax.recipes.contest import Contest
from tljax.recipes.folder import results_of
from tljax.recipes.outcome import Outcome, tell
from tljax.recipes.results import CLASS_METRICS, drawn, fitted_temperature, numbers_of, score_logits
from tljax.recipes.retention import retention
from tljax.recipes.runs import Cell
from tljax.recipes.settings import Settings
from tljax.recipes.tasks import Task, few_labels, load_tasks, shifts
from tljax.recipes.timing import Timing, stopwatch
from tljax.training import fit
from tljax.tree import GraftReport, count, graft
from tljax.types import Model, Params


class _Pretrained(NamedTuple):
    """The source model, and how it does on the source's test data."""

    model: Model
    params: Params
    best_step: int
    test: dict[str, Any]
    augmentation: str | None
    step_flops: float | None


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
    results = results_of(settings, lambda: _compute(settings, folder, show), say=functools.partial(tell, show))
    by_first(lambda: write_report(results | {"timing": Timing(folder).read()}, folder))
    return Outcome(results, folder)


def _compute(settings: Settings, folder: pathlib.Path, show: bool) -> dict[str, Any]:
    source, target = load_tasks(settings)
    for task in (source, target):
        tell(show, "\n".join([f"{task.name}: {task.train.describe()}", *(f"  {note}" for note in task.notes)]))
    before = _pretrain(settings, source, folder, show)
    model = build(settings.model, target.train.outputs)
    fresh, grafted, report = _starts(settings, model, target, before.params)
    tell(show, f"\nGraft of the backbone into a model for {target.name}:\n{report}\n")
    assert target.statistics is not None
    keep_task(folder, settings.model, target, target.statistics)
    contest = Contest(settings, target, model, _subsets(settings, target), folder, show)
    scored = {settings.method: contest.adapt(settings.method, grafted)}
    scored["scratch"] = contest.train("scratch", fresh, plan())
    if settings.method != "linear-probe":
        scored["linear-probe"] = contest.train("linear-probe", grafted, linear_probe())
    if not target.regression:
        scored["knn"] = contest.knn(grafted[0])
    drawn_as = {cell: drawn(rows, target.train.y) for cell, rows in contest.subsets.items()}
    found = Collected(settings, target, scored, contest.stages, drawn_as).described()
    kept = retention(contest, source, before.model, before.params, grafted)
    return _about(settings, source, target, before, report, grafted[0]) | found | {"retention": kept}


def _subsets(settings: Settings, target: Task) -> dict[Cell, np.ndarray]:
    """The labelled examples of every cell; those of one draw are the same for all its training seeds."""
    draws = [few_labels(target, settings.all_shots, settings.seed + seed) for seed in range(settings.seeds)]
    return {
        Cell(shots, seed, repeat): draws[seed][shots]
        for shots in settings.all_shots
        for seed in range(settings.seeds)
        for repeat in range(settings.repeats)
    }


def _about(
    settings: Settings, source: Task, target: Task, before: _Pretrained, report: GraftReport, params: Params
) -> dict[str, Any]:
    """The part of the results that says what ran, as JSON values; see `tljax.evaluation.report`."""
    sizes = target.described()
    monitor = "rmse" if target.regression else "accuracy"
    return {
        "title": settings.title,
        "source": source.described()
        | {
            "test_metrics": numbers_of(before.test, CLASS_METRICS),
            "seeds": 1,
            "steps": settings.pretrain_steps,
            "best_step": before.best_step,
            "augmentation": before.augmentation,
            "examples": settings.pretrain_steps * settings.batch_size,
            "flops": None if before.step_flops is None else settings.pretrain_steps * before.step_flops,
        },
        "target": {k: v for k, v in sizes.items() if k != "train"} | {"pool": sizes["train"]},
        "model": {"name": settings.model, "parameters": count(params)},
        "graft": {"text": str(report), "counts": dict(report.leaves)},
        "protocol": {
            "seeds": settings.seeds,
            "repeats": settings.repeats,
            "steps": settings.steps,
            "batch_size": settings.batch_size,
            "rates": list(settings.learning_rates),
            "optimizer": f"adamw, cosine decay{settings.clipping}",
            "chosen_by": f"{monitor} on the validation split ({len(target.valid)} examples), never the test split",
            "level": 0.95,
            "interval": _UNITS[settings.repeats > 1],
        },
    }


_UNITS = (
    "t-interval over seeds; a seed is a draw of labels, initialisation and data order",
    "t-interval over draws of labels, each the mean of its training seeds (initialisation and data order)",
)


def _pretrain(settings: Settings, source: Task, folder: pathlib.Path, show: bool) -> _Pretrained:
    model, begun = build(settings.model, source.train.outputs), from_first((folder / "pretrain").exists)
    start = model.init(jax.random.key(settings.seed), source.train.x[:1])
    shape = source.train.x.shape[1:]
    shifted = shifts(shape) if settings.augment and len(shape) == 3 else None
    with stopwatch() as spent:
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
            **settings.of_fit(settings.batch_size),
            monitor="nll",
            augment=shifted,
            run_dir=folder / "pretrain",
            progress="pretrain on the source" if show else False,
        )
    cost = result.step_cost()
    if not begun:
        Timing(folder).note("pretrain", spent, step_seconds=result.step_seconds, peak_bytes=cost.peak_bytes)
    params = at_hand(result.params)
    valid, test = (predict(model, params, part.x).logits for part in (source.valid, source.test))
    found = score_logits(test, source.test, fitted_temperature(valid, source.valid))
    said = "randomly shifted images" if shifted else None
    return _Pretrained(model, params, int(result.best_step), found, said, cost.flops)


def _starts(
    settings: Settings, model: Model, target: Task, source: Params
) -> tuple[list[Params], list[Params], GraftReport]:
    """For each training seed fresh parameters, and the same with the backbone grafted in."""
    keys = [jax.random.key(settings.seed + 1 + seed) for seed in range(settings.seeds * settings.repeats)]
    fresh = [model.init(key, target.train.x[:1]) for key in keys]
    pairs = [graft(params, source, reinit="head/**") for params in fresh]
    return fresh, [params for params, _ in pairs], pairs[0][1]
