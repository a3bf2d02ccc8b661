"""When groups open, and what clipping means while some are closed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.plans import PlanError, freeze, gradual_unfreeze, linear_probe, plan, rate, unfreeze
from tljax.plans.unfreezing import clip_open, held, open_norm
from tljax.tree import NoMatchError

GROUPS = ["backbone/a/**", "backbone/b/**", "head/**"]
V = jnp.ones(2)
NET = {
    "backbone": {"a": {"w": V}, "b": {"w": V, "batch_stats": {"mean": V}}, "free": V},
    "head": {"w": V, "batch_stats": {"mean": V}},
}


def opens(p):
    return {name: s.opens for name, s in p.resolve(NET).settings.items()}


def test_groups_open_from_the_head_downwards():
    found = opens(plan(gradual_unfreeze(GROUPS, every=10)))
    assert found == {
        "backbone/a/w": 20, "backbone/b/w": 10, "backbone/b/batch_stats/mean": 10, "backbone/free": 0, "head/w": 0,
        "head/batch_stats/mean": 0,
    }  # fmt: skip
    assert opens(plan(gradual_unfreeze(GROUPS, at=[5, 5])))["backbone/a/w"] == 5
    assert str(plan(gradual_unfreeze(GROUPS, at=(3, 7)))) == "plan(gradual_unfreeze(3 groups, at=[3, 7]))"


def test_it_composes_with_other_rules():
    p = plan(freeze("backbone/a/**"), gradual_unfreeze(GROUPS, every=10), rate("backbone/**", 0.5))
    resolved = p.resolve(NET)
    assert not resolved.trainable("backbone/a/w")
    assert resolved.settings["backbone/b/w"].rate == 0.5
    assert resolved.staged
    lines = [line.split() for line in resolved.table(NET).splitlines()]
    assert ["learns", "1", "2", "0.5", "from", "step", "10", "-", "backbone/b"] in lines
    assert ["statistics,", "frozen", "1", "2", "-", "-", "-", "backbone/b"] in lines
    reopened = plan(gradual_unfreeze(GROUPS, every=10), unfreeze("backbone/b/**"))
    assert opens(reopened)["backbone/b/w"] == 0
    assert not plan(gradual_unfreeze(GROUPS[1:], every=10), linear_probe()).resolve(NET).staged


def test_statistics_of_groups_that_open_later_are_frozen():
    resolved = plan(gradual_unfreeze(GROUPS, every=10)).resolve(NET)
    assert resolved.frozen_statistics == {"backbone/b/batch_stats/mean"}
    assert resolved.updated("head/batch_stats/mean")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda: gradual_unfreeze(GROUPS), "say when groups open"),
        (lambda: gradual_unfreeze(GROUPS, every=5, at=[1, 2]), "say when groups open"),
        (lambda: gradual_unfreeze(GROUPS, every=0), "whole numbers of steps, 1 or more; found 0"),
        (lambda: gradual_unfreeze(GROUPS, every=1.5), "found 1.5"),
        (lambda: gradual_unfreeze(GROUPS, every=float("nan")), "found nan"),
        (lambda: gradual_unfreeze(GROUPS, at=[5]), r"3 groups need 2 steps in rising order.*at=\[5\]"),
        (lambda: gradual_unfreeze(GROUPS, at=[5, 3]), "in rising order"),
        (lambda: gradual_unfreeze(GROUPS, at=[-5, 3]), "found -5"),
        (lambda: gradual_unfreeze([], every=5), "groups are selectors from stem to head"),
        (lambda: plan(gradual_unfreeze(GROUPS, every=5), freeze(["head/**", "backbone/free"])).resolve(NET),
         "trains nothing before step 5"),
    ],
)  # fmt: skip
def test_what_it_refuses(rule, message):
    with pytest.raises(PlanError, match=message):
        rule()
    with pytest.raises(NoMatchError):
        plan(gradual_unfreeze(["stem/**", "head/**"], every=5)).resolve(NET)


AT = {"a": 20, "b": 10, "head": 0}
GRADS = {"a": jnp.array([2.0]), "b": jnp.array([2.0]), "head": jnp.array([1.0])}


@pytest.mark.parametrize(("step", "norm"), [(0, 1.0), (9, 1.0), (10, 5**0.5), (19, 5**0.5), (20, 3.0), (99, 3.0)])
def test_norms_are_of_what_is_open(step, norm):
    np.testing.assert_allclose(open_norm(AT, jnp.int32(step), GRADS), norm, rtol=1e-6)
    moved = held(AT, jnp.int32(step), GRADS, jax.tree.map(jnp.zeros_like, GRADS))
    np.testing.assert_allclose(np.sqrt(sum(float(m[0]) ** 2 for m in moved.values())), norm, rtol=1e-6)


@pytest.mark.parametrize(
    ("step", "factors"),
    [(0, {"head": 0.5, "b": 0.5 / 5**0.5, "a": 0.5 / 3}), (10, {"head": 0.5 / 5**0.5, "b": 0.5 / 5**0.5, "a": 0.5 / 3}),
     (20, {"head": 0.5 / 3, "b": 0.5 / 3, "a": 0.5 / 3})],
)  # fmt: skip
def test_what_is_closed_is_clipped_as_when_it_opens(step, factors):
    clip = clip_open(lambda tree: AT, 0.5)
    clipped, _ = clip.update(GRADS, clip.init(GRADS), None, step=jnp.int32(step))
    for name, factor in factors.items():
        np.testing.assert_allclose(clipped[name], factor * GRADS[name], rtol=1e-6)
    wide = clip_open(lambda tree: AT, 10.0)
    unclipped, _ = wide.update(GRADS, wide.init(GRADS), None, step=jnp.int32(step))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(a == b), unclipped, GRADS))


def test_held_leaves_keep_their_bits():
    new = held({"a": 1}, jnp.int32(0), {"a": jnp.array([0.0, jnp.nan])}, {"a": jnp.array([-0.0, 1.0])})
    assert np.asarray(new["a"]).tobytes() == np.array([-0.0, 1.0], np.float32).tobytes()
