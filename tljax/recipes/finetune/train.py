"""Training: seeds and learning rates of one method as runs of one compiled program, each stored when it is done.

A group of runs is trained at once. When it is complete, what it learnt is written down and its checkpoints go; so a
comparison that was killed continues, and a large model does not fill the disk.
"""

import dataclasses
import functools
import json
import math
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import optax

from tljax.checkpoints import load_weights, save_weights
from tljax.checkpoints.run import make_folder, write_atomically
from tljax.objectives import Term
from tljax.plans import Plan, Resolved
from tljax.processes import by_first, from_first
from tljax.recipes.folder import read_object
from tljax.recipes.runs import fitting, rows_by_run, stacked
from tljax.training import Result, fit_many
from tljax.tree import count, map_named, named_leaves
from tljax.types import Model, Params, is_constant

EVALUATIONS = 5
"""Evaluations on the validation split in a run."""
WARM_UP = 0.1
"""The share of the steps in which the rate rises."""


class Contender(NamedTuple):
    """A method that is ready to run."""

    model: Model
    starts: Mapping[int, Params]
    """Parameters by seed."""
    plan: Plan
    pool: Any
    """The training examples that some seed draws from."""
    valid: Any
    rates: tuple[float, ...]
    steps: int
    objective: Term


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run: a seed at a learning rate."""

    seed: int
    rate: float
    value: float
    """The monitored metric on the validation split, at its best."""
    best_step: int
    history: tuple[dict[str, Any], ...]
    file: pathlib.Path
    """What it learnt."""

    def params(self, start: Params) -> Params:
        """The whole tree: `start` with what was learnt."""
        return filled(start, load_weights(self.file))


class Cost(NamedTuple):
    """What a method costs, a run."""

    trainable: int
    """Parameters that learn."""
    optimizer_bytes: int
    step_ms: float | None
    """Median wall time of a step, without compilation; None where it was not measured."""


@dataclasses.dataclass(frozen=True)
class Trainer:
    """How every method is trained."""

    subsets: Mapping[int, np.ndarray]
    """The labelled examples of each seed, as positions in the pool."""
    batch_size: int
    first_seed: int
    tune: str
    show: bool
    numerics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """In which type, and how memory is saved: keywords of `fit`."""

    def run(self, contender: Contender, folder: pathlib.Path, title: str) -> tuple[dict[int, list[Trial]], Cost]:
        """The trials of each seed, at every rate, or but for the first seed at the rate that was the first's best."""
        runs, size, whole = self._begin(contender)
        trials, costs = self._groups(contender, runs, size, folder if whole else folder / "first", title)
        if not whole:
            rest = [(seed, best(trials).rate) for seed in list(contender.starts)[1:]]
            more, more_costs = self._groups(contender, rest, size, folder / "rest", title)
            trials, costs = trials + more, costs + more_costs
        times = [cost.step_ms for cost in costs if cost.step_ms is not None]
        cost = costs[0]._replace(step_ms=float(np.median(times)) if times else None)
        return {seed: [trial for trial in trials if trial.seed == seed] for seed in contender.starts}, cost

    def first(self, contender: Contender, folder: pathlib.Path) -> "functools.partial[Result]":
        """The call that trains the first group of runs, whose programs are those of all others."""
        runs, size, _ = self._begin(contender)
        return self._call(contender, runs[:size], folder, "")

    def _begin(self, contender: Contender) -> tuple[list[tuple[int, float]], int, bool]:
        """The seeds and rates that are trained first, how many at a time, and whether there are no others."""
        seeds, rates = list(contender.starts), contender.rates
        every = [(seed, rate) for seed in seeds for rate in rates]
        most = fitting(contender.starts[seeds[0]])
        if self.tune == "every" or len(rates) == 1:
            return every, _divisor(len(every), most), True
        return every[: len(rates)], _divisor(math.gcd(len(rates), len(seeds) - 1), most), False

    def _groups(
        self, contender: Contender, runs: list[tuple[int, float]], size: int, folder: pathlib.Path, title: str
    ) -> tuple[list[Trial], list[Cost]]:
        trials, costs = [], []
        for number, first in enumerate(range(0, len(runs), size)):
            part = f"{title} {number + 1}/{len(runs) // size}" if len(runs) > size else title
            found, cost = self._group(contender, runs[first : first + size], folder / str(number), part)
            trials += found
            costs.append(cost)
        return trials, costs

    def _group(
        self, contender: Contender, runs: list[tuple[int, float]], folder: pathlib.Path, title: str
    ) -> tuple[list[Trial], Cost]:
        done = _read(folder)
        if done is not None:
            return done
        result = self._call(contender, runs, folder, title)()
        resolved, n = result.plan, len(runs)
        learnt = {name: leaf for name, leaf in named_leaves(result.params).items() if _is_own(name, resolved)}
        cost = Cost(
            trainable=count([leaf for name, leaf in learnt.items() if resolved.trainable(name)]) // n,
            optimizer_bytes=result.optimizer_bytes // n,
            step_ms=None if result.step_seconds is None else 1000 * result.step_seconds / n,
        )
        rows = rows_by_run(result.history)
        trials = []
        for i, (seed, rate) in enumerate(runs):
            file = folder / f"seed_{seed}-rate_{rate:g}.safetensors"
            own = {name: np.asarray(leaf[i]) for name, leaf in learnt.items()}
            by_first(functools.partial(save_weights, own, file))
            value, step = float(result.best_value[i]), int(result.best_step[i])
            trials.append(Trial(seed, rate, value, step, rows.get(i, ()), file))
        by_first(lambda: _write(folder, trials, cost))
        return trials, cost

    def _call(
        self, contender: Contender, runs: list[tuple[int, float]], folder: pathlib.Path, title: str
    ) -> "functools.partial[Result]":
        return functools.partial(
            fit_many,
            contender.model,
            stacked([contender.starts[seed] for seed, _ in runs]),
            contender.objective,
            contender.plan,
            contender.pool,
            contender.valid,
            optimizer=optimizer(contender.steps),
            seeds=[self.first_seed + seed for seed, _ in runs],
            rates=[rate for _, rate in runs],
            subsets=[self.subsets[seed] for seed, _ in runs],
            steps=contender.steps,
            batch_size=self.batch_size,
            **self.numerics,
            eval_every=max(1, contender.steps // EVALUATIONS),
            run_dir=folder,
            progress=title if self.show else False,
        )


def filled(start: Params, learnt: Params) -> Params:
    """`start` with the leaves of `learnt`.

    >>> filled({"a": 1, "b": 2}, {"b": 3})
    {'a': 1, 'b': 3}
    """
    leaves = named_leaves(learnt)
    return map_named(lambda name, leaf: leaves.get(name, leaf), start)


def best(trials: Sequence[Trial]) -> Trial:
    """The trial that validation likes best; of equals the one with the smaller rate."""
    return max(trials, key=lambda trial: (trial.value, -trial.rate))


@functools.cache
def optimizer(steps: int) -> optax.GradientTransformation:
    """AdamW at rate 1, to be scaled by each run's own; one object per schedule, so that programs are shared."""
    rise = max(1, int(WARM_UP * steps))
    return optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 1.0, rise, max(steps, rise + 1)))


def _is_own(name: str, plan: Resolved) -> bool:
    """Whether a leaf has to be stored: what learns, and the constants of adapters that are not the same for all."""
    return plan.trainable(name) or plan.updated(name) or (is_constant(name) and "/shared/" not in name)


def _divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`: groups of one size share a program.

    >>> _divisor(15, 4), _divisor(0, 4)
    (3, 1)
    """
    return next((d for d in range(min(number, most), 1, -1) if number % d == 0), 1)


def _write(folder: pathlib.Path, trials: list[Trial], cost: Cost) -> None:
    rows = [dataclasses.asdict(trial) | {"file": trial.file.name} for trial in trials]
    make_folder(folder)
    write_atomically(folder / "done.json", json.dumps({"trials": rows, "cost": cost._asdict()}))
    for place in (folder, *filter(pathlib.Path.is_dir, folder.iterdir())):  # on a mesh each run has its own
        shutil.rmtree(place / "checkpoints", ignore_errors=True)


def _read(folder: pathlib.Path) -> tuple[list[Trial], Cost] | None:
    """The trials of a group that is complete."""
    found = from_first(lambda: read_object(folder / "done.json"))
    if found is None:
        return None
    trials = [
        Trial(**row | {"file": folder / row["file"], "history": tuple(row["history"])}) for row in found["trials"]
    ]
    return trials, Cost(**found["cost"])
