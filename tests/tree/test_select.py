"""Selectors: which leaves a pattern means, and that a pattern which means none is refused."""

import re

import jax.numpy as jnp
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from tljax.tree import NoMatchError, leaf_names, select
from tljax.tree.globs import GlobError, alternatives

TREE = {
    "backbone": {
        "stem": {"kernel": 1.0, "bias": 1.0},
        **{f"block_{i}": {"attention": {"kernel": 1.0}, "norm": {"scale": 1.0, "bias": 1.0}} for i in range(12)},
    },
    "head": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
}

TABLE = {
    "head/kernel": ["head/kernel"],
    "head/*": ["head/bias", "head/kernel"],
    "head/**": ["head/bias", "head/kernel"],
    "*/kernel": ["head/kernel"],
    "**/stem/**": ["backbone/stem/bias", "backbone/stem/kernel"],
    "head/{bias,kernel}": ["head/bias", "head/kernel"],
    "{head,backbone/stem}/bias": ["backbone/stem/bias", "head/bias"],
    "backbone/block_?/norm/scale": [f"backbone/block_{i}/norm/scale" for i in range(10)],
    "backbone/block_1*/norm/scale": [f"backbone/block_{i}/norm/scale" for i in (1, 10, 11)],
    "backbone/block_[2-4]/norm/scale": [f"backbone/block_{i}/norm/scale" for i in (2, 3, 4)],
    "backbone/block_[!0-8]/norm/scale": ["backbone/block_9/norm/scale"],
    "backbone/block_{9..11}/norm/scale": [f"backbone/block_{i}/norm/scale" for i in (9, 10, 11)],
    "backbone/**/bias": ["backbone/stem/bias", *(f"backbone/block_{i}/norm/bias" for i in range(12))],
    "**/head/kernel/**": ["head/kernel"],
}


@pytest.mark.parametrize("pattern", TABLE)
def test_glob(pattern):
    assert sorted(select(pattern).names(TREE)) == sorted(TABLE[pattern])


def test_everything():
    assert select("**").names(TREE) == leaf_names(TREE)
    assert select("**").names(3.0) == [""]


def test_names_come_in_natural_order():
    blocks = select("backbone/*/attention/*").names(TREE)
    assert blocks == [f"backbone/block_{i}/attention/kernel" for i in range(12)]


@pytest.mark.parametrize("pattern", ["head", "backbone/*", "*", "*ead/kernel/x", "head/?", "HEAD/**", "block_{1}/**"])
def test_a_glob_means_whole_names(pattern):
    assert select(pattern).names(TREE, required=False) == []
    with pytest.raises(NoMatchError):
        select(pattern).names(TREE)


segments = st.text(st.characters(codec="ascii", exclude_characters="/*?[]{},"), min_size=1, max_size=5)


@settings(deadline=None)
@given(st.lists(segments, min_size=1, max_size=4))
def test_a_name_without_wildcards_means_itself_alone(parts):
    name = "/".join(parts)
    assert select(name).matches(name)
    assert not select(name).matches(name + "x")
    assert select("**").matches(name)
    assert select("**/" + parts[-1]).matches(name)
    assert select(parts[0] + "/**").matches(name)
    assert select("/".join("*" * len(parts))).matches(name)
    assert not select("*/" + "/".join("*" * len(parts))).matches(name)


@pytest.mark.parametrize("pattern", ["a/**b", "a/{b", "a/b}", "{a,{b}"])
def test_a_glob_that_cannot_be_read_raises_where_it_is_written(pattern):
    with pytest.raises(GlobError):
        select(pattern)


def test_nested_alternatives():
    assert alternatives("x{a,b{c,}}y{1..3}") == tuple(f"x{m}y{i}" for m in ("a", "bc", "b") for i in (1, 2, 3))


def test_regex_matches_the_whole_name():
    assert select(re.compile(r"head/(kernel|bias)")).names(TREE) == ["head/bias", "head/kernel"]
    with pytest.raises(NoMatchError, match=re.escape("did you mean re.compile('.*stem.*')")):
        select(re.compile("stem")).names(TREE)


def test_predicates_of_name_or_of_name_and_leaf():
    assert select(lambda name: name.endswith("/scale")).names(TREE)[0] == "backbone/block_0/norm/scale"
    assert select(lambda name, leaf: getattr(leaf, "ndim", 0) == 2).names(TREE) == ["head/kernel"]
    suffixes = [select(lambda name, end=end: name.endswith(end)) for end in ("/scale", "stem/bias")]
    assert [len(s.names(TREE)) for s in suffixes] == [12, 1]


def test_lists_mean_any_and_an_empty_one_nothing():
    assert select(["head/bias", re.compile(".*stem/bias")]).names(TREE) == ["backbone/stem/bias", "head/bias"]
    assert select(()).names(TREE) == []


def test_algebra():
    biases = select("**/bias") & "backbone/**"
    assert len(biases.names(TREE)) == 13
    assert (biases & ~select("**/norm/**")).names(TREE) == ["backbone/stem/bias"]
    assert ("head/**" | biases).names(TREE) == sorted_like(TREE, [*biases.names(TREE), "head/bias", "head/kernel"])
    assert (~select("backbone/**")).names(TREE) == ["head/bias", "head/kernel"]
    assert ("head/**" & select("**/bias")).names(TREE) == ["head/bias"]


def sorted_like(tree, names):
    return [name for name in leaf_names(tree) if name in names]


atoms = st.sampled_from(["head/**", "**/bias", "**/norm/**", "backbone/block_{0..5}/**", "**/kernel"]).map(select)
selectors = st.recursive(
    atoms,
    lambda s: st.one_of(
        s.map(lambda a: ~a), st.tuples(s, s).map(lambda t: t[0] | t[1]), st.tuples(s, s).map(lambda t: t[0] & t[1])
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(selectors, selectors)
def test_selectors_are_sets(a, b):
    def found(s):
        return set(s.names(TREE, required=False))

    everything = set(leaf_names(TREE))
    assert found(a | b) == found(a) | found(b)
    assert found(a & b) == found(a) & found(b)
    assert found(~a) == everything - found(a)


@settings(deadline=None)
@given(selectors)
def test_the_text_of_a_selector_is_code_for_it(selector):
    text = str(selector)
    parsed = eval(re.sub(r"'[^']*'", lambda m: f"select({m.group()})", text), {"select": select})
    assert parsed.names(TREE, required=False) == selector.names(TREE, required=False)


TYPOS = {
    "head": "did you mean 'head/**'",
    "kernel": "did you mean '**/kernel'",
    "attention": "did you mean '**/attention/**'",
    "bakbone/**": "did you mean 'backbone/**'",
    "backbone/stm/*": "did you mean 'backbone/stem/**'",
    "head/kernl": "the nearest are 'head/kernel'",
}


@pytest.mark.parametrize("pattern", TYPOS)
def test_no_match_says_what_would(pattern):
    with pytest.raises(NoMatchError, match=re.escape(TYPOS[pattern])) as error:
        select(pattern).names(TREE)
    assert repr(pattern) in str(error.value)


@pytest.mark.parametrize(
    "compose",
    [
        lambda typo: select("head/**") | typo,
        lambda typo: ~select(typo),
        lambda typo: select("head/**") & ~select(typo),
        lambda typo: select(["head/**", ["**/bias", typo]]),
        lambda typo: ~~(typo | select("head/**")),
    ],
)
def test_a_typo_does_not_hide_in_a_composition(compose):
    with pytest.raises(NoMatchError, match=re.escape("'haed/**' matches none")):
        compose("haed/**").mask(TREE)


def test_parts_that_never_meet_raise():
    with pytest.raises(NoMatchError, match="each of its parts matches something"):
        (select("head/**") & "backbone/**").names(TREE)
    with pytest.raises(NoMatchError, match="selects nothing"):
        (~select("**")).names(TREE)


def test_a_predicate_true_of_nothing_raises():
    def is_adapter(name):
        return "adapter" in name

    with pytest.raises(NoMatchError, match="is_adapter is true of none of the 40 leaves"):
        select(is_adapter).names(TREE)


def test_nothing_can_be_selected_from_an_empty_tree():
    with pytest.raises(NoMatchError, match="the tree has no arrays"):
        select("**").names({"a": None})


def test_other_things_are_no_selectors():
    with pytest.raises(TypeError, match=r"a selector is a glob.*found int: 3"):
        select(3)


def test_mask_has_the_structure_of_the_tree():
    tree = {"a": [1.0, None, jnp.ones(2)], "f": len}
    assert select("a/0").mask(tree) == {"a": [True, None, False], "f": False}
    state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    mask = select("kernel").mask(state)
    assert type(mask) is nnx.State
    assert nnx.to_pure_dict(mask) == {"bias": False, "kernel": True}


def test_text():
    assert str(select("head/**") & ~(select("a") | re.compile("b"))) == "'head/**' & ~('a' | re.compile('b'))"
    assert repr(select("head/**")) == "select('head/**')"
