"""The target task with its cells: every method of `tljax transfer` is trained and measured on it in the same way."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import optax

from tljax.evaluation import evaluate, predict
from tljax.plans import Plan, linear_probe, plan
from tljax.probes import knn
from tljax.processes import from_first
from tljax.recipes.chosen import keep
from tljax.recipes.results import Scored, as_logits, fitted_temperature, score_logits
from tljax.recipes.runs import Budget, Cell, Chosen, Stage, tune
from tljax.recipes.settings import Settings
from tljax.recipes.tasks import Task
from tljax.recipes.timing import Timing, stopwatch
from tljax.types import Model, Params

NEIGHBOURS = (1, 3, 5)
"""How many neighbours k-NN may choose from, on validation."""


@dataclasses.dataclass(frozen=True)
class Contest:
    """The target task with its cells."""

    settings: Settings
    target: Task
    model: Model
    subsets: dict[Cell, np.ndarray]
    """The labelled examples of every cell."""
    folder: pathlib.Path
    show: bool
    stages: dict[str, list[Stage]] = dataclasses.field(default_factory=dict)
    """What the training of each method took."""
    params: dict[str, dict[Cell, Params]] = dataclasses.field(default_factory=dict)
    """The chosen parameters of each method in the main comparison."""

    def training_seed(self, cell: Cell) -> int:
        """The number of a cell's training seed, from 0; no two cells with equal labels share one."""
        return cell.seed + cell.repeat * self.settings.seeds

    def adapt(self, method: str, starts: list[Params]) -> dict[Cell, Scored]:
        """The transfer method under judgement."""
        if method == "full":
            return self.train(method, starts, plan())
        if method == "linear-probe":
            return self.train(method, starts, linear_probe())
        first, second = self.settings.steps // 2, self.settings.steps - self.settings.steps // 2
        with self._timed(method):
            head = self._tune(method, "lp-ft head", self._by_cell(starts), linear_probe(), max(1, first))
            tuned = self._tune(method, "lp-ft", {c: chosen.params for c, chosen in head.items()}, plan(), second)
        return self._score(method, tuned)

    def train(self, method: str, starts: list[Params], rules: Plan) -> dict[Cell, Scored]:
        """`method` from one start per training seed."""
        with self._timed(method):
            tuned = self._tune(method, method, self._by_cell(starts), rules, self.settings.steps)
        return self._score(method, tuned)

    def knn(self, params: Params) -> dict[Cell, Scored]:
        """Nearest neighbours among the labelled examples, by the frozen features of the grafted backbone.

        Without a training seed: one cell for each draw of labels.
        """
        with self._timed("knn"):
            parts = (self.target.train, self.target.valid, self.target.test)
            pool, valid, test = (np.asarray(predict(self.model, params, part.x).features) for part in parts)
            queries = np.concatenate([valid, test])
            cells = [cell for cell in self.subsets if cell.repeat == 0]
            return {cell: self._nearest(pool, queries, self.subsets[cell]) for cell in cells}

    def _nearest(self, pool: np.ndarray, queries: np.ndarray, rows: np.ndarray) -> Scored:
        """Subsets are filled up to one size, so that all share a program for each number of neighbours."""
        most, labels = max(map(len, self.subsets.values())), self.target.train.y
        filled = np.concatenate([rows, np.zeros(most - len(rows), rows.dtype)])
        weight = (np.arange(most) < len(rows)).astype(np.float32)
        held_out = len(self.target.valid)
        found, right = [], []
        for k in NEIGHBOURS:
            near = knn(pool[filled], labels[filled], k=k, num_classes=self.target.train.outputs, weight=weight)
            found.append(np.asarray(near.predict(queries)))
            right.append(float(np.mean(found[-1][:held_out].argmax(-1) == self.target.valid.y)))
        best = int(np.argmax(right))
        scores = as_logits(found[best])
        calmer = fitted_temperature(scores[:held_out], self.target.valid)
        return Scored(score_logits(scores[held_out:], self.target.test, calmer), valid=right[best])

    def _by_cell(self, starts: list[Params]) -> dict[Cell, Params]:
        return {cell: starts[self.training_seed(cell)] for cell in self.subsets}

    @contextlib.contextmanager
    def _timed(self, method: str) -> Iterator[None]:
        """Notes what a method took, unless an earlier process began it: then what is left of it says nothing."""
        begun = from_first((self.folder / method).exists)
        with stopwatch() as spent:
            yield
        stages = self.stages.get(method, [])
        memory = [stage.peak_bytes for stage in stages if stage.peak_bytes is not None]
        seconds = stages[-1].step_seconds if stages else None
        if not begun:
            Timing(self.folder).note(method, spent, step_seconds=seconds, peak_bytes=max(memory, default=None))

    def _tune(self, method: str, name: str, starts: dict[Cell, Params], rules: Plan, steps: int) -> dict[Cell, Chosen]:
        batch = self.settings.batch_size
        found, stage = tune(
            self.model,
            self.target.objective,
            rules,
            starts,
            self.subsets,
            self.target.train,
            self.target.valid,
            Budget(steps, batch, self.settings.learning_rates, _optimizer(steps), self.settings.of_fit(batch)),
            seeds={cell: self.settings.seed + self.training_seed(cell) for cell in self.subsets},
            folder=self.folder / name.replace(" ", "-"),
            title=name,
            show=self.show,
            minimise=self.target.regression,
        )
        self.stages.setdefault(method, []).append(stage)
        return found

    def _score(self, method: str, chosen: dict[Cell, Chosen]) -> dict[Cell, Scored]:
        for cell, found in chosen.items():
            if cell.shots == self.settings.labels_per_class:
                self.params.setdefault(method, {})[cell] = found.params
                keep(self.folder, method, cell, found.params)
        return {
            cell: Scored(self._test(c.params), c.value, c.rate, c.best_step, c.history) for cell, c in chosen.items()
        }

    def _test(self, params: Params) -> dict[str, Any]:
        if self.target.regression:
            return dict(evaluate(self.model, params, self.target.test))
        valid, test = (predict(self.model, params, part.x).logits for part in (self.target.valid, self.target.test))
        return score_logits(test, self.target.test, fitted_temperature(valid, self.target.valid))


@functools.cache
def _optimizer(steps: int) -> optax.GradientTransformation:
    """AdamW at rate 1, to be scaled by each run's own; one object per schedule, so that programs are shared."""
    return optax.adamw(optax.cosine_decay_schedule(1.0, steps))
