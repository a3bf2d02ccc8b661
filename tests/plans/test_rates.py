"""Rates, layer-wise decay and weight decay, against literals, published code's depths, and plain optax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tljax.models import vit
from tljax.plans import PlanError, decay, discriminative, freeze, layerwise_decay, lora_plus, plan, rate, unfreeze
from tljax.tree import NoMatchError, map_named, named_leaves

W = jnp.ones((2, 2))
DEEP = {
    "backbone": {
        "embed": {"kernel": W, "position": jnp.ones((1, 4, 2)), "cls": jnp.ones((1, 1, 2))},
        **{f"block_{i:02d}": {"query": {"kernel": W, "bias": jnp.ones((1, 2))}, "norm": jnp.ones(2)} for i in range(3)},
        "norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)},
    },
    "head": {"kernel": W, "bias": jnp.ones(2)},
}
GROUPS = (
    "backbone/embed/**", *(f"backbone/block_{i:02d}/**" for i in range(3)), "backbone/norm/**", "head/**",
)  # fmt: skip


def rates(p, params=DEEP):
    return {name: s.rate for name, s in p.resolve(params).settings.items()}


def test_layerwise_decay_counts_from_the_head_and_a_lone_norm_is_no_layer():
    found = rates(plan(layerwise_decay(0.5, GROUPS)))
    assert found["head/kernel"] == found["head/bias"] == found["backbone/norm/scale"] == 1
    assert found["backbone/block_02/query/kernel"] == found["backbone/block_02/norm"] == 0.5
    assert found["backbone/block_00/query/bias"] == 0.125
    assert found["backbone/embed/kernel"] == found["backbone/embed/cls"] == 0.0625


def test_layerwise_decay_is_that_of_beit_and_mae_for_a_vit():
    model = vit("ti16", num_classes=3, depth=4)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))

    def scale(name):  # BEiT, MAE: get_layer_id, and layer_decay ** (num_layers + 1 - id)
        part = name.split("/")[1]
        layer = 0 if part == "embed" else int(part[-2:]) + 1 if part.startswith("block") else 5
        return 0.75 ** (5 - layer)

    found = rates(plan(layerwise_decay(0.75, model.groups)), params)
    assert found == {name: pytest.approx(scale(name), rel=1e-12) for name in named_leaves(params)}
    assert len(set(found.values())) == 6


def test_discriminative_divides_from_group_to_group():
    found = rates(plan(discriminative(GROUPS[1:4])))
    assert found["backbone/block_02/norm"] == 1
    assert found["backbone/block_01/norm"] == pytest.approx(1 / 2.6)
    assert found["backbone/block_00/norm"] == pytest.approx(1 / 6.76)
    assert found["head/bias"] == 1  # in none of the groups


def test_rules_compose_and_the_last_that_speaks_of_a_rate_holds():
    p = plan(layerwise_decay(0.5, GROUPS), rate("head/**", 10), freeze("**/cls"), decay("**", 0.1))
    assert str(p) == "plan(layerwise_decay(0.5), rate('head/**', 10), freeze('**/cls'), decay('**', 0.1))"
    resolved = p.resolve(DEEP)
    assert resolved.of("head/kernel").label == "rate 10, decay 0.1"
    assert resolved.of("head/bias").label == "rate 10, decay 0"
    pairs = [(1, 0), (10, 0.1), (10, 0), *((r, d) for r in (0.5, 0.25, 0.125, 0.0625) for d in (0, 0.1))]
    labels = {f"rate {r}, decay {d}" for r, d in pairs}
    assert resolved.groups(functools.partial(optax.adamw, 1e-3)).keys() == labels
    assert resolved.table(DEEP).splitlines() == [
        "group               leaves   parameters    rate  schedule   decay  where",
        "learns                   2            4   0.125  -              0  backbone/block_00",
        "learns                   1            4   0.125  -            0.1  backbone/block_00",
        "learns                   2            4    0.25  -              0  backbone/block_01",
        "learns                   1            4    0.25  -            0.1  backbone/block_01",
        "learns                   2            4     0.5  -              0  backbone/block_02",
        "learns                   1            4     0.5  -            0.1  backbone/block_02",
        "frozen                   1            2       -  -              -  backbone/embed",
        "learns                   1            4  0.0625  -            0.1  backbone/embed",
        "learns                   1            8  0.0625  -              0  backbone/embed",
        "learns                   2            4       1  -              0  backbone/norm",
        "learns                   1            2      10  -              0  head/bias",
        "learns                   1            4      10  -            0.1  head/kernel",
    ]


def test_lora_plus_is_a_rate_on_the_second_factors():
    params = {"backbone": {"kernel": W}, "adapters": {"backbone": {"kernel": {"a": W, "b": W}}}}
    found = rates(plan(lora_plus()), params)
    assert found == {"adapters/backbone/kernel/a": 1, "adapters/backbone/kernel/b": 16, "backbone/kernel": 1}
    with pytest.raises(NoMatchError):
        plan(lora_plus()).resolve(DEEP)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda: rate("**", "fast"), "must be positive and finite; found 'fast'"),
        (lambda: layerwise_decay(float("nan"), GROUPS), "factor must be positive and finite; found nan"),
        (lambda: layerwise_decay(0.0, GROUPS), "factor must be positive"),
        (lambda: layerwise_decay(1.5, GROUPS), "at most 1"),
        (lambda: layerwise_decay(0.5, ()), r"groups are selectors from stem to head, as model.groups; found \(\)"),
        (lambda: layerwise_decay(0.5, "head/**"), "groups are selectors"),
        (lambda: discriminative(GROUPS, 0.5), "divisor is 1 or more"),
        (lambda: discriminative(GROUPS, float("inf")), "divisor must be positive and finite"),
        (lambda: lora_plus(-1), "ratio must be positive"),
        (lambda: decay("**", -0.1), "strength must be 0 or more, and finite"),
        (lambda: decay("**", float("nan")), "strength must be 0 or more"),
        (lambda: plan(decay("**/bias", 0.1)).resolve(DEEP), r"decays nothing.*add exempt=\(\)"),
    ],
)
def test_what_rules_refuse(rule, message):
    with pytest.raises(PlanError, match=message):
        rule()


@pytest.mark.parametrize(
    "rule", [layerwise_decay(0.5, ["stem/**"]), discriminative(["stem/**"]), decay("stem/**", 0.1)]
)  # fmt: skip
def test_a_selector_that_matches_nothing(rule):
    with pytest.raises(NoMatchError):
        plan(rule).resolve(DEEP)


# --- weight decay ----------------------------------------------------------------------------------------------------


def decays(p):
    resolved = p.resolve(DEEP)
    return {name for name in resolved.settings if resolved.of(name).decay}


def test_decay_spares_vectors_biases_and_tokens_and_later_rules_hold():
    kernels = {name for name in named_leaves(DEEP) if name.endswith("kernel")}
    assert decays(plan(decay("**", 0.1))) == kernels
    assert decays(plan(decay("**", 0.1), decay("head/**", 0.0))) == kernels - {"head/kernel"}
    assert decays(plan(decay("head/**", 0.1, exempt=()))) == {"head/kernel", "head/bias"}
    assert decays(plan(decay("**", 0.1, exempt="**/kernel"))) == named_leaves(DEEP).keys() - kernels
    assert plan(rate("**", 2.0)).resolve(DEEP).of("head/kernel").decay is None


def trained(transform, params, steps=5):
    grads = map_named(lambda name, leaf: jnp.full(leaf.shape, 0.1 + 0.01 * len(name), leaf.dtype), params)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        state = transform.init(params)
        for _ in range(steps):
            updates, state = transform.update(grads, state, params)
            params = optax.apply_updates(params, updates)
    return params


@pytest.mark.slow
def test_decay_is_that_of_adamw_with_a_mask():
    resolved = plan(decay("**", 0.3)).resolve(DEEP)
    ours = optax.multi_transform(resolved.groups(functools.partial(optax.adamw, 1e-2)), resolved.labels(DEEP))
    mask = map_named(lambda name, _: name.endswith("kernel"), DEEP)
    theirs = optax.adamw(1e-2, weight_decay=0.3, mask=mask)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), trained(ours, DEEP), trained(theirs, DEEP))


def test_a_function_of_weight_decay_without_a_rule_decays_nothing():
    resolved = plan().resolve(DEEP)
    (only,) = resolved.groups(functools.partial(optax.adamw, 1e-2)).values()
    plain = trained(optax.adam(1e-2), DEEP)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), trained(only, DEEP), plain)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (optax.adamw(1e-3), r"function of it: optimizer=functools.partial\(optax.adamw, 3e-4\)"),
        (optax.adamw, "or a function of weight_decay that makes one, .*missing 1 required positional argument"),
        (lambda weight_decay: 3, "weight_decay=0.0, which gave 3"),
    ],
)
def test_an_optimiser_that_cannot_be_given_its_decay(optimizer, message):
    with pytest.raises(PlanError, match=message):
        plan(decay("**", 0.1)).resolve(DEEP).groups(optimizer)


# --- schedules -------------------------------------------------------------------------------------------------------


def test_a_rate_may_be_a_function_of_the_step():
    p = plan(rate("head/**", optax.linear_schedule(1.0, 0.0, 4)), rate("backbone/norm/**", lambda step: 2.0))
    assert str(p) == "plan(rate('head/**', polynomial_schedule), rate('backbone/norm/**', " + (
        "test_a_rate_may_be_a_function_of_the_step))"
    )
    resolved = p.resolve(DEEP)
    ours = optax.multi_transform(resolved.groups(optax.sgd(1.0)), resolved.labels(DEEP))
    moved = jax.tree.map(lambda a, b: a - b, DEEP, trained(ours, DEEP, steps=3))
    np.testing.assert_allclose(moved["head"]["bias"], (1 + 0.75 + 0.5) * 0.19, rtol=1e-5)
    np.testing.assert_allclose(moved["backbone"]["norm"]["bias"], 3 * 2 * 0.28, rtol=1e-5)
    np.testing.assert_allclose(moved["backbone"]["embed"]["cls"], 3 * 0.28, rtol=1e-5)
    assert "learns                   2            6     -  polynomial_schedule" in resolved.table(DEEP)


def test_two_schedules_of_one_name_are_two_groups():
    a, b = optax.constant_schedule(1.0), optax.constant_schedule(2.0)
    resolved = plan(rate("head/**", a), rate("backbone/norm/**", b), rate("**/embed/**", a)).resolve(DEEP)
    assert set(resolved.groups(optax.sgd(1.0))) == {"rate 1", "rate constant_schedule", "rate constant_schedule (2)"}
    labels = resolved.labels(DEEP)
    assert labels["head"]["bias"] == labels["backbone"]["embed"]["cls"] != labels["backbone"]["norm"]["bias"]


def test_unfreeze_after_freeze_keeps_rate_and_decay():
    p = plan(rate("head/**", 3.0), decay("head/**", 0.1), freeze("head/**"), unfreeze("head/kernel"))
    assert p.resolve(DEEP).of("head/kernel").label == "rate 3, decay 0.1"
