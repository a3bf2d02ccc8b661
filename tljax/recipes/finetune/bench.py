"""The seeds of a comparison: which examples are labelled, where each starts, and how a method is run on all of them."""

import dataclasses
import functools
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tljax.checkpoints import load_weights
from tljax.checkpoints.run import make_folder, write_atomically
from tljax.data import Dataset, k_shot
from tljax.evaluation.report.results import label
from tljax.objectives import Term
from tljax.plans import plan
from tljax.processes import by_first, from_first
from tljax.recipes.closed_form import closed_form_head
from tljax.recipes.finetune.methods import BASELINE, METHODS, Options, prepared
from tljax.recipes.finetune.regularizers import regularised
from tljax.recipes.finetune.scoring import outputs, scored
from tljax.recipes.finetune.settings import FinetuneSettings
from tljax.recipes.finetune.setup import Setup
from tljax.recipes.finetune.train import Contender, Trainer, Trial, best, filled
from tljax.recipes.folder import read_object
from tljax.recipes.outcome import tell
from tljax.recipes.results import drawn
from tljax.training import compile_all
from tljax.tree import named_leaves
from tljax.types import Array, Key, Model, Output, Params

LEARNT = "learnt.safetensors"
"""The file of what has to be stored for a task beside the pretrained model."""
PROBE_STEPS = 500
"""The least steps of the probe, which cost next to nothing."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """The data set with its seeds: every method is measured on it in the same way."""

    settings: FinetuneSettings
    setup: Setup
    folder: pathlib.Path
    show: bool

    @property
    def seeds(self) -> range:
        """The numbers of the seeds, from 0."""
        return range(self.settings.seeds)

    @functools.cached_property
    def rows(self) -> dict[int, np.ndarray]:
        """For each seed the labelled examples, as positions in the training part."""
        train, k = self.setup.task.train, self.settings.labels_per_class
        if k is None:
            return {seed: np.arange(len(train)) for seed in self.seeds}
        return {s: k_shot(train.y, k, seed=self.settings.seed + s, classes=train.classes) for s in self.seeds}

    @functools.cached_property
    def drawn(self) -> np.ndarray:
        """The training examples that some seed draws, in order."""
        return np.unique(np.concatenate(list(self.rows.values())))

    @functools.cached_property
    def pool(self) -> Any:
        """Those examples."""
        return self.setup.task.train.take(self.drawn)

    @functools.cached_property
    def starts(self) -> dict[int, Params]:
        """For each seed the pretrained parameters with a head of its own, or that of the file, where it is kept."""
        params = self.setup.pretrained.params
        if self.settings.keep_head:
            return dict.fromkeys(self.seeds, params)
        model, example = self.setup.pretrained.model, jax.tree.map(jnp.asarray, self.setup.example)
        head: Callable[[Key], Params] = jax.jit(lambda key: model.init(key, example)["head"])
        return {s: params | {"head": head(jax.random.key(self.settings.seed + 1 + s))} for s in self.seeds}

    @functools.cached_property
    def trainer(self) -> Trainer:
        """What every method shares, so that programs are shared too."""
        subsets = {seed: np.searchsorted(self.drawn, rows) for seed, rows in self.rows.items()}
        s = self.settings
        return Trainer(subsets, s.batch_size, s.seed, s.tune, self.show, s.of_fit(s.batch_size))

    @functools.cached_property
    def objective(self) -> Term:
        """What all but the probe minimise: the loss of the task, with the regularisers that were asked for."""
        common = None if self.settings.labels_per_class and self.settings.seeds > 1 else self.pool
        return regularised(
            self.setup.task.objective, self.settings.regularizers, self.setup, self.settings.model, common
        )

    @functools.cached_property
    def features(self) -> dict[str, Dataset]:
        """The features of the frozen backbone, by part."""
        found = {}
        for part, data in (("pool", self.pool), ("valid", self.setup.task.valid), ("test", self.setup.task.test)):
            x = outputs(self.setup.pretrained.model, self.setup.pretrained.params, data).features
            found[part] = Dataset(np.asarray(x), data.y, data.classes, f"features of {data.name}")
        return found

    @functools.cached_property
    def solved(self) -> dict[int, Params]:
        """For each seed the pretrained parameters with the head that is best on frozen features, in closed form."""
        found, features = {}, self.features["pool"]
        for seed, start in self.starts.items():
            own = features.take(self.trainer.subsets[seed])
            head, _ = closed_form_head(HEAD, {"head": start["head"]}, own)
            found[seed] = start | head
        return found

    def run(self, name: str) -> dict[str, Any]:
        """The result of the method called `name`, as JSON values; that of an earlier process where it is complete."""
        file = self._folder(name) / "result.json"
        found = from_first(lambda: read_object(file))
        if found is None:
            made = self._run(name, file.parent)
            by_first(lambda: write_atomically(file, json.dumps(made)))
            by_first(lambda: shutil.rmtree(file.parent / "runs"))
            found = from_first(lambda: made)
        return found

    def _run(self, name: str, folder: pathlib.Path) -> dict[str, Any]:
        contender, on_features = self.contender(name), self._on_features(name)
        by_first(lambda: make_folder(folder))
        trials, cost = self.trainer.run(contender, folder / "runs", label(name))
        chosen = {seed: best(trials[seed]) for seed in self.seeds}
        test = self.features["test"] if on_features else self.setup.task.test
        cells = []
        for seed, trial in chosen.items():
            metrics = scored(contender.model, trial.params(contender.starts[seed]), test, contender.valid)
            tried = {f"{t.rate:g}": t.value for t in trials[seed]}
            cells.append(_cell(trial, tried, metrics) | {"labels": drawn(self.rows[seed], self.setup.task.train.y)})
        winner = max(self.seeds, key=lambda seed: chosen[seed].value)
        by_first(lambda: shutil.copy(chosen[winner].file, folder / LEARNT))
        return {
            "cells": cells,
            "rates": list(contender.rates),
            "steps": contender.steps,
            "cost": cost._asdict() | {"stored_bytes": (folder / LEARNT).stat().st_size},
            "on_features": on_features,
            "winner": winner,
        }

    def learnt(self, name: str) -> Params:
        """The parameters of the method's run that validation likes best, adapters attached."""
        file = self._folder(name)
        found = read_object(file / "result.json")
        assert found is not None
        start = self.contender(name).starts[found["winner"]]
        params = filled(start, load_weights(file / LEARNT))
        return self.starts[found["winner"]] | params if found["on_features"] else params

    def compile(self) -> None:
        """Compile the programs of all methods that have not been run, side by side."""
        left = [name for name in self.settings.compared if read_object(self._folder(name) / "result.json") is None]
        if len(left) > 1:
            tell(self.show, f"compiling {len(left)} methods")
            compile_all(self.trainer.first(self.contender(name), self._folder(name)) for name in left)

    @functools.cached_property
    def _contenders(self) -> dict[str, Contender]:
        return {}

    def contender(self, name: str) -> Contender:
        """The method called `name`, ready to run; always the same objects, so that programs are shared."""
        if name not in self._contenders:
            self._contenders[name] = self._contender(name)
        return self._contenders[name]

    def _folder(self, name: str) -> pathlib.Path:
        return self.folder / "methods" / name

    def _contender(self, name: str) -> Contender:
        method, s = METHODS[name], self.settings
        if self._on_features(name):
            heads = {seed: {"head": start["head"]} for seed, start in self.starts.items()}
            rates, steps = s.rates(name) or method.rates, max(PROBE_STEPS, s.steps)
            parts, objective = self.features, self.setup.task.objective
            return Contender(HEAD, heads, plan(), parts["pool"], parts["valid"], rates, steps, objective)
        ready = {}
        for seed, start in (self.solved if method.start == "closed form" else self.starts).items():
            key = jax.random.fold_in(jax.random.key(s.seed + 1 + seed), 1)
            options = Options(s.target, s.rank, s.alpha, key)
            model, ready[seed], rules = prepared(method, self.setup.pretrained.model, start, options)
        rates = s.rates(name) or method.rates_for(self.setup.pretrained.params)
        objective = self.setup.task.objective if name == BASELINE else self.objective
        return Contender(model, ready, rules, self.pool, self.setup.task.valid, rates, s.steps, objective)

    def _on_features(self, name: str) -> bool:
        """Whether the method trains a linear head on frozen features, which then are computed once."""
        head = self.starts[0]["head"]
        return name == BASELINE and set(named_leaves(head)) == {"kernel", "bias"} and np.ndim(head["kernel"]) == 2


def _head(params: Params, x: Array, *, train: bool = False, key: Any = None, frozen: Any = frozenset()) -> Output:
    del train, key, frozen
    head = params["head"]
    return Output(x @ head["kernel"] + head["bias"][None], x)


def _no_init(key: Key, x: Any) -> Params:
    raise NotImplementedError("a probe starts from the head of a model")


HEAD = Model(_no_init, _head, groups=("head/**",), name="linear head")
"""A linear head on features."""


def _cell(trial: Trial, tried: dict[str, float], metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "seed": trial.seed,
        "rate": trial.rate,
        "tried": tried,
        "best_step": trial.best_step,
        "valid": trial.value,
        "history": trial.history,
        "test": metrics,
    }
