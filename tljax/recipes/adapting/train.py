"""Training a method from every seed's start, and reading off what was chosen, the last step, and the best on the test.

All methods get the same starts, order of the source's examples, steps and optimiser, so they are compared in pairs.
"""

import functools
import pathlib
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tljax.checkpoints import load_weights, save_weights
from tljax.checkpoints.run import make_folder
from tljax.evaluation import Validator, validator
from tljax.plans import Plan, plan, rate
from tljax.processes import at_hand, by_first, from_first
from tljax.recipes.adapting.methods import VIEWS, Approach
from tljax.recipes.adapting.settings import AdaptSettings
from tljax.recipes.adapting.setup import Setup
from tljax.recipes.timing import Timing, stopwatch
from tljax.training import NonFiniteError, Result, fit
from tljax.tree import select
from tljax.types import Params

DECAY = 1e-3
"""The rate at step i is that of step 0 times (1 + DECAY i)^-0.75."""
MOMENTUM = 0.9
EVALUATIONS = 20
"""Evaluations in a run."""
TEST = "target_test"
"""The stream of validation data that is followed for the report, and chooses only where the oracle was asked for."""
ORACLE = "oracle_accuracy"
MOST_SOURCE = 500
"""Training examples of the source that the validator "dev" looks at, at most."""


class Trained(NamedTuple):
    """One run: a method from one seed."""

    seed: int
    """Its number, from 0."""
    params: Params
    """Those that the validator chose."""
    last: Params
    """Those after the last step."""
    best_step: int
    value: float
    """What the validator gave them."""
    history: tuple[dict[str, Any], ...]


def train(setup: Setup, method: Approach, folder: pathlib.Path, show: bool) -> list[Trained]:
    """The runs of `method`, one a seed; those that are complete in `folder` are read from there."""
    begun, runs, seconds = from_first(folder.exists), [], []
    with stopwatch() as spent:
        for seed in setup.starts:
            with _told_of(method, seed, folder / f"seed_{seed}"):
                result = _fitted(setup, method, seed, folder, show)
            seconds += [] if result.step_seconds is None else [result.step_seconds]
            params, last = at_hand((result.params, result.last))
            runs.append(Trained(seed, params, last, int(result.best_step), float(result.best_value), result.history))
            keep(folder, seed, params)
    if not begun:
        Timing(folder.parent.parent).note(
            method.name, spent, step_seconds=float(np.median(seconds)) if seconds else None
        )
    return runs


@contextmanager
def _told_of(method: Approach, seed: int, folder: pathlib.Path) -> Iterator[None]:
    """A run that fails is named; of one that had saved nothing nothing stays, so that other settings may follow."""
    try:
        yield
    except NonFiniteError as error:
        by_first(lambda: _cleared(folder))
        raise NonFiniteError(f"{method.name}, seed {seed}: {error}") from error


def _cleared(folder: pathlib.Path) -> None:
    if any((folder / "checkpoints").glob("[0-9]*")):
        return
    shutil.rmtree(folder)
    for outer in (folder.parent, folder.parent.parent):  # those of the method and of all methods
        if not any(outer.iterdir()):
            outer.rmdir()


def folder_of(folder: pathlib.Path, number: int, method: Approach) -> pathlib.Path:
    """The folder of a method in that of the run.

    >>> from tljax.recipes.adapting.methods import approach
    >>> print(folder_of(pathlib.Path("run"), 1, approach("source-only")))
    run/methods/1-source-only
    """
    return folder / "methods" / f"{number}-{re.sub(r'[^A-Za-z0-9.]+', '-', method.name).strip('-')}"


def keep(folder: pathlib.Path, seed: int, params: Params) -> None:
    """Write the chosen parameters of a seed."""
    by_first(lambda: make_folder(folder))
    by_first(lambda: save_weights(jax.tree.map(np.asarray, params), folder / f"seed_{seed}.safetensors"))


def kept(folder: pathlib.Path, seed: int) -> Params:
    """The chosen parameters of a seed."""
    return load_weights(folder / f"seed_{seed}.safetensors")


def _fitted(setup: Setup, method: Approach, seed: int, folder: pathlib.Path, show: bool) -> Result:
    settings, domains = setup.settings, setup.domains
    source, target = domains.source, domains.target
    labelled = (source.train.x, source.train.y)
    train = {"source": labelled, "target": (target.train.x, None)} if _adapts(method) else labelled
    valid = {"source": (source.valid.x, source.valid.y), "target": (target.valid.x, None)}
    if not settings.unlabelled:
        valid[TEST] = (target.test.x, target.test.y)
    if settings.validator == "dev":
        few = source.train.take(_some(len(source.train), MOST_SOURCE))
        valid["source_train"] = (few.x, few.y)
    return fit(
        setup.model,
        setup.starts[seed],
        method.objective,
        rules(settings.backbone_factor, bool(settings.width)),
        train,
        valid,
        optimizer=optimizer(settings.learning_rate, settings.weight_decay, method.steady),
        metric=_judge(settings),
        seed=settings.seed + seed,
        steps=settings.steps,
        batch_size=settings.batch_size,
        **settings.of_fit(settings.batch_size),
        **({"views": VIEWS, "augment": setup.views} if compares_views(method) else {}),
        eval_every=max(1, settings.steps // EVALUATIONS),
        run_dir=folder / f"seed_{seed}",
        progress=f"{method.name} {seed + 1}/{settings.seeds}" if show else False,
    )


def _adapts(method: Approach) -> bool:
    """Whether it reads anything but the source's labelled examples."""
    return method.objective.streams != ("train",)


def compares_views(method: Approach) -> bool:
    """Whether its terms read views of the target's examples.

    >>> from tljax.recipes.adapting.methods import approach
    >>> compares_views(approach("dann+fixmatch")), compares_views(approach("dann"))
    (True, False)
    """
    return not VIEWS.keys().isdisjoint(method.objective.streams)


@functools.cache
def optimizer(learning_rate: float, weight_decay: float, steady: bool) -> optax.GradientTransformation:
    """SGD with Nesterov momentum, decay coupled with the gradient, and the falling rate that is usual here.

    The same object for the same numbers, so that programs are shared.
    """

    def falling(step: Any) -> Any:
        return learning_rate * (1 + DECAY * jnp.asarray(step, jnp.float32)) ** -0.75

    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.trace(MOMENTUM, nesterov=True),
        optax.scale_by_learning_rate(learning_rate if steady else falling),
    )


def _judge(settings: AdaptSettings) -> Validator:
    """What chooses the step, and what else is followed: with labels of the target also its accuracy. Step 0 is not
    chosen, since its head is new in every run."""
    if settings.unlabelled:
        return validator(settings.validator, also=("source_accuracy",), start=False)
    return validator(settings.validator, oracle=TEST, also=("source_accuracy", "oracle"), start=False)


def rules(backbone_factor: float, bottleneck: bool) -> Plan:
    """Who learns at what rate: all, the backbone slower where that is asked for, but not the bottleneck."""
    if backbone_factor == 1:
        return plan()
    backbone = select("backbone/**")
    return plan(rate(backbone & ~select("backbone/bottleneck/**") if bottleneck else backbone, backbone_factor))


def _some(size: int, most: int) -> np.ndarray:
    return np.arange(size) if size <= most else np.sort(np.random.default_rng(0).permutation(size)[:most])


def best_on_test(history: Sequence[dict[str, Any]]) -> tuple[float | None, int | None]:
    """The best test accuracy of all evaluations but the start's, and the first step that had it; chosen with the
    test's labels.

    >>> best_on_test([{"step": 5, "split": "valid", "oracle_accuracy": 0.5}, {"step": 5, "split": "train"}])
    (0.5, 5)
    """
    rows = [row for row in history if row["split"] == "valid" and row["step"] and row.get(ORACLE) is not None]
    finite = [(row[ORACLE], -row["step"]) for row in rows if np.isfinite(row[ORACLE])]
    return (max(finite)[0], -max(finite)[1]) if finite else (None, None)
