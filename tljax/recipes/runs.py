"""Every cell of the comparison, labels per class x seed x learning rate, as runs of one compiled program."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tljax.data import Dataset
from tljax.objectives import Term
from tljax.plans import Plan
from tljax.training import Result, fit_many
from tljax.training.dispatch import StepCost
from tljax.tree import nbytes
from tljax.types import Model, Params

GROUP_BYTES = 2**31
"""Memory that the stacked runs of one program may take; more runs go in several groups."""
COPIES = 6
"""Copies of the parameters that a run holds: themselves, gradients, two moments, the best, and one in passing."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """What every method gets alike."""

    steps: int
    batch_size: int
    rates: tuple[float, ...]
    optimizer: optax.GradientTransformation
    numerics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """In which type, and how memory is saved: keywords of `fit`."""


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The run that validation chose for one number of labels and one seed."""

    params: Params
    rate: float
    best_step: int
    value: float
    """The monitored metric on the validation split."""
    history: tuple[dict[str, Any], ...]


class Cell(NamedTuple):
    """One run to be judged."""

    shots: int
    """Labels per class."""
    seed: int
    """The number of the draw of labels."""
    repeat: int = 0
    """The number of the training seed on that draw."""


class Stage(NamedTuple):
    """What one stage of a method's training takes, a run."""

    steps: int
    batch_size: int
    step_flops: float | None
    step_seconds: float | None
    """Median wall time of a step without compilation; None where the run was complete already."""
    peak_bytes: int | None


def tune(
    model: Model, objective: Term, plan: Plan, starts: Mapping[Cell, Params], subsets: Mapping[Cell, np.ndarray],
    pool: Dataset, valid: Dataset, budget: Budget, *,
    seeds: Mapping[Cell, int], folder: pathlib.Path, title: str, show: bool, minimise: bool,
) -> tuple[dict[Cell, Chosen], Stage]:  # fmt: skip
    """Train every cell at every learning rate; keep for each cell the rate that validation likes best.

    `starts`, `subsets` and `seeds` give each cell's parameters, labelled examples and training seed, from which the
    order of the data and all other randomness follow, so that methods are compared in pairs.
    """
    runs = [(cell, rate) for cell in starts for rate in budget.rates]
    size = fitting(next(iter(starts.values())))
    found: dict[Cell, list[Chosen]] = {cell: [] for cell in starts}
    times: list[float] = []
    cost = StepCost(None, None)
    groups = [runs[i : i + size] for i in range(0, len(runs), size)]
    for number, group in enumerate(groups):
        part = f" {number + 1}/{len(groups)}" if len(groups) > 1 else ""
        result = fit_many(
            model,
            stacked([starts[cell] for cell, _ in group]),
            objective,
            plan,
            pool,
            valid,
            optimizer=budget.optimizer,
            seeds=[seeds[cell] for cell, _ in group],
            rates=[rate for _, rate in group],
            subsets=[subsets[cell] for cell, _ in group],
            steps=budget.steps,
            batch_size=budget.batch_size,
            **budget.numerics,
            run_dir=folder / str(number),
            save_every=max(1, budget.steps // 4),
            progress=f"{title}{part}" if show else False,
        )
        times += [] if result.step_seconds is None else [result.step_seconds / len(group)]
        cost = result.step_cost() if number == 0 else cost
        for (cell, _), run in zip(group, _runs_of(result, [rate for _, rate in group])):
            found[cell].append(run)
    better: Callable[..., Chosen] = min if minimise else max
    best = {cell: better(chosen, key=lambda c: c.value) for cell, chosen in found.items()}
    seconds = float(np.median(times)) if times else None
    return best, Stage(budget.steps, budget.batch_size, cost.flops, seconds, cost.peak_bytes)


def _runs_of(result: Result, rates: Sequence[float]) -> Iterator[Chosen]:
    """The runs of a stack, one by one."""
    rows = rows_by_run(result.history)
    for i, rate in enumerate(rates):
        params = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), result.params)
        yield Chosen(params, rate, int(result.best_step[i]), float(result.best_value[i]), rows.get(i, ()))


def fitting(params: Params) -> int:
    """How many runs of a model with these parameters one program may hold, 1 or more.

    >>> fitting({"w": np.zeros((2**20, 64), np.float32)})
    1
    """
    return max(1, GROUP_BYTES // (COPIES * max(1, nbytes(params))))


def stacked(trees: Sequence[Params]) -> Params:
    """Trees of one structure as one, whose leaves have them on a first axis.

    >>> stacked([{"w": jnp.zeros(3)}, {"w": jnp.ones(3)}])["w"].shape
    (2, 3)
    """
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def rows_by_run(history: Sequence[dict[str, Any]]) -> dict[int, tuple[dict[str, Any], ...]]:
    """The rows of a stack's log by the number of the run.

    >>> rows_by_run([{"run": 1, "step": 5}, {"run": 0, "step": 5}])[1]
    ({'run': 1, 'step': 5},)
    """
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in history:
        rows.setdefault(row["run"], []).append(row)
    return {run: tuple(found) for run, found in rows.items()}
