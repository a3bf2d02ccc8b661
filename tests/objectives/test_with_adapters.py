"""Terms that look at parameters, of a model to which adapters are attached."""

import jax
import numpy as np
import optax
import pytest

import tljax as tl
from tljax import peft
from tljax.objectives.parameters import StartError
from tljax.tree import named_leaves

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")
MODEL = tl.models.mlp((8,), num_classes=2)
BASE = MODEL.init(jax.random.key(0), X[:1])


def attached(kind="lora"):
    key, where = jax.random.key(1), "backbone/**/kernel"
    inside = peft.lora(BASE, where, key=key, rank=2) if kind == "lora" else peft.ia3(BASE, where)
    return peft.attach(MODEL, BASE, peft.join(inside, peft.full(BASE, "head/**")))


def moved(objective, kind="lora", train=(X, Y), plan=None):
    model, start = attached(kind)
    given = {"optimizer": optax.sgd(1.0), "steps": 1, "progress": False}
    result = tl.fit(model, start, objective(start), plan or tl.adapters_only(), train=train, **given)
    before, after = named_leaves(start), named_leaves(result.last)
    return {name: np.asarray(after[name]) - np.asarray(before[name]) for name in before}, before


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_l2_sp_keeps_adapters_at_their_start_and_pulls_those_of_the_head_to_zero(kind):
    change, before = moved(lambda start: 1e-9 * tl.cross_entropy() + 0.5 * tl.l2_sp(start), kind)
    for name, moved_by in change.items():
        wanted = -0.5 * before[name] if name.startswith("adapters/head/") else 0
        np.testing.assert_allclose(moved_by, wanted, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("term", [tl.l2_sp, lambda start: tl.delta(start, ["backbone/block_00"])])
def test_the_base_is_no_start_of_a_model_with_adapters(term):
    with pytest.raises(StartError, match=r"has no 'adapters/backbone/.*: of a model with adapters give the parameters"):
        moved(lambda start: tl.cross_entropy() + term(BASE))


def test_mcd_trains_adapters_in_the_phases_of_what_they_belong_to():
    domains = {"source": (X, Y), "target": (X + 1, None)}
    change, _ = moved(lambda start: tl.cross_entropy() + tl.mcd(), train=domains)
    learnt = {name.rsplit("/", 1)[0] for name, by in change.items() if np.abs(by).max() > 0}
    assert {name.split("/")[1] for name in learnt} == {"backbone", "head"}
    assert all(name.startswith("adapters/") for name in learnt)


def test_delta_is_nothing_at_the_start_and_decays_the_head_of_adapters():
    change, before = moved(lambda start: 0.1 * tl.delta(start, ["backbone/block_00"]))
    head = {name for name in before if name.startswith("adapters/head/")}
    for name in before:
        np.testing.assert_allclose(change[name], -0.1 * before[name] if name in head else 0, atol=1e-5, err_msg=name)
