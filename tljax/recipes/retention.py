"""What fine-tuning cost on the source task, for the report of `tljax transfer`."""

from typing import Any

import numpy as np

from tljax.evaluation import before_head, cka, forgetting, predict, tradeoff, weight_distance
from tljax.features import extract, layers
from tljax.recipes.contest import Contest
from tljax.recipes.results import mean_of, or_none
from tljax.recipes.runs import Cell
from tljax.recipes.tasks import Task
from tljax.types import Model, Params

MOST_EXAMPLES = 1000
"""Source and target examples that are looked at, at most: an interval of +-1.5 points at 95 %."""
MOST_SEEDS = 5
"""Draws of labels that are looked at, at most."""


def retention(
    contest: Contest, source: Task, source_model: Model, pretrained: Params, starts: list[Params]
) -> dict[str, Any] | None:
    """Forgetting, CKA, weight distance and the WiSE-FT curve of the judged method, as JSON values.

    None where the method does not change the backbone, or there is no linear probe to start the curve from.
    """
    method = contest.settings.method
    if method == "linear-probe":
        return None
    cells = [cell for cell in contest.params[method] if cell.repeat == 0][:MOST_SEEDS]
    few = _few(source, contest.settings.seed)
    found, distances, curves, alike = [], [], [], []
    inside = _inside(source_model, pretrained, few["test"].x)
    for cell in cells:
        tuned = contest.params[method][cell]
        found.append(forgetting(source_model, pretrained, tuned, few["test"], train=few["train"]))
        distances.append(weight_distance(starts[contest.training_seed(cell)], tuned, contest.model.groups))
        after = _inside(source_model, before_head(pretrained, tuned), few["test"].x)
        alike.append({group: cka(inside[group], after[group]) for group in inside})
        curves.append(_curve(contest, source_model, pretrained, few["test"], cell))
    return {
        "method": method,
        "examples": len(few["test"].y),
        "refit_on": len(few["train"].y),
        "before": found[0].before,
        "after": _spread([f.after for f in found]),
        "forgotten": _spread([f.forgotten for f in found]),
        "refit_before": found[0].refit_before,
        "refit_after": _spread([f.refit_after for f in found]),
        "cka": _spread([f.cka for f in found]),
        "cka_layers": {group: _spread([layer[group] for layer in alike]) for group in inside},
        "distance": {group: _spread([d[group] for d in distances]) for group in distances[0]},
        "tradeoff": {
            "alphas": curves[0]["alphas"],
            "source": [curve["source"] for curve in curves],
            "target": [curve["target"] for curve in curves],
        },
    }


def _curve(contest: Contest, source_model: Model, pretrained: Params, test: Any, cell: Cell) -> dict[str, list[float]]:
    """From the linear probe, whose backbone is the pretrained one, to the fine-tuned model."""
    target = contest.target
    part = target.test.take(_some(len(target.test), contest.settings.seed))

    def score(params: Params) -> dict[str, float]:
        known = predict(source_model, before_head(pretrained, params), test.x).logits
        answers = np.asarray(predict(contest.model, params, part.x).logits)
        right = np.mean(np.asarray(known).argmax(-1) == test.y)
        if not target.regression:
            return {"source": float(right), "target": float(np.mean(answers.argmax(-1) == part.y))}
        return {
            "source": float(right),
            "target": float(np.sqrt(np.mean((answers - part.y.reshape(answers.shape)) ** 2))),
        }

    return tradeoff(contest.params["linear-probe"][cell], contest.params[contest.settings.method][cell], score)


def _inside(model: Model, params: Params, x: np.ndarray) -> dict[str, np.ndarray]:
    """The features of each group of the backbone that is a layer, `[N, D]`, averaged over positions."""
    known = layers(model, params, x[:1])
    names = {str(group): str(group).removesuffix("/**") for group in model.groups if not str(group).startswith("head")}
    return {
        group: extract(model, params, x, layer=layer, progress=False).features
        for group, layer in names.items()
        if layer in known
    }


def _few(source: Task, seed: int) -> dict[str, Any]:
    return {name: part.take(_some(len(part), seed)) for name, part in (("train", source.train), ("test", source.test))}


def _some(size: int, seed: int) -> np.ndarray:
    """All rows, or so many drawn at random as are looked at."""
    if size <= MOST_EXAMPLES:
        return np.arange(size)
    return np.sort(np.random.default_rng(seed).permutation(size)[:MOST_EXAMPLES])


def _spread(values: list[float]) -> dict[str, Any]:
    return mean_of(values) | {"values": [or_none(value) for value in values]}
