"""The plans that train a few leaves alone."""

import jax
import jax.numpy as jnp
import pytest

from tljax.models import convnext, resnet, vit
from tljax.plans import PlanError, adapters_only, bitfit, norm_only, plan, surgical, unfreeze
from tljax.tree import NoMatchError, named_leaves

V, W = jnp.ones(2), jnp.ones((2, 2))
NET = {
    "backbone": {
        "stem": {"kernel": W, "bias": V},
        "norm": {"scale": V, "bias": V, "batch_stats": {"mean": V, "var": V}},
        "rms": {"scale": jnp.ones((3, 2))},  # scanned
        "layer_norm": {"weight": V, "bias": V},
        "linear": {"weight": W, "bias": V},
        "block": {"scale": V, "inner": {"kernel": W}},  # a layer scale
    },
    "head": {"kernel": W, "bias": V},
}
HEAD = {"head/kernel", "head/bias"}
NORMS = {f"backbone/{n}" for n in ("norm/scale", "norm/bias", "rms/scale", "layer_norm/weight", "layer_norm/bias")}
STATISTICS = {"backbone/norm/batch_stats/mean", "backbone/norm/batch_stats/var"}


def learning(p, params=NET):
    resolved = p.resolve(params)
    return {name for name in resolved.settings if resolved.trainable(name)}


def test_bitfit_trains_biases_and_the_head():
    biases = {f"backbone/{n}/bias" for n in ("stem", "norm", "layer_norm", "linear")}
    assert learning(bitfit()) == biases | HEAD
    assert learning(bitfit(head=())) == biases | {"head/bias"}
    assert learning(bitfit("**/linear/bias", head=())) == {"backbone/linear/bias"}
    assert bitfit().resolve(NET).frozen_statistics == STATISTICS
    with pytest.raises(NoMatchError):
        bitfit().resolve({"backbone": {"b": V}, "head": {"w": W}})


def test_norm_only_trains_normalisation_layers_and_the_head():
    assert learning(norm_only()) == NORMS | HEAD
    assert norm_only().resolve(NET).frozen_statistics == STATISTICS
    assert learning(norm_only(head=(), statistics=True)) == NORMS
    assert norm_only(statistics=True).resolve(NET).frozen_statistics == frozenset()
    assert str(norm_only()) == "plan(freeze('**'), unfreeze(normalisation layers), unfreeze('head/**'))"
    with pytest.raises(PlanError, match="no normalisation layers that it could tell"):
        norm_only().resolve({"backbone": {"kernel": W, "bias": V}, "head": {"kernel": W}})


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (vit("ti16", num_classes=2, depth=1), 32),
        (convnext("tiny", num_classes=2), 64),
        (resnet(8, num_classes=2), 8),
    ],
    ids=["vit", "convnext", "resnet"],
)
def test_norm_only_finds_the_norms_of_the_catalogue(model, size):
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, size, size, 3)))
    found = learning(norm_only(head=()), params)
    assert found
    assert found == {
        name for name in named_leaves(params)
        if "norm" in name.split("/")[-2] and name.split("/")[-1] in ("scale", "bias")
    }  # fmt: skip


def test_surgical_trains_the_chosen_blocks():
    assert learning(surgical("backbone/stem/**")) == {"backbone/stem/kernel", "backbone/stem/bias"} | HEAD
    both = surgical(["backbone/norm/**", "backbone/rms/**"], head=())
    assert learning(both) == {"backbone/norm/scale", "backbone/norm/bias", "backbone/rms/scale"}
    assert both.resolve(NET).frozen_statistics == frozenset()
    with pytest.raises(NoMatchError):
        surgical("backbone/blok/**").resolve(NET)


def test_adapters_learn_but_for_their_constants():
    adapter = {"a": W, "b": W, "constants": {"scale": jnp.float32(2.0)}}
    params = NET | {"adapters": {"backbone": {"stem": {"kernel": adapter}}}}
    factors = {"adapters/backbone/stem/kernel/a", "adapters/backbone/stem/kernel/b"}
    assert learning(adapters_only(), params) == factors
    assert learning(plan(adapters_only(), unfreeze("head/**")), params) == factors | HEAD
    assert "adapters/backbone/stem/kernel/constants/scale" not in learning(plan(unfreeze("**")), params)
    assert "constant                 1            1     -  -              -  adapters/backbone" in plan(
    ).resolve(params).table(params)  # fmt: skip
    with pytest.raises(NoMatchError):
        adapters_only().resolve(NET)
