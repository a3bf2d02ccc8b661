"""From selectors to adapters: what is chosen, at which rank and scale, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax import peft
from tljax.peft import Layout, PeftError, lora
from tljax.tree import NoMatchError

KEY = jax.random.key(0)


def base():
    block = {
        "query": {"kernel": jnp.ones((6, 8)), "bias": jnp.ones(8)},
        "key": {"kernel": jnp.ones((6, 8))},
        "norm": {"scale": jnp.ones(6), "batch_stats": {"mean": jnp.zeros(6)}},
    }
    return {"block_0": block, "block_1": block, "steps": jnp.zeros((2, 2), jnp.int32)}


def test_every_leaf_draws_for_itself():
    alone = lora(base(), "block_1/key/kernel", key=KEY, rank=2)
    among = lora(base(), "**/kernel", key=KEY, rank=2)
    np.testing.assert_array_equal(alone["block_1/key/kernel"].a, among["block_1/key/kernel"].a)
    assert not np.array_equal(among["block_0/key/kernel"].a, among["block_1/key/kernel"].a)
    other = lora(base(), "block_1/key/kernel", key=jax.random.key(1), rank=2)
    assert not np.array_equal(alone["block_1/key/kernel"].a, other["block_1/key/kernel"].a)


def test_rank_and_alpha_by_selector():
    adapters = lora(
        base(), "**/kernel", key=KEY, rank={"**": 2, "block_1/**": 4, "block_1/key/*": 1}, alpha={"**/query/*": 3.0}
    )
    found = {name: (a.a.shape[-1], float(a.constants["scale"])) for name, a in adapters.items()}
    assert found == {
        "block_0/key/kernel": (2, 4.0),
        "block_0/query/kernel": (2, 1.5),
        "block_1/key/kernel": (1, 8.0),
        "block_1/query/kernel": (4, 0.75),
    }


def test_defaults_are_those_of_peft():
    adapters = lora({"w": jnp.ones((20, 20))}, "w", key=KEY)
    assert (adapters["w"].a.shape, float(adapters["w"].constants["scale"])) == ((20, 8), 1.0)
    wide = lora({"w": jnp.ones((40, 40))}, "w", key=KEY, rank=16)
    assert float(wide["w"].constants["scale"]) == 0.5  # alpha stays 8 when the rank grows
    stable = lora({"w": jnp.ones((40, 40))}, "w", key=KEY, rank=16, rslora=True)
    assert float(stable["w"].constants["scale"]) == 2.0


METHODS = {
    "lora": lambda p, w, **o: peft.lora(p, w, key=KEY, **o),
    "dora": lambda p, w, **o: peft.dora(p, w, key=KEY, **o),
    "pissa": peft.pissa,
    "olora": peft.olora,
    "vera": lambda p, w, **o: peft.vera(p, w, key=KEY, **o),
    "ia3": peft.ia3,
}


@pytest.mark.parametrize("method", METHODS)
def test_a_typo_is_told(method):
    with pytest.raises(NoMatchError, match=r"'block_0/keys/kernel' matches none.*nearest are 'block_0/key/kernel'"):
        METHODS[method](base(), ["block_1/key/kernel", "block_0/keys/kernel"])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["block_0/query/bias", "block_0/norm/scale"])
def test_a_vector_is_refused(method, name):
    with pytest.raises(PeftError, match=rf"'{name}' \[\d\] is no matrix.*full\(params, '{name}'\)"):
        METHODS[method](base(), ["block_0/key/kernel", name])


@pytest.mark.parametrize("method", [*METHODS, "full"])
@pytest.mark.parametrize(
    ("name", "why"), [("steps", "of dtype int32"), ("block_0/norm/batch_stats/mean", "a running statistic")]
)
def test_what_cannot_learn_is_refused(method, name, why):
    make = METHODS.get(method, peft.full)
    with pytest.raises(PeftError, match=f"'{name}' is {why} and cannot learn; leave it out: & ~select"):
        make(base(), ["block_0/key/kernel", name])


@pytest.mark.parametrize("method", ["lora", "dora", "pissa", "olora"])
def test_rank_larger_than_the_matrix(method):
    with pytest.raises(PeftError, match="rank 7 of 'block_0/key/kernel' is too large: a matrix of 6 inputs and 8 out"):
        METHODS[method](base(), "block_0/key/kernel", rank=7)


@pytest.mark.parametrize("rank", [0, 2.0, True, None])
def test_rank_is_a_whole_number(rank):
    for method in ("lora", "vera"):
        with pytest.raises(PeftError, match=r"rank.* must be a whole number, 1 or more"):
            METHODS[method](base(), "block_0/key/kernel", rank=rank)


def test_a_rank_for_what_is_not_selected():
    with pytest.raises(NoMatchError, match="query"):
        lora(base(), "**/key/kernel", key=KEY, rank={"**/query/kernel": 4})


def test_other_starts_are_refused():
    with pytest.raises(PeftError, match="init='pissa'; expected 'kaiming' or 'gaussian'"):
        lora(base(), "**/key/kernel", key=KEY, rank=2, init="pissa")


def test_selected_for_inputs_and_outputs():
    with pytest.raises(PeftError, match="'block_0/key/kernel' is selected for its outputs and, by feedforward"):
        peft.ia3(base(), "**/key/kernel", "block_0/key/kernel")


def test_full_is_a_copy():
    params = {"bias": np.zeros(3, np.float32)}
    adapter = peft.full(params, "bias")["bias"]
    params["bias"][:] = 1
    assert not np.any(adapter.value)


def test_layouts_may_name_leaves_that_one_call_leaves_out():
    weights = {"a": {"weight": jnp.ones((3, 5))}, "b": {"weight": jnp.ones((4, 3))}}
    layouts = {"**/weight": Layout(transposed=True)}
    adapters = peft.ia3(weights, "a/weight", layouts=layouts)
    assert adapters["a/weight"].value.shape == (3,)  # [out, in]
    assert peft.ia3(weights, (), "a/weight", layouts=layouts)["a/weight"].value.shape == (5,)
    assert (
        lora(weights, "a/*", key=KEY, rank=1, layouts={"a/*": Layout(), "b/*": Layout()})["a/weight"].layout == Layout()
    )
    with pytest.raises(NoMatchError, match="nowhere"):
        lora(weights, "a/*", key=KEY, rank=1, layouts={"nowhere/*": Layout()})
