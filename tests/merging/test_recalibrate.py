"""Running statistics against those computed directly."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tljax.merging import MergingError, average, evaluate_stacked, interpolate, recalibrate
from tljax.models import from_flax, from_nnx, mlp
from tljax.tree import map_named, named_leaves
from tljax.types import Batch, is_state

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(90, 5)) * [1, 10, 0.1, 3, 1] + [0, 100, 1, -3, 0]).astype(np.float32)
BATCHES = [Batch(X[:40]), Batch(X[40:80]), Batch(X[80:])]


class Net(nn.Module):
    momentum: float = 0.99
    still: bool = False

    @nn.compact
    def __call__(self, x, train: bool):
        if self.still:
            x = nn.BatchNorm(use_running_average=True, name="still")(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=self.momentum, name="first")(x)
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(nn.Dense(7)(x)))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="second")(x)
        return nn.Dense(3, name="head")(x)


def start(net: nn.Module):
    model = from_flax(net)
    return model, model.init(jax.random.key(0), X)


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.999])
def test_mean_and_variance_of_all_examples(momentum: float) -> None:
    model, params = start(Net(momentum))
    found = recalibrate(model, params, BATCHES, key=jax.random.key(1))["backbone"]["first"]["batch_stats"]
    exact = X.astype(np.float64)
    np.testing.assert_allclose(found["mean"], exact.mean(0), rtol=2e-6, atol=1e-6)
    # Flax takes E[x^2] - E[x]^2 in float32 itself: 100^2 beside a variance of 100 costs it two digits.
    np.testing.assert_allclose(found["var"], exact.var(0), rtol=2e-4)


@pytest.mark.slow
def test_deeper_layers_against_flax_without_momentum() -> None:
    model, params = start(Net())
    found = named_leaves(recalibrate(model, params, BATCHES, key=jax.random.key(1)))
    twin = pooled_directly(model, params)
    for name in ("backbone/second/batch_stats/mean", "backbone/second/batch_stats/var"):
        np.testing.assert_allclose(found[name], twin[name], rtol=1e-5, atol=1e-6)


def pooled_directly(model, params):
    """Statistics by plain pooling in float64, of ``(r - m r0) / (1 - m)`` from single updates, r0 = 0."""
    zero = map_named(lambda name, leaf: jnp.zeros_like(leaf) if is_state(name) else leaf, params)
    momenta = {"first": 0.99, "second": 0.9}
    update, rows = jax.jit(lambda p, x, key: model.apply(p, x, train=True, key=key).stats), []
    for i, batch in enumerate(BATCHES):
        key = jax.random.fold_in(jax.random.key(1), i)
        stats = named_leaves(update(zero, batch.x, key))
        rows.append({n: np.asarray(s, np.float64) / (1 - momenta[n.split("/")[1]]) for n, s in stats.items()})
    w = np.array([len(b.x) for b in BATCHES]) / len(X)
    pooled = {}
    for name in rows[0]:
        mean = name.replace("/var", "/mean")
        first = sum(wi * row[mean] for wi, row in zip(w, rows))
        if name.endswith("/mean"):
            pooled[name] = first
        else:
            pooled[name] = sum(wi * (row[name] + row[mean] ** 2) for wi, row in zip(w, rows)) - first**2
    return pooled


@pytest.mark.slow
def test_an_average_infers_as_it_trains() -> None:
    model = mlp((8, 8), num_classes=3, norm="batch")
    x = RNG.normal(size=(64, 5)).astype(np.float32)
    params = average([model.init(jax.random.key(i), x[:1]) for i in range(2)])
    new = recalibrate(model, params, [Batch(x)])
    same = [n for n, leaf in named_leaves(new).items() if leaf is named_leaves(params)[n]]
    assert same
    assert not any(map(is_state, same))
    in_training = model.apply(new, x, train=True).logits
    np.testing.assert_allclose(model.apply(new, x).logits, in_training, rtol=1e-4, atol=1e-4)
    assert not np.allclose(model.apply(params, x).logits, in_training, atol=1e-2)


@pytest.mark.slow
def test_statistics_that_never_move_stay_and_those_behind_them_are_right() -> None:
    model, params = start(Net(still=True))
    params["backbone"]["still"]["batch_stats"]["mean"] = jnp.full(5, 7.0)
    found = recalibrate(model, params, BATCHES, key=jax.random.key(1))["backbone"]
    np.testing.assert_array_equal(found["still"]["batch_stats"]["mean"], np.full(5, 7.0))
    np.testing.assert_allclose(found["first"]["batch_stats"]["mean"], X.mean(0) - 7, rtol=1e-3, atol=1e-3)


def test_nnx() -> None:
    class Small(nnx.Module):
        def __init__(self, rngs):
            self.norm, self.out = nnx.BatchNorm(5, rngs=rngs), nnx.Linear(5, 2, rngs=rngs)

        def __call__(self, x):
            return self.out(self.norm(x))

    model = from_nnx(Small)
    found = recalibrate(model, model.init(jax.random.key(0), X), BATCHES)["backbone"]["norm"]["batch_stats"]
    np.testing.assert_allclose(found["mean"], X.mean(0), rtol=1e-4, atol=1e-5)


def test_nothing_to_do_and_nothing_to_do_it_with() -> None:
    model = mlp((4,), num_classes=2)
    params = model.init(jax.random.key(0), X)
    assert recalibrate(model, params, BATCHES) is params
    model, params = start(Net())
    with pytest.raises(MergingError, match="no batches"):
        recalibrate(model, params, [])
    with pytest.raises(MergingError, match="padding"):
        recalibrate(model, params, [Batch(X, weight=np.r_[np.ones(80), np.zeros(10)])], key=jax.random.key(0))


@pytest.mark.slow
def test_the_same_when_compiled_and_for_stacked_candidates() -> None:
    model, params = start(Net())
    found = recalibrate(model, params, BATCHES, key=jax.random.key(1))
    compiled = jax.jit(lambda p: recalibrate(model, p, BATCHES, key=jax.random.key(1)))(params)
    many = evaluate_stacked(
        lambda alpha: recalibrate(model, interpolate(params, params, alpha), BATCHES, key=jax.random.key(1)),
        jnp.array([0.0, 1.0], jnp.float32),
    )
    for name, leaf in named_leaves(found).items():
        np.testing.assert_allclose(named_leaves(compiled)[name], leaf, rtol=1e-5, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(named_leaves(many)[name][1], leaf, rtol=1e-5, atol=1e-5, err_msg=name)
