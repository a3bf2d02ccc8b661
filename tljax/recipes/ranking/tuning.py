"""What fine-tuning reaches with the labels at hand: LP-FT, judged on examples that it did not see."""

import dataclasses
from typing import Any

import jax
import numpy as np

from tljax.data import stratified_split
from tljax.evaluation import predict
from tljax.objectives import cross_entropy
from tljax.plans import Plan, plan, rate
from tljax.recipes.closed_form import HeadError, closed_form_head
from tljax.recipes.finetune.methods import METHODS
from tljax.recipes.finetune.train import optimizer
from tljax.recipes.ranking.entries import Entry
from tljax.recipes.runs import fitting, stacked
from tljax.selection import SelectionError
from tljax.training import fit_many
from tljax.types import Model, Params

FOLDS = 4
"""At most: parts of the labelled examples, each of which is left out once."""


@dataclasses.dataclass(frozen=True)
class Tuning:
    """How the top few are fine-tuned."""

    steps: int = 100
    batch_size: int = 16
    rates: tuple[float, ...] = ()
    """Learning rates to try; empty: those of LP-FT for the architecture."""
    seeds: int = 1
    seed: int = 0


def finetuned_accuracy(entry: Entry, valid: Any, tuning: Tuning, *, title: str, show: bool) -> tuple[float, int]:
    """The accuracy of LP-FT at its best learning rate, and on how many examples it was judged.

    Judged on `valid`; without it by cross-validation of the entry's examples, whose classes then need two
    examples each. Where the head is no linear function of the features, all is fine-tuned from the head as it is.

    Raises `SelectionError` where nothing can be left out.
    """
    model, params, data = entry.model, entry.params, entry.data
    assert model is not None
    folds = _folds(data, valid, tuning.seed)
    starts, rules = zip(*[_start(model, params, data.take(learns)) for learns, _ in folds])
    rates = tuning.rates or METHODS["lp-ft"].rates_for(params)
    runs = [(fold, r, seed) for fold in range(len(folds)) for r in rates for seed in range(tuning.seeds)]
    size = fitting(params)
    right: dict[float, list[np.ndarray]] = {r: [] for r in rates}
    for first in range(0, len(runs), size):
        group = runs[first : first + size]
        result = fit_many(
            model,
            stacked([starts[fold] for fold, _, _ in group]),
            cross_entropy(),
            rules[0],
            data,
            optimizer=optimizer(tuning.steps),
            seeds=[tuning.seed + seed for _, _, seed in group],
            rates=[r for _, r, _ in group],
            subsets=[folds[fold][0] for fold, _, _ in group],
            steps=tuning.steps,
            batch_size=tuning.batch_size,
            progress=title if show else False,
        )
        for i, (fold, r, _) in enumerate(group):
            tested = valid if valid is not None else data.take(folds[fold][1])
            learnt = jax.tree.map(lambda leaf, i=i: leaf[i], result.params)
            logits = np.asarray(predict(model, learnt, tested.x, batch_size=64).logits)
            right[r].append(logits.argmax(-1) == np.asarray(tested.y))
    accuracy = max(float(np.mean(np.concatenate(found))) for found in right.values())
    return accuracy, len(valid if valid is not None else data)


def _folds(data: Any, valid: Any, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of examples that learn and that are left out."""
    if valid is not None:
        return [(np.arange(len(data)), np.arange(0))]
    least = int(np.bincount(data.y).min())
    if least < 2:
        raise SelectionError(
            "fine-tuning is judged on examples that are left out, so every class needs two or more; give a validation "
            "part, or finetune=0"
        )
    count = min(FOLDS, least)
    parts = stratified_split(data.y, (1 / count,) * count, seed=seed)
    return [(np.setdiff1d(np.arange(len(data)), part), part) for part in parts]


def _start(model: Model, params: Params, data: Any) -> tuple[Params, Plan]:
    try:
        return closed_form_head(model, params, data, batch_size=64)[0], plan()
    except HeadError:
        return params, plan(rate("head/**", METHODS["full"].head_rate))
