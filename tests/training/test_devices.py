"""State and batches may lie anywhere: eight simulated devices give the numbers of one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from training_cases import HITS, TANH, close, examples, normed, same

from tljax.objectives import cross_entropy
from tljax.plans import freeze, plan, rate
from tljax.training import fit, make_step
from tljax.types import Batch

X, Y = examples(32, features=8)
ADAMW = optax.adamw(0.05)
PLAN = plan(rate("head/**", 2.0), freeze("backbone/b"))


def mesh():
    return Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("data", "model"))


def put(tree, *spec):
    return jax.device_put(tree, NamedSharding(mesh(), PartitionSpec(*spec)))


def trained(model, params, place_state, place_batch, p=PLAN, optimizer=ADAMW, **options):
    step = make_step(model, cross_entropy(), p.resolve(params), optimizer, **options)
    batches = {"train": place_batch(Batch(jnp.asarray(X), jnp.asarray(Y)))}
    state, update = place_state(step.init(params, batches, seed=0)), jax.jit(step.update)
    for _ in range(4):
        state, metrics = update(state, batches)
    return state, metrics


def wide(leaf):
    """Two-dimensional leaves by columns over `model`, the rest everywhere."""
    return put(leaf, None, "model") if leaf.ndim == 2 and leaf.shape[1] % 2 == 0 else put(leaf)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"ema": 0.9, "clip_norm": 0.5, "accumulate": 2}], ids=["plain", "all"])
def test_a_sharded_step_is_the_step(options):
    params = TANH.init(jax.random.key(0), X)
    alone, metrics = trained(TANH, params, lambda s: s, lambda b: b, **options)
    for place in (lambda state: put(state), lambda state: jax.tree.map(wide, state)):
        spread, spread_metrics = trained(TANH, params, place, lambda b: put(b, "data"), **options)
        assert len(spread.params["backbone"]["w"].devices()) == 8
        close(spread.params, alone.params)
        close(spread_metrics, metrics)
        close(spread.evaluated, alone.evaluated)


@pytest.mark.slow
def test_batch_statistics_are_those_of_the_whole_batch():
    model = normed()
    params = model.init(jax.random.key(0), X)
    sgd = optax.sgd(0.1)  # Adam makes steps of the rounding errors that a bias before BatchNorm has as its gradient
    alone, _ = trained(model, params, lambda s: s, lambda b: b, plan(), sgd)
    spread, _ = trained(model, params, put, lambda b: put(b, "data"), plan(), sgd)
    close(spread.stats, alone.stats)
    close(spread.params, alone.params)


def test_nothing_pins_the_first_device():
    params = jax.device_put(TANH.init(jax.random.key(0), X), jax.devices()[5])
    place = lambda tree: jax.device_put(tree, jax.devices()[5])  # noqa: E731
    state, metrics = trained(TANH, params, place, place)
    for leaf in jax.tree.leaves((state, metrics)):
        assert leaf.devices() == {jax.devices()[5]}


@pytest.mark.slow
def test_fit_follows_its_parameters():
    params = TANH.init(jax.random.key(0), X)
    options = {"optimizer": optax.adam(0.05), "steps": 6, "batch_size": 8, "progress": False, "metric": HITS}

    def run(params, data):
        return fit(TANH, params, cross_entropy(), plan(), data, data, **options)

    alone = run(params, (X, Y))
    elsewhere = run(jax.device_put(params, jax.devices()[3]), (X, Y))
    assert same(elsewhere.last, alone.last)
    assert elsewhere.last["head"]["w"].devices() == {jax.devices()[3]}
    spread = run(put(params), (put(X, "data"), put(Y, "data")))
    close(spread.last, alone.last)
    assert len(spread.last["head"]["w"].devices()) == 8
