"""The step under pmap is the step under jit, statistics of BatchNorm included."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_cases import examples, normed

import tljax as tl
from tljax.training import StepError, make_step, pmap_step
from tljax.tree import named_leaves
from tljax.types import Batch

DEVICES = jax.devices()[:4]
X, Y = examples(32, features=8)
MODEL = normed()
START = MODEL.init(jax.random.key(0), X)
FROZEN = tl.plan(tl.freeze("backbone/norm_0/**"))


def trained(make, plan=tl.plan(), steps=3, **options):  # noqa: B008
    step = make(MODEL, tl.cross_entropy(), plan.resolve(START), optax.sgd(0.1, momentum=0.9), clip_norm=0.5, **options)
    update = step.update if make is pmap_step else jax.jit(step.update)
    state = step.init(START, {"train": Batch(X, Y)}, seed=0)
    for i in range(steps):
        state, metrics = update(state, {"train": Batch(jnp.asarray(np.roll(X, i, 0)), jnp.asarray(np.roll(Y, i, 0)))})
    return state, metrics


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"plan": FROZEN, "accumulate": 2, "ema": 0.9}], ids=["plain", "all"])
def test_it_is_the_step(options):
    (alone, metrics), (spread, others) = trained(make_step, **options), trained(pmap_step, devices=DEVICES, **options)
    assert others.keys() == metrics.keys()
    for name, value in metrics.items():
        assert float(others[name]) == pytest.approx(float(value), rel=1e-6), name
    for name, leaf in named_leaves(alone).items():
        host = np.asarray(leaf)
        tolerance = 1e-6 * max(np.abs(host).max(initial=0), 1.0)
        np.testing.assert_allclose(named_leaves(spread)[name], host, rtol=0, atol=tolerance, err_msg=name)
    kept = named_leaves(spread.params)["backbone/norm_0/batch_stats/mean"]
    assert np.array_equal(kept, named_leaves(START)["backbone/norm_0/batch_stats/mean"]) is ("plan" in options)
    assert all(len(leaf.devices()) == 4 and leaf.is_fully_replicated for leaf in jax.tree.leaves(spread))


def test_a_batch_that_does_not_divide():
    step = pmap_step(MODEL, tl.cross_entropy(), tl.plan().resolve(START), optax.sgd(0.1), devices=DEVICES)
    with pytest.raises(StepError, match="a batch of 30 examples cannot be divided over 4 devices"):
        step.update(step.init(START, {"train": Batch(X, Y)}, seed=0), {"train": Batch(X[:30], Y[:30])})
