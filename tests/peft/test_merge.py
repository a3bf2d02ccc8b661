"""Merging: where every kind starts, stacks of layers and of adapters, containers, convolutions, and misfits."""

import pathlib
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict

from tljax import peft
from tljax.peft import DoRA, Full, Layout, LoRA, PeftError, Scale, VeRA, merge
from tljax.tree import named_leaves

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "golden"))
from made_weights import uniform

KEY = jax.random.key(0)


def draw(name, shape):
    return jnp.asarray(uniform(f"{name}{shape}", shape))


def tree():
    shapes = {
        "dense": {"kernel": (6, 4), "bias": (4,)},
        "attention": {"out": {"kernel": (2, 3, 5), "bias": (5,)}, "key": {"kernel": (5, 2, 3), "bias": (2, 3)}},
        "depthwise_conv": {"kernel": (3, 3, 1, 6)},
        "table": {"embedding": (7, 4)},
        "layers": {"dense": {"kernel": (3, 6, 4), "bias": (3, 4)}},
    }
    return jax.tree.map(lambda s: draw("base", s), shapes, is_leaf=lambda x: isinstance(x, tuple))


JITTED = jax.jit(merge)  # one program in place of one for each operation
MATRICES = "**/{kernel,embedding}"
STARTS = {
    "lora": lambda p: peft.lora(p, MATRICES, key=KEY, rank=2),
    "rslora": lambda p: peft.lora(p, MATRICES, key=KEY, rank=2, rslora=True, init="gaussian"),
    "dora": lambda p: peft.dora(p, MATRICES, key=KEY, rank=2),
    "pissa": lambda p: peft.pissa(p, MATRICES, rank=2),
    "olora": lambda p: peft.olora(p, MATRICES, rank=2),
    "vera": lambda p: peft.vera(p, MATRICES, key=KEY, rank=5),
    "ia3": lambda p: peft.ia3(p, "{dense,layers/*,attention/*}/kernel", "depthwise_conv/kernel"),
    "full": lambda p: peft.full(p, "**"),
}


def trained(adapters):
    """The adapters after some training: every leaf that learns is moved."""

    def move(path, leaf):
        constant = "constants" in jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        return leaf if constant else np.asarray(leaf) + 0.3 * np.asarray(draw("moved", leaf.shape))

    return jax.tree_util.tree_map_with_path(move, adapters)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("kind", STARTS)
def test_every_kind_starts_at_the_base_and_leaves_it_alone(kind):
    params = tree()
    before = jax.tree.map(np.array, params)
    adapters = jax.jit(STARTS[kind])(params)
    merged = JITTED(params, adapters)
    for name, leaf in named_leaves(merged).items():
        np.testing.assert_allclose(leaf, named_leaves(before)[name], rtol=0, atol=2e-6, err_msg=name)
    moved = JITTED(params, trained(adapters))
    for name, adapter in adapters.items():
        if isinstance(adapter, peft.Adapter):
            assert np.abs(named_leaves(moved)[name] - named_leaves(before)[name]).max() > 1e-3, name
    jax.tree.map(np.testing.assert_array_equal, params, before)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("kind", ["lora", "dora", "pissa", "olora", "vera", "ia3"])
def test_stacked_layers_are_merged_as_each_alone(kind):
    params = {"layers": tree()["layers"]}
    make = {"ia3": lambda p: peft.ia3(p, MATRICES)}.get(kind, STARTS[kind])
    adapters = trained(make(params))
    merged = merge(params, adapters)
    for i in range(3):
        layer = jax.tree.map(lambda x, i=i: x[i], params)
        alone = {name: one_layer(adapter, i) for name, adapter in adapters.items()}
        for name, leaf in named_leaves(merge(layer, alone)).items():
            np.testing.assert_allclose(named_leaves(merged)[name][i], leaf, rtol=1e-6, atol=1e-6, err_msg=name)


def one_layer(adapter, i):
    if not isinstance(adapter, peft.Adapter):  # projections are shared by the layers, factors of IA3 are not
        return adapter[i] if adapter.shape[0] == 3 else adapter
    flat, treedef = jax.tree.flatten(adapter)
    layout = adapter.layout._replace(stack=0) if adapter.layout.kind != "vector" else adapter.layout
    one = jax.tree.unflatten(treedef, [x[i] if x.ndim else x for x in flat])
    return type(adapter)(**{**vars(one), "layout": layout})


@pytest.mark.one_in(2)
@pytest.mark.parametrize("kind", ["lora", "dora", "vera"])
def test_a_stack_of_adapters_on_one_base(kind):
    params = {"dense": tree()["dense"]}
    method = getattr(peft, kind)
    three = [trained(method(params, "dense/kernel", key=jax.random.key(i), rank=2)) for i in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *three)
    together = jax.vmap(merge, in_axes=(None, 0))(params, stacked)["dense"]["kernel"]
    for i, one in enumerate(three):
        np.testing.assert_allclose(together[i], merge(params, one)["dense"]["kernel"], rtol=1e-6, atol=1e-6)


def test_a_scale_for_each_layer_of_a_stack():
    a, b, weight = draw("a", (3, 6, 2)), draw("b", (3, 2, 4)), draw("w", (3, 6, 4))
    scale = jnp.array([0.0, 1.0, 2.0])
    adapter = LoRA(a, b, {"scale": scale}, Layout(stack=1))
    wanted = weight + scale[:, None, None] * (a @ b)
    np.testing.assert_allclose(adapter.merge(weight, {}), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
def test_one_meaning_in_both_orders_of_axes(transposed):
    """A convolution in Equinox's order, `[o, i, h, w]`, and in Flax's are adapted alike."""
    weight, a, b, m = draw("w", (4, 3, 2, 5)), draw("a", (4, 3, 2, 2)), draw("b", (2, 5)), draw("m", (5,))
    plain = DoRA(a, b, m, {"scale": jnp.float32(0.5)}, Layout("conv", ins=3))
    turned = DoRA(a, b, m, {"scale": jnp.float32(0.5)}, Layout("conv", ins=3, transposed=True))
    moved = turned.merge(jnp.moveaxis(weight, -1, 0), {})
    np.testing.assert_allclose(jnp.moveaxis(moved, 0, -1), plain.merge(weight, {}), rtol=1e-6)


@pytest.mark.slow
def test_containers_stay_what_they_are():
    linear = eqx.nn.MLP(3, 2, 4, 1, key=KEY)
    adapters = trained(peft.lora(linear, "**/weight", key=KEY, rank=1))
    merged = merge(linear, adapters)
    assert isinstance(merged, eqx.nn.MLP)
    assert merged.activation is linear.activation
    found, weight = adapters["layers/0/weight"], linear.layers[0].weight
    np.testing.assert_allclose(merged.layers[0].weight, weight + 8 * (found.a @ found.b).T, rtol=1e-5, atol=1e-5)
    frozen = FrozenDict(tree())
    assert isinstance(merge(frozen, STARTS["lora"](frozen)), FrozenDict)


def test_differentiable_and_jittable():
    params = {"dense": tree()["dense"]}
    adapters = STARTS["lora"]({"dense": params["dense"]})
    grads = jax.jit(jax.grad(lambda a: jnp.sum(merge(params, a)["dense"]["kernel"] ** 2)))(adapters)
    found = adapters["dense/kernel"]
    wanted = 4.0 * found.a.T @ (2 * params["dense"]["kernel"])  # the scale is alpha / rank = 4
    np.testing.assert_allclose(grads["dense/kernel"].b, wanted, rtol=1e-4)
    assert not jnp.any(grads["dense/kernel"].a)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("groups", [2, 6])
def test_grouped_and_depthwise_convolutions(groups):
    """peft ties the rank to the groups and cannot merge; here the kernel is a matrix like any other."""
    x, kernel = draw("x", (2, 8, 8, 6)), draw("k", (3, 3, 6 // groups, 6))
    adapters = trained(peft.lora({"conv": {"kernel": kernel}}, "**", key=KEY, rank=2, alpha=2.0))
    merged = merge({"conv": {"kernel": kernel}}, adapters)["conv"]["kernel"]
    a, b = adapters["conv/kernel"].a, adapters["conv/kernel"].b
    got = convolved(x, merged, groups, 2)
    each = []  # each group alone, and the low-rank path as a convolution to the rank, then a product
    for g in range(groups):
        part, outs = x[..., g * (6 // groups) :][..., : 6 // groups], slice(g * 6 // groups, (g + 1) * 6 // groups)
        each.append(convolved(part, kernel[..., outs], 1, 2) + convolved(part, a, 1, 2) @ b[:, outs])
    np.testing.assert_allclose(got, jnp.concatenate(each, axis=-1), rtol=1e-4, atol=1e-4)


def convolved(x, kernel, groups, dilation):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", rhs_dilation=(dilation,) * 2, feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def test_an_output_without_weights_stays_without():
    weight = jnp.array([[3.0, 0.0], [4.0, 0.0]])
    adapter = peft.dora({"w": weight}, "w", key=KEY, rank=1)["w"]
    for found in (adapter.merge(weight, {}), adapter.factor(weight, {}).dense()):
        np.testing.assert_allclose(found, weight, rtol=1e-6)


def test_unknown_path_names_the_nearest():
    with pytest.raises(PeftError, match=r"'dense/kernal', but the parameters have no such leaf.*'dense/kernel'"):
        merge({"dense": {"kernel": jnp.ones((2, 2))}}, {"dense/kernal": Full(jnp.ones((2, 2)))})


def test_what_is_no_adapter():
    with pytest.raises(PeftError, match=r"adapters\['w'\] is dict; expected an adapter"):
        merge({"w": jnp.ones((2, 2))}, {"w": {}})


SCALE = {"scale": jnp.float32(1.0)}
MISFITS = {
    "outputs": LoRA(jnp.ones((4, 2)), jnp.ones((2, 3)), SCALE),
    "one input": LoRA(jnp.ones((1, 2)), jnp.ones((2, 6)), SCALE),
    "rank": LoRA(jnp.ones((4, 2)), jnp.ones((3, 6)), SCALE),
    "magnitude": DoRA(jnp.ones((4, 2)), jnp.ones((2, 6)), jnp.ones(1), SCALE),
    "one input of dora": DoRA(jnp.ones((1, 2)), jnp.ones((2, 6)), jnp.ones(6), SCALE),
    "scale": Scale(jnp.ones(5)),
    "scale of inputs": Scale(jnp.ones(5), "in"),
    "full": Full(jnp.ones((4, 5))),
}


@pytest.mark.parametrize("case", MISFITS)
def test_shapes_that_do_not_fit(case):
    with pytest.raises(PeftError, match=r"adapter of 'w' .*does not fit the leaf of shape \(4, 6\)"):
        merge({"w": jnp.ones((4, 6))}, {"w": MISFITS[case]})


def test_a_shared_array_that_is_missing():
    with pytest.raises(PeftError, match="'w' reads 'shared/constants/vera_a', which is not among the adapters"):
        merge({"w": jnp.ones((4, 6))}, {"w": VeRA(jnp.ones(2), jnp.ones(6))})
