"""A model with adapters attached: one tree for plans, training, evaluation and checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tljax as tl
from tljax import peft
from tljax.models import mlp
from tljax.models.taps import tapped
from tljax.peft import PeftError
from tljax.tree import named_leaves

X = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)


@pytest.fixture(scope="module")
def adapted():
    model = mlp((8,), num_classes=2, norm="batch")
    base = model.init(jax.random.key(0), X[:2])
    inner = peft.lora(base, "backbone/**/kernel", key=jax.random.key(1), rank=2)
    adapters = peft.join(inner, peft.full(base, "head/**"))
    return model, base, adapters, *peft.attach(model, base, adapters)


def test_there_and_back(adapted):
    model, base, adapters, attached, params = adapted
    assert attached.groups == (*model.groups, "adapters/**")
    assert attached.keymaps == {}
    again, found = peft.detach(params)
    assert (jax.tree.structure(again), set(found)) == (jax.tree.structure(base), set(adapters))
    assert jax.tree.structure(attached.init(jax.random.key(2), X[:2])) == jax.tree.structure(params)
    assert peft.attach(model, base, adapters)[0].apply is attached.apply  # so nothing is compiled again


def test_statistics_come_in_the_structure_of_the_whole_tree(adapted):
    *_, attached, params = adapted
    output = attached.apply(params, X[:4], train=True, key=jax.random.key(0))
    stats = jax.tree.map(lambda a, b: b, params, output.stats, is_leaf=lambda x: x is None)
    assert all("batch_stats" in name for name in named_leaves(stats))


@pytest.mark.slow
def test_fit_trains_the_adapters_alone_and_is_continued(adapted, tmp_path):
    _, base, _, attached, params = adapted
    plan = tl.plan(tl.freeze("**"), tl.unfreeze("adapters/**"))
    ways = {"optimizer": optax.adam(3e-2), "steps": 40, "progress": False, "run_dir": tmp_path / "run"}
    first = tl.fit(attached, params, tl.cross_entropy(), plan, (X, Y), (X, Y), **ways)
    after, adapters = peft.detach(first.params)
    jax.tree.map(np.testing.assert_array_equal, after, base)
    assert float(adapters["backbone/block_00/dense/kernel"].constants["scale"]) == 4.0
    assert np.any(adapters["backbone/block_00/dense/kernel"].b)
    assert tl.evaluate(attached, first.params, (X, Y))["accuracy"] > 0.9
    again = tl.fit(attached, params, tl.cross_entropy(), plan, (X, Y), (X, Y), **ways)
    jax.tree.map(np.testing.assert_array_equal, again.params, first.params)


def test_what_cannot_be_attached(adapted):
    model, base, adapters, attached, params = adapted
    with pytest.raises(PeftError, match="attached already"):
        peft.attach(attached, params, adapters)
    with pytest.raises(PeftError, match="no adapters to attach"):
        peft.attach(model, base, {})
    with pytest.raises(PeftError, match="no subtree 'adapters'"):
        peft.detach(base)
    with pytest.raises(PeftError, match=r"adapt 'head/(kernel|bias)'"):
        peft.join(adapters, peft.full(base, "head/**"))


def test_layers_of_an_attached_model_are_those_of_the_merged_one():
    model, x = mlp((8, 8), num_classes=2), jax.random.normal(jax.random.key(1), (4, 6))
    base = model.init(jax.random.key(0), x)
    adapters = peft.lora(base, "backbone/**/kernel", key=jax.random.key(2), rank=2)
    adapters = jax.tree.map(lambda leaf: leaf + 0.1, adapters)
    attached, params = peft.attach(model, base, adapters)
    layer = "backbone/block_01"

    def seen(apply, params):
        with tapped(layer) as tap:
            logits = apply(params, x).logits
        return jnp.sum(jnp.sin(tap.outputs[layer])) + jnp.sum(logits), list(tap.shapes)

    value, slope = jax.jit(jax.value_and_grad(lambda p: seen(attached.apply, p)[0]))(params)
    wanted, other = jax.value_and_grad(lambda a: seen(model.apply, peft.merge(base, a))[0])(adapters)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    for name, adapter in other.items():
        own = slope["adapters"][name] if name in slope["adapters"] else peft.detach(slope)[1][name]
        np.testing.assert_allclose(own.a, adapter.a, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(own.b, adapter.b, rtol=1e-4, atol=1e-6)
    assert seen(attached.apply, params)[1] == seen(model.apply, base)[1]
