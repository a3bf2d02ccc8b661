import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tljax.plans import PlanError, Setting, freeze, linear_probe, plan, rate, unfreeze
from tljax.tree import NoMatchError, leaf_names, merge, named_leaves

PARAMS = {
    "backbone": {
        "stem": {"kernel": jnp.ones((2, 3)), "norm": {"scale": jnp.ones(3), "batch_stats": {"mean": jnp.zeros(3)}}},
        "steps": jnp.zeros((), jnp.int32),
        "used": jnp.ones(2, bool),
    },
    "head": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4, jnp.bfloat16)},
}
STATISTIC = "backbone/stem/norm/batch_stats/mean"


def learning(p):
    resolved = p.resolve(PARAMS)
    return {name for name in leaf_names(PARAMS) if resolved.trainable(name)}


def test_the_empty_plan_trains_every_float_and_updates_statistics():
    resolved = plan().resolve(PARAMS)
    assert learning(plan()) == {"backbone/stem/kernel", "backbone/stem/norm/scale", "head/kernel", "head/bias"}
    assert resolved.updated(STATISTIC)
    assert resolved.frozen_statistics == frozenset()


def test_the_last_rule_that_sets_a_property_wins_and_properties_are_apart():
    resolved = plan(
        rate("**", 2.0), freeze("backbone/**"), rate("head/*", 3.0), unfreeze("**/kernel"), rate("head/bias", 0.5)
    ).resolve(PARAMS)
    assert resolved.settings["backbone/stem/kernel"] == Setting(True, 2.0)
    assert resolved.settings["backbone/stem/norm/scale"] == Setting(False, 2.0)
    assert resolved.settings["head/kernel"] == Setting(True, 3.0)
    assert resolved.settings["head/bias"] == Setting(True, 0.5)
    assert resolved.frozen_statistics == {STATISTIC}


def test_plans_nest_in_order():
    inner = plan(freeze("backbone/**"), rate("head/**", 2.0))
    assert str(plan(inner, unfreeze("**/kernel"))) == (
        "plan(freeze('backbone/**'), rate('head/**', 2), unfreeze('**/kernel'))"
    )
    assert learning(plan(inner, unfreeze("**/kernel"))) == {"backbone/stem/kernel", "head/kernel", "head/bias"}
    assert learning(plan(unfreeze("**/kernel"), inner)) == {"head/kernel", "head/bias"}


def test_integers_and_booleans_are_constants_whatever_the_rules_say():
    resolved = plan(unfreeze("**"), rate("**", 2.0)).resolve(PARAMS)
    assert not resolved.trainable("backbone/steps")
    assert not resolved.trainable("backbone/used")
    assert not resolved.updated("backbone/steps")


def test_statistics_never_get_gradients():
    resolved = plan(unfreeze("**")).resolve(PARAMS)
    assert not resolved.trainable(STATISTIC)
    assert resolved.updated(STATISTIC)


def test_linear_probe_trains_the_head_alone():
    assert learning(linear_probe()) == {"head/kernel", "head/bias"}
    assert learning(linear_probe("**/kernel")) == {"backbone/stem/kernel", "head/kernel"}
    assert linear_probe().resolve(PARAMS).frozen_statistics == {STATISTIC}


@pytest.mark.parametrize("rule", [freeze("hed/**"), unfreeze("backbon/**"), rate("**/kernal", 2.0)])
def test_a_rule_that_matches_nothing_raises(rule):
    with pytest.raises(NoMatchError, match="nearest"):
        plan(rule).resolve(PARAMS)


@pytest.mark.parametrize("p", [plan(freeze("**")), plan(freeze("**"), unfreeze("**/batch_stats/**"))])
def test_a_plan_that_trains_nothing_raises(p):
    with pytest.raises(PlanError, match=r"freeze.* trains nothing.*unfreeze"):
        p.resolve(PARAMS)
    with pytest.raises(PlanError, match="trains nothing"):
        p.resolve({"w": {"batch_stats": {"mean": jnp.zeros(2)}, "b": jnp.zeros(2, jnp.int32)}})


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_must_be_positive_and_finite(factor):
    with pytest.raises(PlanError, match=r"positive and finite; found .*; to hold leaves still use freeze"):
        rate("head/**", factor)


def test_only_rules_and_plans_make_a_plan():
    with pytest.raises(TypeError, match="found 'head/"):
        plan("head/**")


def test_parts_are_disjoint_and_together_whole():
    resolved = plan(freeze("backbone/stem/kernel")).resolve(PARAMS)
    learnt, stats, frozen = resolved.partition(PARAMS)
    assert named_leaves(stats).keys() == {STATISTIC}
    assert named_leaves(frozen).keys() == {"backbone/stem/kernel", "backbone/steps", "backbone/used"}
    whole = merge(learnt, stats, frozen, complete=True)
    assert jax.tree.structure(whole) == jax.tree.structure(PARAMS)
    for part in (learnt, stats, frozen):
        assert jax.tree.structure(part, is_leaf=lambda x: x is None) == jax.tree.structure(PARAMS)


def test_rates_that_hardly_differ_are_groups_of_their_own():
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1), "c": jnp.zeros(1)}
    resolved = plan(rate("b", 1.0000001), rate("c", 1 / 3)).resolve(params)
    labels = resolved.labels(params)
    assert len(set(labels.values())) == 3
    assert resolved.groups(optax.sgd(1.0)).keys() == set(labels.values())


def test_the_table():
    p = plan(freeze("backbone/stem/**"), rate("head/bias", 10.0))
    assert p.resolve(PARAMS).table(PARAMS).splitlines() == [
        "group               leaves   parameters  rate  schedule   decay  where",
        "frozen                   4           12     -  -              -  backbone/stem, backbone/steps, backbone/used",
        "statistics, frozen       1            3     -  -              -  backbone/stem",
        "learns                   1            4    10  -              -  head/bias",
        "learns                   1           12     1  -              -  head/kernel",
    ]


RULES = {"freeze": freeze, "unfreeze": unfreeze}
PLACES = {"backbone/**": "backbone/", "head/**": "head/", "**": "", "head/kernel": "head/kernel", "**/stem/**": None}


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["freeze", "unfreeze", "rate"]), st.sampled_from(list(PLACES)))))
def test_rules_do_what_a_loop_over_the_names_does(rules):
    trainable = {name: "stem" in name or "head" in name for name in leaf_names(PARAMS)}
    rates = dict.fromkeys(trainable, 1.0)
    made = []
    for i, (kind, where) in enumerate(rules):
        made.append(rate(where, i + 2.0) if kind == "rate" else RULES[kind](where))
        for name in trainable:
            if "stem" in name if PLACES[where] is None else name.startswith(PLACES[where]):
                if kind == "rate":
                    rates[name] = i + 2.0
                elif "stem" in name or "head" in name:  # the others are no floats
                    trainable[name] = kind == "unfreeze"
    if not any(on for name, on in trainable.items() if "batch_stats" not in name):
        with pytest.raises(PlanError):
            plan(*made).resolve(PARAMS)
        return
    found = plan(*made).resolve(PARAMS).settings
    assert {name: s.trainable for name, s in found.items()} == trainable
    assert {name: s.rate for name, s in found.items()} == rates


def test_groups_scale_the_update_not_the_gradient():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    groups = plan(rate("b", 0.25)).resolve(params).groups(optax.adam(0.1))
    grads = jnp.full(2, 3.0)
    for label, factor in (("rate 1", 1.0), ("rate 0.25", 0.25)):
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer counts
            update, _ = groups[label].update(grads, groups[label].init(grads))
        np.testing.assert_allclose(update, -0.1 * factor * np.ones(2), rtol=1e-5)
