"""Rules of a layout: what they divide, what they say where they cannot, and that the optimiser's state follows."""

import functools
import math

import jax
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec
from training_cases import TANH, batch

import tljax as tl
from tljax import peft
from tljax.objectives import cross_entropy
from tljax.plans import decay, plan, rate
from tljax.training import LayoutError, MeshError, make_step
from tljax.training.placement import Placement
from tljax.tree import NoMatchError

DEVICES = jax.devices()[:8]
PARAMS = {
    "backbone": {
        "block_00": {"query": {"kernel": np.zeros((96, 128), np.float32), "bias": np.zeros(128, np.float32)}},
        "block_01": {"query": {"kernel": np.zeros((96, 128), np.float32), "bias": np.zeros(128, np.float32)}},
        "conv": np.zeros((3, 3, 63, 64), np.float32),
    },
    "head": {"kernel": np.zeros((7, 999), np.float32)},
}
P = PartitionSpec
EVEN = tl.mesh(fsdp=4, tensor=2, devices=DEVICES)


def specs(layout, mesh=EVEN, params=PARAMS):
    return {name: spec for name, _, spec in layout.resolve(params, mesh).leaves}


def test_large_leaves_are_divided_along_their_longest_axis_that_divides():
    found = specs(tl.layout())
    assert found["backbone/block_00/query/kernel"] == P(None, "fsdp")
    assert found["backbone/block_00/query/bias"] == P()
    assert found["backbone/conv"] == P(None, None, None, "fsdp")
    assert found["head/kernel"] == P()  # large, but neither 7 nor 999 divides
    assert set(specs(tl.layout(above=math.inf)).values()) == {P()}
    assert specs(tl.layout(above=0))["backbone/block_00/query/bias"] == P("fsdp")
    assert set(specs(tl.layout(above=0), tl.mesh(devices=DEVICES)).values()) == {P()}
    square = {"w": np.zeros((64, 64), np.float32)}
    assert specs(tl.layout(above=0), params=square)["w"] == P("fsdp")


def test_rules_by_selector_the_last_one_decides():
    backbone = tl.shard(tl.select("**/kernel") & "backbone/**", ("fsdp", "tensor"))
    found = specs(tl.layout(tl.shard("**/kernel", (None, "tensor")), backbone, tl.shard("head/**", ())))
    assert found["backbone/block_01/query/kernel"] == P("fsdp", "tensor")
    assert found["head/kernel"] == P()
    both = specs(tl.layout(tl.shard("**/bias", (("fsdp", "tensor"),))))
    assert both["backbone/block_00/query/bias"] == P(("fsdp", "tensor"))


def test_a_rule_that_matches_nothing_raises_with_the_nearest_names():
    with pytest.raises(NoMatchError, match=r"matches none of the 6 leaves; .*'backbone/block_00/query/kernel'"):
        specs(tl.layout(tl.shard("backbone/**/quary/kernel", ("fsdp",))))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (("head/kernel", ("fsdp",)),
         r"shard\('head/kernel', \('fsdp',\)\): 'head/kernel' of the shape \(7, 999\) does not divide: its axis 0 of 7 "
         r"over fsdp, 4 parts on the mesh data=1, fsdp=4, tensor=2"),
        (("backbone/conv", (None, None, ("fsdp", "tensor"))), r"its axis 2 of 63 over fsdp and tensor, 8 parts"),
        (("**/bias", (None, "tensor")), r"query/bias' of the shape \(128,\) has 1 axes, and the rule speaks of 2"),
    ],
)  # fmt: skip
def test_leaves_that_do_not_divide_are_named(rule, message):
    with pytest.raises(LayoutError, match=message):
        specs(tl.layout(tl.shard(*rule)))


@pytest.mark.parametrize(
    ("over", "message"),
    [
        (("model",), "a mesh has the axes data, fsdp, tensor, not 'model'"),
        (("tensr",), "did you mean 'tensor'"),
        (("fsdp", "fsdp"), "divided over 'fsdp' only once"),
        ("fsdp", r"in a tuple, as \('fsdp',\)"),
        ((3,), "not 3"),
    ],
)
def test_rules_that_make_no_sense(over, message):
    with pytest.raises(LayoutError, match=message):
        tl.shard("head/**", over)


def test_layouts_that_make_no_sense():
    with pytest.raises(LayoutError, match=r"layout\(\) takes rules such as shard"):
        tl.layout(("head/**", ("fsdp",)))
    with pytest.raises(LayoutError, match="above is a size in bytes"):
        tl.layout(above=-1)
    with pytest.raises(MeshError, match=r"as tl.mesh\(\) makes it; found the axes x, of the types Auto"):
        tl.layout().resolve(PARAMS, Mesh(np.array(DEVICES), ("x",)))
    with pytest.raises(MeshError, match="should be one"):
        tl.layout().resolve(PARAMS, 8)


def test_the_table_tells_what_each_device_holds():
    lines = tl.layout(tl.shard("**/query/kernel", (None, "tensor"))).table(PARAMS, EVEN).splitlines()
    assert [line.split() for line in lines[1:3]] == [
        ["backbone/block_{00..01}/query/bias", "128", "-", "1,024", "1,024", "-"],
        ["backbone/block_{00..01}/query/kernel", "96", "x", "128", "-,", "tensor", "2", "98,304", "49,152",
         "shard('**/query/kernel',", "(None,", "'tensor'))"],
    ]  # fmt: skip
    total = 2 * (96 * 128 + 128) * 4 + 9 * 63 * 64 * 4 + 7 * 999 * 4
    own = 2 * (48 * 128 + 128) * 4 + 9 * 63 * 16 * 4 + 7 * 999 * 4
    assert lines[-1].split() == ["all", f"{total:,}", f"{own:,}"]


OPTIMIZERS = {
    "adamw": (plan(), optax.adamw(0.1)),
    "by group": (plan(rate("head/**", 10.0), decay("**", 0.1)), functools.partial(optax.adamw, 0.1)),
}  # fmt: skip


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_state_of_the_optimiser_lies_as_its_parameters(kind):
    p, optimizer = OPTIMIZERS[kind]
    params = TANH.init(jax.random.key(0), batch()["train"].x)
    placement = tl.layout(tl.shard("backbone/w", (None, "fsdp")), tl.shard("head/w", ("tensor",))).resolve(params, EVEN)
    step = make_step(TANH, cross_entropy(), p.resolve(params), optimizer, ema=0.9)
    state = jax.eval_shape(lambda: step.init(params, batch(), seed=0))
    names = {"w": set(), "b": set(), "": set()}
    for path, sharding in jax.tree_util.tree_leaves_with_path(placement.shardings(state)):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        wanted = next((s for n, _, s in placement.leaves if name.endswith(n)), P())
        assert sharding.spec == wanted, name
        names[name[-1] if name[-2:-1] == "/" and name[-1] in "wb" else ""].add(name)
    assert len(names["w"]) == 2 * (1 + 2 + 1)  # the parameters, two moments, the average


def test_state_of_another_shape_goes_by_its_own_size():
    params = {"w": np.zeros((256, 128), np.float32)}
    placement = tl.layout(tl.shard("w", (None, "tensor"))).resolve(params, EVEN)
    rows = placement.shardings(
        {"v_row": {"w": np.zeros(256, np.float32)}, "v": {"w": np.zeros((256, 128), np.float32)}}
    )
    assert (rows["v_row"]["w"].spec, rows["v"]["w"].spec) == (P(), P(None, "tensor"))


def test_adapters_are_named_as_anything_else():
    base = TANH.init(jax.random.key(0), batch()["train"].x)
    _, params = peft.attach(TANH, base, peft.lora(base, "head/w", key=jax.random.key(1), rank=2))
    name = next(n for n in tl.tree.leaf_names(params) if n.startswith("adapters/") and n.endswith("/a"))
    found = specs(tl.layout(tl.shard("adapters/**/a", (None, "tensor")), above=0), params=params)
    assert found[name] == P(None, "tensor")


def test_equal_placements_are_equal():
    one, other = (tl.layout(tl.shard("**/kernel", ())).resolve(PARAMS, EVEN) for _ in range(2))
    assert isinstance(one, Placement)
    assert one == other
    assert hash(one) == hash(other)
    assert one != tl.layout().resolve(PARAMS, EVEN)
