"""Names: one a leaf, in natural order, the same way for every container."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.core import FrozenDict
from hypothesis import given, settings
from hypothesis import strategies as st

from tljax.tree import (
    PathError,
    count,
    from_named,
    get,
    leaf_names,
    map_named,
    named_leaves,
    natural_key,
    nbytes,
    nearest,
)


class Pair(NamedTuple):
    kernel: Any
    bias: Any


class Attention(eqx.Module):
    query: jax.Array
    key: jax.Array
    value: jax.Array


class Boxes(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(2, 3, rngs=rngs) for _ in range(2)])
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.value = nnx.Linear(2, 2, rngs=rngs)


NNX_NAMES = [
    *(f"layers/{i}/{leaf}" for i in range(2) for leaf in ("bias", "kernel")),
    *(f"norm/{leaf}" for leaf in ("bias", "mean", "scale", "var")),
    "value/bias",
    "value/kernel",
]
MLP_NAMES = [f"layers/{i}/{leaf}" for i in range(3) for leaf in ("bias", "weight")]


def partitioned():
    init = linen.with_partitioning(linen.initializers.ones, (None, "model"))
    return linen.Dense(3, kernel_init=init).init(jax.random.key(0), jnp.ones((1, 2)))


TREES = {
    "dict": (lambda: {"b": {"w": 1.0}, "a": 2}, ["a", "b/w"]),
    "frozen": (lambda: FrozenDict({"b": {"w": jnp.ones(2)}}), ["b/w"]),
    "lists": (lambda: [[1.0, 2.0], (3.0, None)], ["0/0", "0/1", "1/0"]),
    "named tuple": (lambda: {"head": Pair(np.ones(2), None)}, ["head/kernel"]),
    "integer keys": (lambda: {10: 1, 9: 2}, ["9", "10"]),
    "keys with slashes": (lambda: {"a/b": 1, "a": {"c/d": 2}}, ["a/b", "a/c/d"]),
    "nnx state": (lambda: nnx.state(Boxes(nnx.Rngs(0))), NNX_NAMES),
    "nnx module": (lambda: Boxes(nnx.Rngs(0)), NNX_NAMES),
    "equinox mlp": (lambda: eqx.nn.MLP(2, 3, 4, 2, key=jax.random.key(0)), MLP_NAMES),
    "field called value": (
        lambda: Attention(jnp.ones(1), jnp.ones(1), jnp.ones(1)),
        ["key", "query", "value"],
    ),
    "linen partitioned": (partitioned, ["params/bias", "params/kernel"]),
    "optax": (lambda: optax.adam(1e-3).init({"w": jnp.ones(2)}), ["0/count", "0/mu/w", "0/nu/w"]),
    "abstract": (lambda: jax.eval_shape(lambda: {"w": jnp.ones(2)}), ["w"]),
    "bare leaf": (lambda: jnp.ones(2), [""]),
    "empty": (lambda: {"a": None, "b": {}}, []),
}


@pytest.mark.parametrize("kind", TREES)
def test_names(kind):
    make, names = TREES[kind]
    assert leaf_names(make()) == names


@pytest.mark.parametrize("kind", TREES)
def test_get_finds_every_leaf_by_its_name(kind):
    tree = TREES[kind][0]()
    for name, leaf in named_leaves(tree).items():
        assert get(tree, name) is leaf


@pytest.mark.parametrize("kind", TREES)
def test_map_named_keeps_the_structure(kind):
    tree = TREES[kind][0]()
    seen = {}
    same = map_named(lambda name, leaf: seen.setdefault(name, leaf), tree)
    assert jax.tree.structure(same) == jax.tree.structure(tree)
    assert type(same) is type(tree)
    assert set(seen) == set(leaf_names(tree))


def test_more_than_ten_blocks_come_in_order():
    tree = {f"block_{i}": {"w": 1.0} for i in range(12)}
    assert leaf_names(tree) == [f"block_{i}/w" for i in range(12)]
    assert [p[0].key for p, _ in jax.tree_util.tree_flatten_with_path(tree)[0]][:3] != ["block_0", "block_1", "block_2"]


def test_natural_order_goes_segment_by_segment():
    names = ["a-b/c", "a/z", "a", "a/10/x", "a/9/x", "a/9b/x", "a/x1y2", "a/x1y10"]
    ordered = ["a", "a/9/x", "a/9b/x", "a/10/x", "a/x1y2", "a/x1y10", "a/z", "a-b/c"]
    assert sorted(names, key=natural_key) == ordered


def test_what_is_no_array_has_no_name_but_stays():
    tree = {"f": jax.nn.relu, "text": "relu", "labels": np.array(["a"]), "w": 1.0}
    assert leaf_names(tree) == ["w"]
    doubled = map_named(lambda name, leaf: 2 * leaf, tree)
    assert doubled["f"] is jax.nn.relu
    assert doubled["text"] == "relu"
    assert doubled["w"] == 2.0


def test_map_named_takes_more_trees():
    tree, other = {"a": 1, "b": {"c": 2, "d": None}}, {"a": 10, "b": {"c": 20, "d": None}}
    out = map_named(lambda name, x, y: (name, x + y), tree, other)
    assert out == {"a": ("a", 11), "b": {"c": ("b/c", 22), "d": None}}


def test_names_do_not_change_when_other_leaves_become_holes():
    module = Attention(jnp.ones(1), jnp.ones(1), jnp.ones(1))
    alone = eqx.tree_at(lambda m: (m.query, m.key), module, (None, None))
    assert leaf_names(alone) == ["value"]


def test_two_leaves_of_one_name_raise():
    with pytest.raises(PathError, match=r"share a name.*'a/b'"):
        leaf_names({"a/b": 1, "a": {"b": 2}})


names = st.lists(
    st.lists(st.sampled_from(["a", "b", "block_2", "block_10", "0", "7"]), min_size=1, max_size=4).map("/".join),
    min_size=1,
    max_size=8,
    unique=True,
).filter(lambda ns: not any(b.startswith(a + "/") for a in ns for b in ns))


@settings(deadline=None)
@given(names)
def test_from_named_is_the_inverse_of_named_leaves(names):
    mapping = {name: float(i) for i, name in enumerate(names)}
    assert named_leaves(from_named(mapping)) == mapping


def test_from_named_refuses_a_leaf_with_leaves_under_it():
    with pytest.raises(PathError, match="'head' is a leaf, so 'head/kernel'"):
        from_named({"head/kernel": 1, "head": 2})


def test_get_gives_subtrees_of_their_own_kind():
    mlp = eqx.nn.MLP(2, 3, 4, 2, key=jax.random.key(0))
    assert get(mlp, "layers/1") is mlp.layers[1]
    state = nnx.state(Boxes(nnx.Rngs(0)))
    assert leaf_names(get(state, "norm")) == ["bias", "mean", "scale", "var"]
    assert get({"a": 1}, "") == {"a": 1}


def test_get_names_the_nearest():
    with pytest.raises(PathError, match="'head/kernal'; the nearest are 'head/kernel'"):
        get({"head": {"kernel": 1, "bias": 2}}, "head/kernal")
    with pytest.raises(PathError, match="nearest are 'backbone'"):
        get({"backbone": {"kernel": 1}}, "bakbone")


def test_get_refuses_a_hole():
    with pytest.raises(PathError, match="'a' is a hole"):
        get({"a": None, "b": 1}, "a")


def test_nearest_is_at_most_n():
    assert len(nearest("w1", ["w2", "w3", "w4", "w5"])) == 3
    assert nearest("xyz", ["abc"]) == []


def test_count_and_bytes():
    tree = {
        "w": jnp.ones((3, 4), jnp.bfloat16),
        "abstract": jax.ShapeDtypeStruct((5,), jnp.float32),
        "host": np.ones(2, np.float64),
        "number": 1.5,
        "f": jax.nn.relu,
        "hole": None,
    }
    assert count(tree) == 12 + 5 + 2 + 1
    assert nbytes(tree) == 24 + 20 + 16 + 4
