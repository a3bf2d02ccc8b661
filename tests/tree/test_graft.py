"""Graft: what goes where, and what is refused."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import FrozenDict

from tljax.tree import (
    GraftError,
    NoMatchError,
    graft,
    head_rows,
    input_channels,
    kernel_size,
    leaf_names,
    map_named,
    named_leaves,
    position_grid,
)


def layer(value, d_in=2, d_out=3):
    return {"kernel": jnp.full((d_in, d_out), float(value)), "bias": jnp.full((d_out,), float(value))}


def network(value, classes=3, blocks=2):
    return {
        "backbone": {f"block_{i}": layer(value + i) for i in range(blocks)},
        "head": layer(value + 100, 3, classes),
    }


def leaves_equal(a, b):
    a, b = named_leaves(a), named_leaves(b)
    return list(a) == list(b) and all(np.array_equal(a[n], b[n]) and a[n].dtype == b[n].dtype for n in a)


def test_the_same_tree_is_loaded_whole():
    target, source = network(0), network(1)
    params, report = graft(target, source)
    assert leaves_equal(params, source)
    assert report.leaves["loaded"] == 6 == len(report.rows)


def test_blocks_past_ten_meet_by_name():
    params, _ = graft(network(0, blocks=12), network(1, blocks=12))
    assert [float(params["backbone"][f"block_{i}"]["bias"][0]) for i in range(12)] == list(range(1, 13))


def test_neither_tree_is_changed():
    target, source = network(0, classes=2), network(1)
    before = jax.tree.map(np.array, (target, source))
    graft(target, source, reinit="head/**")
    assert leaves_equal((target, source), before)


def test_the_result_may_be_donated():
    target, source = network(0, classes=2), network(1)
    before = jax.tree.map(np.array, (target, source))
    params, _ = graft(target, source, reinit="head/**")
    jax.jit(lambda p: jax.tree.map(lambda x: x * 2, p), donate_argnums=0)(params)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(params))
    assert leaves_equal((target, source), before)


def test_reinit_keeps_the_targets_values_and_ignores_the_sources():
    target, source = network(0, classes=2), network(1)
    source["head"]["extra"] = jnp.ones(7)
    params, report = graft(target, source, reinit="head/**")
    assert leaves_equal(params["head"], target["head"])
    assert leaves_equal(params["backbone"], source["backbone"])
    assert report.names("reinitialised") == ["head/bias", "head/kernel"]
    assert report.names("dropped") == ["head/bias", "head/extra", "head/kernel"]


def test_rename():
    source = {"encoder": network(1)["backbone"], "cls": network(1)["head"]}
    params, report = graft(network(0), source, rename={"encoder": "backbone", re.compile(r"cls/(.*)"): r"head/\1"})
    assert leaves_equal(params, network(1))
    assert report.leaves["renamed"] == 6


def test_drop_is_by_the_sources_own_names():
    source = network(1) | {"decoder": layer(5)}
    params, report = graft(network(0), source, drop="decoder/**")
    assert leaves_equal(params, network(1))
    assert report.names("dropped") == ["decoder/bias", "decoder/kernel"]


def test_rename_to_none_drops():
    _, report = graft(network(0), network(1) | {"decoder": layer(5)}, rename={"decoder": None})
    assert [row.note for row in report.rows if row.action == "dropped"] == ["rename", "rename"]


def test_dtypes_are_the_targets():
    target = jax.tree.map(lambda x: x.astype(jnp.bfloat16), network(0))
    params, report = graft(target, network(1))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    assert report.leaves["cast"] == 6
    assert {row.change for row in report.rows} == {"float32 -> bfloat16"}
    back, _ = graft(network(0), params)
    assert leaves_equal(back, network(1))  # small integers are exact in bfloat16


def test_missing_and_left_over_are_all_listed_with_the_arguments_that_settle_it():
    target = {"backbone": layer(0), "head": layer(0)}
    source = {"encoder": layer(1), "head": layer(1)}
    with pytest.raises(GraftError) as error:
        graft(target, source)
    text = str(error.value)
    for expected in (
        "2 leaves of the target without a source:",
        "  backbone/bias  (nearest: 'encoder/bias')",
        "  backbone/kernel  (",
        "reinit=['backbone/**']",
        "2 leaves of the source left over:",
        "  encoder/bias",
        "  encoder/kernel",
        "drop=['encoder/**']",
        "rename={'encoder': 'backbone'} fills 2 of 2",
        "strict=False",
    ):
        assert expected in text


def test_the_arguments_an_error_names_do_settle_it():
    target, source = network(0, blocks=30), {"params": network(1, blocks=30)}
    source["params"]["extra"] = {"w": jnp.ones(2), "v": jnp.ones(2)}
    target["neck"] = jnp.ones(3)
    with pytest.raises(GraftError) as error:
        graft(target, source)
    text = str(error.value)
    assert len(text.splitlines()) < 20
    arguments = {name: eval(code) for name, code in re.findall(r"(reinit|drop|rename)=(\[.*?\]|\{.*?\})", text)}
    _, report = graft(target, source, drop=arguments["drop"], reinit=arguments["reinit"])
    assert report.leaves["reinitialised"] == 63
    _, report = graft(target, source, rename=arguments["rename"], reinit="neck", drop="**/extra/*")
    assert report.leaves["renamed"] == 62


def test_a_renaming_with_numbers_is_suggested():
    target = {"backbone": {f"block_{i}": {"conv": layer(i)} for i in range(12)}}
    source = {f"layer_{i}": {"conv": layer(i)} for i in range(12)}
    with pytest.raises(GraftError, match=re.escape("rename={'layer_*/**': 'backbone/block_*/**'} fills 24 of 24")):
        graft(target, source)
    params, _ = graft(target, source, rename={"layer_*/**": "backbone/block_*/**"})
    assert leaves_equal(params, target)


def test_not_strict_keeps_and_reports():
    target, source = {"a": layer(0), "b": layer(0)}, {"a": layer(1), "c": layer(1)}
    params, report = graft(target, source, strict=False)
    assert leaves_equal(params, {"a": layer(1), "b": layer(0)})
    assert report.names("kept") == ["b/bias", "b/kernel"]
    assert report.names("left_over") == ["c/bias", "c/kernel"]


MISMATCHES = [
    ("head/kernel", (3, 5), (3, 2), "head_rows(source_classes, target_classes)"),
    ("head/bias", (5,), (2,), "head_rows(source_classes, target_classes)"),
    ("token_embedding", (5, 4), (7, 4), "vocab_rows(...)"),
    ("pos_embed", (1, 5, 4), (1, 10, 4), "position_grid(source_grid, target_grid, prefix_tokens=...)"),
    ("pos_embed", (5, 4), (1, 10, 4), "position_grid(source_grid, target_grid, prefix_tokens=...)"),
    ("stem/conv/kernel", (3, 3, 3, 8), (3, 3, 1, 8), "input_channels()"),
    ("stem/conv/kernel", (7, 7, 3, 8), (3, 3, 3, 8), "kernel_size()"),
    ("stem/conv/kernel", (7, 7, 3, 8), (3, 3, 1, 8), "write resize={'stem/conv/kernel': [kernel_size(), input_ch"),
    ("conv/kernel", (3, 3, 3, 8), (3, 3, 3, 16), "reinit='conv/kernel'"),
    ("patch/kernel", (48, 8), (16, 8), "input_channels(source_channels, target_channels)"),
    ("conv/kernel", (8, 3, 3, 3), (3, 3, 3, 8), "the source looks transposed"),
    ("block/w", (2, 3, 4), (5, 6, 7), "reinit='block/w'"),
    ("block/w", (2,), (2, 1), "reinit='block/w'"),
]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("name", "old", "new", "fix"), MISMATCHES)
def test_shapes_that_differ_raise_and_name_the_rule(name, old, new, fix, strict):
    with pytest.raises(GraftError) as error:
        graft({name: jnp.zeros(new)}, {name: jnp.zeros(old)}, strict=strict)
    assert f"{name}: source {list(old)}, target {list(new)}; " in str(error.value)
    assert fix in str(error.value)


def test_every_mismatch_is_listed_at_once():
    with pytest.raises(GraftError, match=r"(?s)2 leaves cannot be filled.*head/bias.*head/kernel"):
        graft(network(0, classes=2), network(1), strict=False)


def test_resize_by_selector_applies_where_only_the_order_differs():
    rule = head_rows(["a", "b", "c"], ["c", "a", "b"])
    source = network(0) | {"head": {"kernel": jnp.arange(9.0).reshape(3, 3), "bias": jnp.arange(3.0)}}
    params, report = graft(network(0), source, resize={"head/**": rule})
    np.testing.assert_array_equal(params["head"]["bias"], [2, 0, 1])
    np.testing.assert_array_equal(params["head"]["kernel"], source["head"]["kernel"][:, [2, 0, 1]])
    assert report.names("resized") == ["head/bias", "head/kernel"]
    assert report.rows[-1].note == "head_rows (3 of 3 classes)"


def test_a_bare_rule_is_for_what_differs():
    target = {"conv": jnp.zeros((3, 3, 1, 2)), "bias": jnp.zeros(2)}
    source = {"conv": jnp.ones((1, 1, 1, 2)), "bias": jnp.ones(2)}
    for rule in ("kernel_size", kernel_size(), {"**": "kernel_size"}):
        params, report = graft(target, source, resize=rule)
        assert float(params["conv"].sum()) == 2.0
        assert report.names("resized") == ["conv"]
        assert report.names("loaded") == ["bias"]


def test_a_bare_rule_with_nothing_to_do_raises_if_order_could_matter():
    with pytest.raises(GraftError, match=r"no two shapes differ.*resize=\{'head/\*\*': head_rows"):
        graft(network(0), network(1), resize=head_rows(["a", "b", "c"], ["c", "b", "a"]))
    graft(network(0), network(1), resize="input_channels")


def test_a_function_is_a_rule():
    params, report = graft({"w": jnp.zeros((3, 2))}, {"w": jnp.ones((2, 3))}, resize=lambda name, s, t: s.T)
    assert params["w"].shape == (3, 2)
    assert report.names("resized") == ["w"]
    with pytest.raises(GraftError, match=r"the rule <lambda> gave \[2, 3\]"):
        graft({"w": jnp.zeros((3, 2))}, {"w": jnp.ones((2, 3))}, resize=lambda name, s, t: s)


def test_rules_one_after_the_other():
    target, kernel = {"conv": jnp.zeros((3, 3, 1, 2))}, jnp.ones((7, 7, 3, 2))
    params, report = graft(target, {"conv": kernel}, resize=["kernel_size", input_channels()])
    np.testing.assert_array_equal(params["conv"], np.full((3, 3, 1, 2), 3.0))
    assert report.rows[0].note == "kernel_size (centre), input_channels"
    with pytest.raises(GraftError, match=r"the rule input_channels gave \[7, 7, 1, 2\]"):
        graft(target, {"conv": kernel}, resize="input_channels")


def test_an_error_inside_a_users_rule_says_where():
    with pytest.raises(ZeroDivisionError) as error:
        graft({"w": jnp.zeros(3)}, {"w": jnp.zeros(2)}, resize=lambda name, s, t: 1 / 0)
    assert error.value.__notes__ == ["in the resize rule <lambda> for w: source [2], target [3]"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("position_grid", "needs options: write position_grid"),
        ("kernelsize", "the nearest are 'kernel_size'"),
        (position_grid(prefix_tokens=1), "w: a position table is"),
    ],
)
def test_rules_that_do_not_fit(rule, message):
    with pytest.raises(ValueError, match=message):
        graft({"w": jnp.zeros(3)}, {"w": jnp.zeros(2)}, resize=rule)


def test_resized_and_cast():
    target = {"w": jnp.zeros((3, 3, 1, 1), jnp.bfloat16)}
    params, report = graft(target, {"w": jnp.ones((1, 1, 1, 1))}, resize="kernel_size")
    assert params["w"].dtype == jnp.bfloat16
    assert report.rows[0].change == "[1, 1, 1, 1] -> [3, 3, 1, 1] by kernel_size (centre); float32 -> bfloat16"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reinit": "haed/**"}, "'haed/\\*\\*' matches none"),
        ({"drop": "decoder/**"}, "'decoder/\\*\\*' matches none"),
        ({"rename": {"decoder": "x"}}, "'decoder' matches none"),
        ({"resize": {"pos": "kernel_size"}}, "'pos' matches none"),
        ({"reinit": ["head/**", "neck/**"]}, "'neck/\\*\\*' matches none"),
    ],
)
def test_selectors_must_match(options, message):
    with pytest.raises(NoMatchError, match=message):
        graft(network(0), network(1), **options)


def test_two_leaves_for_one_raise():
    source = network(1) | {"old": {"bias": jnp.ones(3)}}
    with pytest.raises(GraftError, match="head/bias: both 'head/bias' and 'old/bias' of the source"):
        graft(network(0), source, rename={"old": "head"}, strict=False)


def test_resize_and_reinit_of_one_leaf_raise():
    with pytest.raises(GraftError, match="'head/bias' is in resize= and in reinit="):
        graft(network(0), network(1), reinit="head/**", resize={"head/bias": "vocab_rows"})


def test_float_to_int_is_refused():
    with pytest.raises(GraftError, match="step: float32 of the source cannot become int32"):
        graft({"step": jnp.zeros((), jnp.int32)}, {"step": jnp.zeros(())}, strict=False)


def test_an_empty_source_is_refused():
    with pytest.raises(GraftError, match="the source has no arrays"):
        graft(network(0), {}, strict=False)


def test_abstract_targets_become_arrays():
    abstract = jax.eval_shape(lambda: network(0))
    params, _ = graft(abstract, network(1))
    assert leaves_equal(params, network(1))


def test_abstract_leaves_without_a_value_are_refused():
    abstract = jax.eval_shape(lambda: network(0))
    with pytest.raises(GraftError, match=r"head/bias: is to keep.*but the target is abstract"):
        graft(abstract, network(1), reinit="head/**")
    with pytest.raises(GraftError, match=r"head/bias: is to keep.*but the target is abstract"):
        graft(abstract, {"backbone": network(1)["backbone"]}, strict=False)
    with pytest.raises(GraftError, match="2 leaves of the target without a source"):
        graft(abstract, {"backbone": network(1)["backbone"]})
    with pytest.raises(GraftError, match="the source leaf 'head/bias' is abstract"):
        graft(network(1), abstract)


# Containers -----------------------------------------------------------------------------------------------------------


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.blocks = nnx.List([nnx.Linear(2, 3, rngs=rngs) for _ in range(2)])
        self.norm = nnx.BatchNorm(3, rngs=rngs)


CONTAINERS = {
    "dict": lambda seed: network(seed),
    "frozen": lambda seed: FrozenDict(network(seed)),
    "lists": lambda seed: [[jnp.full(2, float(seed)), None], (jnp.full(3, float(seed)),)],
    "nnx state": lambda seed: nnx.state(Net(nnx.Rngs(seed))),
    "nnx module": lambda seed: Net(nnx.Rngs(seed)),
    "equinox": lambda seed: eqx.nn.MLP(2, 3, 4, 2, key=jax.random.key(seed)),
    "optax": lambda seed: optax.adam(1e-3).init(network(seed)),
    "bfloat16": lambda seed: jax.tree.map(lambda x: x.astype(jnp.bfloat16), network(seed)),
    "numpy": lambda seed: jax.tree.map(np.asarray, network(seed)),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("kind", CONTAINERS)
def test_the_targets_containers_stay(kind):
    target, source = CONTAINERS[kind](0), CONTAINERS[kind](1)
    params, report = graft(target, source)
    assert type(params) is type(target)
    assert jax.tree.structure(params) == jax.tree.structure(target)
    assert leaves_equal(params, source)
    assert report.names("loaded") == leaf_names(target)


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_source_may_be_another_container(kind):
    target, flat = CONTAINERS[kind](0), named_leaves(CONTAINERS[kind](1))
    params, _ = graft(target, {name: np.asarray(leaf) for name, leaf in flat.items()})
    assert type(params) is type(target)
    assert leaves_equal(params, flat)


def test_an_equinox_module_still_runs():
    target, source = (eqx.nn.MLP(2, 3, 4, 2, key=jax.random.key(seed)) for seed in (0, 1))
    params, _ = graft(target, source)
    x = jnp.ones(2)
    np.testing.assert_array_equal(params(x), source(x))
    assert params.activation is target.activation


def test_an_nnx_state_updates_its_module():
    target, source = Net(nnx.Rngs(0)), Net(nnx.Rngs(1))
    params, _ = graft(nnx.state(target), nnx.state(source))
    nnx.update(target, params)
    np.testing.assert_array_equal(target.blocks[1].kernel[...], source.blocks[1].kernel[...])


def test_holes_of_the_target_stay_holes():
    target = {"a": jnp.zeros(2), "b": None}
    params, _ = graft(target, {"a": jnp.ones(2), "b": None})
    assert params["b"] is None
    with pytest.raises(GraftError, match="left over"):
        graft(target, {"a": jnp.ones(2), "b": jnp.ones(2)})


def test_other_leaves_of_either_tree_are_left_alone():
    target, source = {"w": jnp.zeros(2), "act": len}, {"w": jnp.ones(2), "act": max, "note": "x"}
    params, report = graft(target, source)
    assert params["act"] is len
    assert len(report.rows) == 1


def test_numbers_stay_numbers():
    params, _ = graft({"scale": 1.0}, {"scale": np.float32(2.0)})
    assert params == {"scale": 2.0}
    assert type(params["scale"]) is float


def test_a_graft_onto_itself_changes_nothing():
    tree = network(1)
    params, _ = graft(tree, tree)
    assert leaves_equal(map_named(lambda name, leaf: leaf, params), tree)
