"""Split and merge are inverse to each other on every container, also under jit."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import FrozenDict
from hypothesis import given, settings
from hypothesis import strategies as st

from tljax.tree import MergeError, NoMatchError, leaf_names, merge, named_leaves, select, split


class Layer(NamedTuple):
    kernel: jax.Array
    bias: jax.Array


TREES = {
    "dict": lambda: {"a": {"kernel": jnp.ones(2), "bias": jnp.zeros(2)}, "hole": None},
    "frozen": lambda: FrozenDict({"a": {"kernel": jnp.ones(2), "bias": jnp.zeros(2)}}),
    "lists": lambda: [{"kernel": jnp.ones(2)}, ({"bias": jnp.ones(1)}, None)],
    "named tuple": lambda: {"a": Layer(jnp.ones(2, jnp.bfloat16), jnp.zeros(2, jnp.bfloat16))},
    "nnx state": lambda: nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0))),
    "nnx module": lambda: nnx.Linear(2, 3, rngs=nnx.Rngs(0)),
    "equinox": lambda: eqx.nn.Linear(2, 3, key=jax.random.key(0)),
    "equinox mlp": lambda: eqx.nn.MLP(2, 3, 4, 2, key=jax.random.key(0)),
    "optax": lambda: optax.adam(1e-3).init({"kernel": jnp.ones(2), "bias": jnp.ones(1)}),
    "abstract": lambda: jax.eval_shape(lambda: {"kernel": jnp.ones(2), "bias": jnp.ones(1)}),
}


@pytest.mark.parametrize("kind", TREES)
def test_split_then_merge_is_the_tree(kind):
    tree = TREES[kind]()
    chosen, rest = split(tree, "**/bias")
    assert type(chosen) is type(rest) is type(tree)
    assert leaf_names(chosen) == select("**/bias").names(tree)
    assert sorted(leaf_names(chosen) + leaf_names(rest)) == sorted(leaf_names(tree))
    for whole in (merge(chosen, rest), merge(rest, chosen)):
        assert jax.tree.structure(whole) == jax.tree.structure(tree)
        assert all(a is b for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(tree)))


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=4, max_size=4))
def test_a_mask_splits_as_it_says(bits):
    tree = {"a": {"x": 1.0, "y": 2.0}, "b": [3.0, 4.0]}
    mask = jax.tree.unflatten(jax.tree.structure(tree), bits)
    chosen, rest = split(tree, mask)
    assert jax.tree.leaves(chosen) == [x for x, keep in zip([1.0, 2.0, 3.0, 4.0], bits) if keep]
    assert merge(chosen, rest, complete=True) == tree


def test_a_mask_may_be_a_prefix_and_of_numpy_bools():
    tree = {"backbone": {"w": 1.0, "f": len}, "head": {"w": 2.0}}
    chosen, rest = split(tree, {"backbone": np.True_, "head": False})
    assert chosen == {"backbone": {"w": 1.0, "f": None}, "head": {"w": None}}
    assert rest == {"backbone": {"w": None, "f": len}, "head": {"w": 2.0}}
    assert split(tree, True)[0]["head"] == {"w": 2.0}


def test_what_is_no_array_goes_to_the_rest():
    mlp = eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(0))
    chosen, rest = split(mlp, "**")
    assert chosen.activation is None
    assert rest.activation is mlp.activation
    assert jax.tree.leaves(jax.tree.map(lambda x: x + 1, chosen))  # arrays only, so arithmetic works


def test_under_jit_gradients_are_of_the_chosen_only():
    params = {"backbone": {"w": jnp.full((2, 2), 2.0)}, "head": {"w": jnp.ones((2, 1))}}

    @jax.jit
    def gradient(params, x):
        chosen, rest = split(params, "head/**")

        def loss(chosen):
            whole = merge(chosen, rest)
            return (x @ whole["backbone"]["w"] @ whole["head"]["w"]).sum()

        return jax.grad(loss)(chosen)

    out = gradient(params, jnp.ones((1, 2)))
    assert out["backbone"]["w"] is None
    np.testing.assert_array_equal(out["head"]["w"], [[4.0], [4.0]])


def test_merge_takes_many_parts():
    parts = [{"a": 1, "b": None, "c": None}, {"a": None, "b": 2, "c": None}, {"a": None, "b": None, "c": 3}]
    assert merge(*parts) == {"a": 1, "b": 2, "c": 3}
    assert merge(parts[0], parts[1]) == {"a": 1, "b": 2, "c": None}


def test_merge_names_the_leaf_that_two_trees_have():
    with pytest.raises(MergeError, match=r"'head/w' is in trees \[0, 2\]"):
        merge({"head": {"w": 1}}, {"head": {"w": None}}, {"head": {"w": 2}})


def test_merge_names_the_leaf_that_none_has():
    with pytest.raises(MergeError, match="'a' is in none of the 2 trees"):
        merge({"a": None, "b": 1}, {"a": None, "b": None}, complete=True)


def test_merge_says_how_structures_differ():
    with pytest.raises(MergeError, match=r"only tree 0 has \['b'\], only tree 1 has \['c'\]"):
        merge({"a": 1, "b": 1}, {"a": None, "c": 1})
    with pytest.raises(MergeError, match=r"different containers.*dict, FrozenDict"):
        merge({"a": 1}, FrozenDict({"a": None}))


def test_split_refuses_typos_and_masks_of_another_structure():
    with pytest.raises(NoMatchError, match=r"did you mean 'head/\*\*'"):
        split({"head": {"w": 1.0}}, "head")
    with pytest.raises(MergeError, match="mask does not have the structure"):
        split({"a": 1.0, "b": 2.0}, {"a": True})


def test_an_empty_list_chooses_nothing():
    chosen, rest = split({"a": 1.0}, [])
    assert (chosen, rest) == ({"a": None}, {"a": 1.0})


def test_splitting_does_not_copy():
    tree = {"a": np.ones(3), "b": np.ones(2)}
    assert named_leaves(split(tree, "a")[0])["a"] is tree["a"]
