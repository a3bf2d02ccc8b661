"""Keymaps: patterns, binding, both directions, and what is missing or too much."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tljax.checkpoints.convention import match_convention
from tljax.checkpoints.keymap import Extra, Keymap, KeymapError, Rule, size
from tljax.checkpoints.layers import batch_norm, conv, counters, dense, embedding, fused_dense, leaf, norm
from tljax.checkpoints.layouts import expanded, joined
from tljax.checkpoints.pattern import fill, match
from tljax.tree import from_named

BLOCK = "backbone/block_{b:02}"
RULES = (
    *conv("backbone/stem/conv", "net.stem.0"),
    *batch_norm("backbone/stem/norm", "net.stem.1"),
    *fused_dense((f"{BLOCK}/query", f"{BLOCK}/key", f"{BLOCK}/value"), "net.blocks.{b}.qkv"),
    *dense(BLOCK + "/dense_{n}", "net.blocks.{b}.mlp.fc{n}"),
    *norm(f"{BLOCK}/norm", "net.blocks.{b}.ln"),
    *leaf("backbone/cls", "net.cls_token", expanded(0, 1)),
    *embedding("backbone/tokens", "net.wte"),
    *dense("head", "classifier"),
)
KEYMAP = Keymap(RULES, counters(RULES), ignored=(r"lm_head\..*",))


def tree_of(blocks):
    """Our leaves for a model of so many blocks, by name, as shapes."""
    shapes = {
        "backbone/stem/conv/kernel": (3, 3, 1, 4),
        "backbone/stem/norm/scale": (4,),
        "backbone/stem/norm/bias": (4,),
        "backbone/stem/norm/batch_stats/mean": (4,),
        "backbone/stem/norm/batch_stats/var": (4,),
        "backbone/cls": (1, 1, 4),
        "backbone/tokens/embedding": (7, 4),
        "head/kernel": (4, 3),
        "head/bias": (3,),
    }
    for b in range(blocks):
        block = f"backbone/block_{b:02}"
        for part in ("query", "key", "value"):
            shapes |= {f"{block}/{part}/kernel": (4, 4), f"{block}/{part}/bias": (4,)}
        shapes |= {f"{block}/dense_1/kernel": (4, 6), f"{block}/dense_2/kernel": (6, 4), f"{block}/norm/scale": (4,)}
    return shapes


def values(shapes):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("blocks", [1, 2, 12])
def test_export_then_import_is_the_identity(blocks):
    leaves = values(tree_of(blocks))
    flat = KEYMAP.export(from_named(leaves))
    assert flat["net.blocks.0.qkv.weight"].shape == (12, 4)
    assert flat["net.cls_token"].shape == (4,)
    assert flat["net.stem.1.num_batches_tracked"] == np.int64(0)
    assert f"net.blocks.{blocks - 1}.mlp.fc2.weight" in flat
    imported = KEYMAP.import_(flat, leaves)
    assert imported.missing == imported.unexpected == imported.unmapped == imported.ignored == ()
    assert imported.leaves.keys() == leaves.keys()
    for name, value in leaves.items():
        np.testing.assert_array_equal(imported.leaves[name], value, strict=True, err_msg=name)


@given(
    blocks=st.integers(1, 4),
    dtype=st.sampled_from([np.float32, np.float16]),
    data=st.data(),
)
@settings(max_examples=15, deadline=None)
def test_import_then_export_is_the_identity_to_the_bit(blocks, dtype, data):
    shapes = {name: leaf.shape for name, leaf in KEYMAP.export(from_named(values(tree_of(blocks)))).items()}
    total = sum(int(np.prod(shape)) for shape in shapes.values())
    bits = data.draw(hnp.arrays(np.uint8, (total * np.dtype(dtype).itemsize,))).view(dtype)
    flat, at = {}, 0
    for name, shape in shapes.items():
        n = int(np.prod(shape))
        flat[name] = bits[at : at + n].reshape(shape) if shape else np.zeros((), np.int64)
        at += n
    names = tree_of(blocks)
    back = KEYMAP.export(from_named(KEYMAP.import_(flat, names).leaves))
    assert back.keys() == flat.keys()
    for name, leaf_ in flat.items():
        assert np.ascontiguousarray(back[name]).tobytes() == leaf_.tobytes(), name


def test_patterns_capture_and_fill():
    assert match("a_{b:02}/c{n+1}", "a_07/c3") == {"b": 7, "n": 2}
    assert match("a_{b:02}", "a_7") is None  # not as it would be written
    assert match("a_{b:02}", "a_107") == {"b": 107}
    assert match("a_{b}", "a_07") is None
    assert match("a.{b}", "aX1") is None  # dots are dots
    assert match("{b}/{b+1}", "3/4") == {"b": 3}
    assert match("{b}/{b+1}", "3/5") is None
    assert fill("layers.{b+10}.w{n-1:03}", {"b": 2, "n": 8}) == "layers.12.w007"
    with pytest.raises(KeymapError, match="ours does not capture 's', only b"):
        fill("{s}", {"b": 1})


@given(st.integers(0, 200), st.integers(0, 9), st.integers(1, 4), st.integers(-2, 3))
@settings(deadline=None)
def test_match_is_the_inverse_of_fill(b, n, width, shift):
    pattern = f"x/block_{{b:0{width}}}/conv_{{n{shift:+}}}/kernel" if n + shift >= 0 else f"x/{{b:0{width}}}/{{n}}"
    assert match(pattern, fill(pattern, {"b": b, "n": n})) == {"b": b, "n": n}


def test_what_is_missing_unexpected_ignored_and_unmapped_is_told():
    names = [*tree_of(1), "backbone/extra"]
    flat = KEYMAP.export(from_named(values(tree_of(1))))
    del flat["net.blocks.0.qkv.bias"], flat["net.stem.1.num_batches_tracked"]
    flat |= {"lm_head.weight": np.ones(1), "net.other": np.ones(1)}
    imported = KEYMAP.import_(flat, names)
    assert imported.missing == ("net.blocks.0.qkv.bias",)
    assert imported.unexpected == ("net.other",)
    assert imported.ignored == ("lm_head.weight",)
    assert imported.unmapped == ("backbone/extra",)
    assert "backbone/block_00/query/bias" not in imported.leaves  # no half of a fused leaf


def test_a_leaf_without_a_rule_cannot_be_exported():
    with pytest.raises(KeymapError, match="no rule for 'neck/kernel'"):
        KEYMAP.export({"neck": {"kernel": np.ones(2)}})


def test_rules_that_contradict_each_other():
    twice = Keymap((*dense("head", "fc"), *dense("head", "classifier")))
    with pytest.raises(KeymapError, match=r"two rules claim the leaf 'head/bias': \('fc.bias',\) and \('classifier"):
        twice.bind(["head/bias"])
    same = Keymap((*leaf("a_{i}", "x"),))
    with pytest.raises(KeymapError, match="gives two leaves the same name: 'x'"):
        same.bind(["a_1", "a_2"])
    fused = Keymap(fused_dense(("query", "key"), "qk"))
    with pytest.raises(KeymapError, match="needs the leaf 'key/bias', which the model does not have"):
        fused.bind(["query/bias", "query/kernel", "key/kernel"])


def test_an_array_that_does_not_fit_its_layout_is_named():
    with pytest.raises(KeymapError, match=r"'classifier.weight' \[3\] cannot be laid out as transposed"):
        Keymap(dense("head", "classifier")).import_({"classifier.weight": np.ones(3)}, ["head/kernel"])


def test_without_prefix():
    keymap = Keymap(
        (*dense("backbone/a", "bert.a"), *dense("head", "classifier")),
        (Extra("bert.ids", np.arange(3), "backbone/a/kernel"), Extra("other", 0, "head/kernel")),
        (r"bert\.pooler\..*", r"cls\..*"),
    )
    base = keymap.without_prefix("bert.", config={"model_type": "bert"})
    assert [rule.theirs for rule in base.rules] == [("a.weight",), ("a.bias",)]
    assert [extra.theirs for extra in base.extras] == ["ids"]
    assert base.ignored == (r"pooler\..*", r"cls\..*")
    assert base.config == {"model_type": "bert"}


def test_size_reads_a_leaf_of_theirs():
    assert size("embeddings.weight", 1)({"bert.embeddings.weight": np.zeros((9, 4))}, {}) == 4


OLD, NEW = (
    Keymap(dense("head", "linear") + leaf("backbone/w", "w")),
    Keymap(dense("head", "fc") + leaf("backbone/w", "v")),
)
OURS = ["backbone/w", "head/kernel", "head/bias"]


def test_the_convention_is_the_one_that_fits():
    maps = {"old": OLD, "new": NEW}
    assert match_convention(maps, OURS, ["w", "linear.weight", "linear.bias"]).convention == "old"
    assert match_convention(maps, OURS, ["v", "fc.weight", "fc.bias"]).convention == "new"
    assert match_convention(maps, OURS, ["v"]).convention == "new"  # no head at all
    same = match_convention({"a": OLD, "b": OLD}, OURS, ["w", "linear.weight", "linear.bias"])
    assert same.convention == "a"  # they mean the same


@pytest.mark.parametrize(
    ("theirs", "text"),
    [
        (["w", "fc.weight", "fc.bias"], r"(?s)tried 'old', 'new'.*"),
        (["v", "fc.weight"], r"(?s)'new' is nearest:.*missing \(1\): 'fc.bias'"),
        (["v", "fc.weight", "fc.bias", "z"], r"(?s)'new' is nearest:.*unexpected \(1\): 'z'"),
        (["nothing"], r"(?s)missing \(1\): 'w'.*unexpected \(1\): 'nothing'"),
    ],
)
def test_partial_coverage_is_an_error_with_lists(theirs, text):
    with pytest.raises(KeymapError, match=text):
        match_convention({"old": OLD, "new": NEW}, OURS, theirs)


def test_not_strict_takes_the_nearest_or_asks():
    maps = {"old": OLD, "new": NEW}
    loose = match_convention(maps, OURS, ["v", "fc.weight", "z"], strict=False)
    assert (loose.convention, loose.missing) == ("new", ("fc.bias",))
    with pytest.raises(KeymapError, match="fit 'old', 'new' equally well; choose with convention="):
        match_convention(maps, OURS, ["w", "v"], strict=False)
    assert match_convention(maps, OURS, ["w", "v"], strict=False, convention="old").convention == "old"
    with pytest.raises(KeymapError, match="missing"):  # nothing at all in common
        match_convention(maps, OURS, ["z"], strict=False, convention="old")


def test_no_keymaps_and_unknown_conventions():
    with pytest.raises(KeymapError, match="the model has no keymaps: write"):
        match_convention({}, OURS, ["w"])
    with pytest.raises(KeymapError, match="convention='oldest'; the model has 'old'"):
        match_convention({"old": OLD}, OURS, ["w"], convention="oldest")


def test_a_leaf_without_a_rule_counts_against_a_keymap_unless_it_is_the_heads():
    backbone_only = Keymap(leaf("backbone/w", "w"))
    assert match_convention({"base": backbone_only}, OURS, ["w"]).convention == "base"
    with pytest.raises(KeymapError, match=r"without a rule \(1\): 'backbone/neck'"):
        match_convention({"base": backbone_only}, [*OURS, "backbone/neck"], ["w"])


def test_a_rule_has_as_many_leaves_as_its_layout_takes():
    with pytest.raises(KeymapError, match="has 1 leaves of ours and 2 of theirs; the layout same takes 1 and 1"):
        Keymap((Rule(("a",), ("x", "y")),))
    with pytest.raises(KeymapError, match=r"the layout joined\(3, same\) takes 3 and 1"):
        Keymap((Rule(("a", "b"), ("x",), joined(3)),))
