"""The regularisers that `tljax finetune` knows, made for a model and its data."""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np

from tljax.models import load_pretrained
from tljax.models.taps import tapped
from tljax.objectives import Term, bss, co_tuning, delta, l2_sp, lwf
from tljax.recipes.finetune.scoring import outputs
from tljax.recipes.finetune.setup import Setup
from tljax.recipes.options import SettingsError
from tljax.recipes.relationship import category_relationship
from tljax.types import Model, Params

DELTA_LAYERS = 4


def regularised(objective: Term, wanted: Mapping[str, float], setup: Setup, model: str, labels: Any) -> Term:
    """`objective` with the regularisers `wanted`; `model` is where the weights stand.

    `labels` are the examples that may be learnt from, or None where seeds have different ones.

    Raises `SettingsError` where the file has no head for those that need the source's, and where co-tuning would have
    to relate categories by labels that not all seeds have.
    """
    source = _source(setup, model) if {"lwf", "co-tuning"} & set(wanted) else None
    for name, weight in wanted.items():
        objective = objective + weight * _term(name, setup, source, labels)
    return objective


def _term(name: str, setup: Setup, source: tuple[Model, Params] | None, labels: Any) -> Term:
    start = setup.pretrained.params
    if name == "l2-sp":
        return l2_sp(start)
    if name == "delta":
        return delta(start, _layers(setup))
    if name == "bss":
        return bss()
    assert source is not None  # of the two others
    head = source[1]["head"]
    if name == "lwf":
        return lwf(start, head)
    if labels is None:
        raise SettingsError(
            "co-tuning relates source categories to labels that all seeds have in common; give --seeds 1, or leave out "
            "--labels-per-class"
        )
    logits = outputs(*source, labels).logits
    few = np.bincount(labels.y, minlength=labels.outputs).min() < 2
    form: Literal["reverse", "direct"] = "direct" if few else "reverse"
    return co_tuning(category_relationship(logits, labels.y, form=form, num_classes=labels.outputs), head)


def _source(setup: Setup, path: str) -> tuple[Model, Params]:
    """The model with the head that is in the file."""
    found = load_pretrained(path, example=setup.example)
    kept = found.report.graft.names("loaded", "renamed")
    if not any(name.startswith("head/") for name in kept):
        raise SettingsError(f"lwf and co-tuning need the head of the source, and {path!r} has none")
    return found.model, found.params


def _layers(setup: Setup) -> list[str]:
    """Four layers at most, from first to last: the ends of the groups of the model's parts that give maps."""
    model, params = setup.pretrained.model, setup.pretrained.params
    with tapped() as tap:
        jax.eval_shape(lambda p, x: model.apply(p, x), params, setup.example)
    names = [group.removesuffix("/**") for group in model.groups[1:-1]]
    names = [name for name in names if len(getattr(tap.shapes.get(name), "shape", ())) > 1]
    if not names:
        raise SettingsError(f"delta: {model.name} has no layers between its first and its head that can be looked at")
    chosen = np.unique(np.linspace(0, len(names) - 1, DELTA_LAYERS + 1).round().astype(int)[1:])
    return [names[i] for i in chosen]
