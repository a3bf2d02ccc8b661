"""The multilayer perceptron against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.models import ModelError, mlp
from tljax.tree import count, leaf_names, map_named, select

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(6, 2, 5)).astype(np.float32)


def leaf_values(params):
    rng = np.random.default_rng(1)
    return map_named(lambda name, leaf: jnp.asarray(rng.uniform(0.3, 1.0, leaf.shape) - 0.4, leaf.dtype), params)


def test_the_10_20_10_network():
    model = mlp((20,), num_classes=10)
    params = leaf_values(jax.eval_shape(model.init, KEY, X))
    assert leaf_names(params) == [
        "backbone/block_00/dense/bias",
        "backbone/block_00/dense/kernel",
        "head/bias",
        "head/kernel",
    ]
    assert count(params) == 10 * 20 + 20 + 20 * 10 + 10
    out = jax.jit(model.apply)(params, X)
    dense = params["backbone"]["block_00"]["dense"]
    features = np.maximum(X.reshape(6, 10) @ dense["kernel"] + dense["bias"][None], 0)
    np.testing.assert_allclose(out.features, features, rtol=1e-5)
    np.testing.assert_allclose(
        out.logits, features @ params["head"]["kernel"] + params["head"]["bias"][None], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("hidden", [(), (7,), tuple(range(2, 14))])
@pytest.mark.parametrize("norm", [None, "batch", "layer"])
def test_groups_are_in_order_and_whole(hidden, norm):
    model = mlp(hidden, 3, norm=norm)
    params = jax.eval_shape(model.init, KEY, X)
    grouped = [name for group in model.groups for name in select(group).names(params)]
    assert grouped == leaf_names(params)  # block_11 comes after block_02
    assert len(model.groups) == len(hidden) + 1
    assert any("batch_stats" in name for name in grouped) == (norm == "batch" and bool(hidden))


def test_layer_norm_tanh_by_hand():
    model = mlp((4,), 3, norm="layer", activation="tanh")
    params = leaf_values(jax.eval_shape(model.init, KEY, X))
    block = params["backbone"]["block_00"]
    y = X.reshape(6, 10) @ block["dense"]["kernel"] + block["dense"]["bias"][None]
    y = (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-6)
    expected = np.tanh(y * block["norm"]["scale"][None] + block["norm"]["bias"][None])
    np.testing.assert_allclose(model.apply(params, X).features, expected, rtol=1e-4, atol=1e-5)


def test_dropout_in_training_only():
    model = mlp((200,), 3, dropout=0.25)
    params = model.init(KEY, X)
    kept = model.apply(params, X).features
    dropped = model.apply(params, X, train=True, key=KEY).features
    share = np.mean(np.asarray(dropped)[np.asarray(kept) > 0] == 0)
    assert 0.15 < share < 0.35
    scaled = np.asarray(dropped != 0)
    np.testing.assert_allclose(dropped[scaled], kept[scaled] / 0.75, rtol=1e-5)


def test_errors_name_the_thing():
    for options, message in [
        ({"activation": "gelo"}, "activation='gelo'; expected one of 'relu',.* 'gelu'"),
        ({"norm": "group"}, "norm='group'; expected one of None, 'batch', 'layer'"),
        ({"hidden": (20, 0)}, r"hidden=\(20, 0\); expected whole numbers above 0"),
        ({"hidden": 20}, r"hidden=20; expected .* as in mlp\("),
        ({"num_classes": 0}, "num_classes=0; expected a whole number"),
    ]:
        with pytest.raises(ModelError, match=message):
            mlp(**options)
