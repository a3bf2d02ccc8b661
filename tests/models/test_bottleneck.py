"""A bottleneck and a new head on any model, against NumPy and against the model alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import tljax as tl
from tljax.models import ModelError, mlp, with_bottleneck
from tljax.tree import leaf_names, named_leaves, select

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)


class Top(nn.Module):
    """A head with statistics of its own."""

    @nn.compact
    def __call__(self, x, train: bool):
        return nn.Dense(3)(nn.BatchNorm(use_running_average=not train)(x))


class Linen(nn.Module):
    """A module whose head is not called head, and is more than linear."""

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Dense(7)(x)))
        return Top(name="out")(x, train)


class Nnx(nnx.Module):
    """The same with NNX, and dropout."""

    def __init__(self, rngs):
        self.hidden, self.norm = nnx.Linear(5, 7, rngs=rngs), nnx.BatchNorm(7, rngs=rngs)
        self.drop, self.out = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(7, 3, rngs=rngs)

    def __call__(self, x):
        return self.out(self.drop(nnx.relu(self.norm(self.hidden(x)))))


MODELS = {
    "catalogue": lambda: mlp((7,), 3, norm="batch"),
    "from_flax": lambda: tl.from_flax(Linen(), head="out"),
    "from_nnx": lambda: tl.from_nnx(Nnx),
    "headless": lambda: tl.from_flax(nn.Sequential([nn.Conv(7, (3,)), lambda x: x.reshape(x.shape[0], -1)])),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("kind", MODELS)
def test_the_function_is_that_of_the_features_a_dense_layer_and_a_head(kind):
    inner, x = MODELS[kind](), X[:, :, None] if kind == "headless" else X
    model = with_bottleneck(inner, 4, num_classes=2)
    params, own = model.init(KEY, x), inner.init(KEY, x)
    assert not [name for name in leaf_names(params["head"]) if name not in ("bias", "kernel")]
    grafted, report = tl.graft(params, own, reinit=["backbone/bottleneck/**", "head/**"])
    assert {row.action for row in report.rows} <= {"loaded", "reinitialised", "dropped"}
    out, features = jax.jit(model.apply)(grafted, x), inner.apply(own, x).features
    b = jax.tree.map(np.asarray, grafted["backbone"]["bottleneck"])
    y = features @ b["dense"]["kernel"] + b["dense"]["bias"][None]  # running mean 0 and variance 1 at the start
    expected = np.maximum(y / np.sqrt(1 + 1e-5), 0)
    np.testing.assert_allclose(out.features, expected, rtol=1e-5, atol=1e-6)
    head = grafted["head"]
    np.testing.assert_allclose(out.logits, expected @ head["kernel"] + head["bias"][None], rtol=1e-5, atol=1e-5)
    assert (out.features.shape, out.logits.shape) == ((6, 4), (6, 2))


@pytest.mark.parametrize("kind", MODELS)
def test_groups_match_every_leaf_once_and_the_bottleneck_is_next_to_the_head(kind):
    x = X[:, :, None] if kind == "headless" else X
    model = with_bottleneck(MODELS[kind](), 4)
    params = jax.eval_shape(model.init, KEY, x)
    grouped = [select(group).names(params) for group in model.groups]
    assert sorted(name for group in grouped for name in group) == sorted(leaf_names(params))
    assert all(name.startswith("backbone/bottleneck/") for name in grouped[-2])
    assert model.groups[-1] == "head/**"
    rates = str(tl.plan(tl.layerwise_decay(0.5, model.groups)).resolve(params))
    assert "0.5" in rates


@pytest.mark.one_in(2)
@pytest.mark.parametrize("kind", ["catalogue", "from_flax", "from_nnx"])
def test_statistics_of_both_parts_are_updated_and_can_be_frozen(kind):
    inner = MODELS[kind]()
    model = with_bottleneck(inner, 4)
    params = model.init(KEY, X)
    state = {name: leaf for name, leaf in named_leaves(params).items() if "batch_stats" in name}
    assert len(state) == 4
    out = jax.jit(lambda p: model.apply(p, X, train=True, key=KEY))(params)
    fresh = named_leaves(out.stats)
    assert fresh.keys() == state.keys()
    assert all(np.any(fresh[name] != state[name]) for name in state)
    ours = [name for name in state if name.startswith("backbone/bottleneck/")]
    held = jax.jit(lambda p: model.apply(p, X, train=True, key=KEY, frozen=frozenset(ours)))(params)
    kept = named_leaves(held.stats)
    assert {name for name in state if np.array_equal(kept[name], state[name])} == set(ours)
    assert not np.allclose(held.features, out.features)
    with pytest.raises(ModelError, match=r"backbone/bottleneck/nrm/batch_stats/mean.* is not a statistic"):
        model.apply(params, X, train=True, key=KEY, frozen={"backbone/bottleneck/nrm/batch_stats/mean"})


@pytest.mark.slow
def test_it_trains_with_a_plan_and_with_dropout():
    model = with_bottleneck(mlp((7,), 2), 16, dropout=0.3)
    y = (X[:, 0] > 0).astype("int32")
    params = model.init(KEY, X)
    result = tl.fit(
        model, params, tl.cross_entropy(), tl.plan(tl.freeze("backbone/block_00/**")), train=(X, y),
        optimizer=optax.adam(0.05), steps=30, batch_size=6, progress=False,
    )  # fmt: skip
    kernels = [p["backbone"]["block_00"]["dense"]["kernel"] for p in (params, result.params)]
    assert np.array_equal(*kernels)
    assert np.mean(np.asarray(model.apply(result.params, X).logits).argmax(1) == y) == 1
    with pytest.raises(ModelError, match="give apply a key"):
        model.apply(params, X, train=True)


def test_layers_can_be_looked_at_and_the_head_of_the_model_costs_nothing():
    inner = mlp((7,), 10_000)
    model = with_bottleneck(inner, 4, norm=None, num_classes=2)
    params = model.init(KEY, X)
    found = tl.features.layers(model, params, X)
    assert (found["backbone/bottleneck"].shape, found["head"].shape) == ((6, 4), (6, 2))
    assert found["backbone/block_00/dense"].shape == (6, 7)
    for layer, width in (("backbone/block_00", 7), ("backbone/bottleneck/dense", 4)):
        assert tl.extract(model, params, X, layer=layer, progress=False).features.shape == (6, width)
    flops = jax.jit(model.apply).lower(params, X).compile().cost_analysis()["flops"]
    assert flops < 6 * 7 * 1000


def test_errors_say_what_is_wrong():
    model = mlp((7,), 3)
    for options, message in [
        ({"width": 0}, "width=0; expected a whole number"),
        ({"norm": "layer"}, "norm='layer'; expected 'batch' or None"),
        ({"dropout": 1.0}, "dropout=1.0; expected a rate"),
        ({"num_classes": 0}, "num_classes=0; expected a whole number"),
    ]:
        with pytest.raises(ModelError, match=message):
            with_bottleneck(model, **options)
    twice = with_bottleneck(with_bottleneck(model))
    with pytest.raises(ModelError, match="has a 'backbone/bottleneck' already"):
        twice.init(KEY, jnp.asarray(X))
