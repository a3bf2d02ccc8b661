"""The vision transformer: published counts, torch's layers on the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.models import ModelError, vit
from tljax.models.classifier import PatchConv
from tljax.models.vit import Block
from tljax.tree import count, leaf_names, map_named, select

KEY = jax.random.key(0)


@pytest.mark.parametrize(("variant", "published"), [("ti16", 5_717_416), ("s16", 22_050_664), ("b16", 86_567_656)])
def test_parameter_counts_at_224_with_1000_classes(variant, published):
    params = jax.eval_shape(vit(variant, 1000).init, KEY, jnp.zeros((1, 224, 224, 3)))
    assert count(params) == published


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 12, 8, 1), (2, 32, 32, 5)])
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_any_image(shape, pool):
    model = vit("ti", 5, depth=2, pool=pool)
    params = jax.eval_shape(model.init, KEY, jnp.zeros(shape))
    out = jax.eval_shape(model.apply, params, jnp.zeros(shape))
    assert (out.logits.shape, out.features.shape) == ((2, 5), (2, 192))
    patches = (shape[1] // 4) * (shape[2] // 4)
    assert params["backbone"]["embed"]["position"].shape == (1, patches + (pool == "cls"), 192)
    grouped = [name for group in model.groups for name in select(group).names(params)]
    assert sorted(grouped) == sorted(leaf_names(params))
    assert model.groups == (
        "backbone/embed/**",
        "backbone/block_00/**",
        "backbone/block_01/**",
        "backbone/norm/**",
        "head/**",
    )


def leaf_values(tree):
    rng = np.random.default_rng(1)
    return map_named(lambda name, leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype), tree)


def tensor(torch, leaf):
    return torch.from_numpy(np.asarray(leaf).copy())


def torch_block(torch, params, width, heads, hidden):
    """torch's own pre-norm encoder layer with our weights."""
    layer = torch.nn.TransformerEncoderLayer(
        width, heads, hidden, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    attention = params["attention"]
    joined = {
        part: np.concatenate([np.asarray(attention[name][part]).T for name in ("query", "key", "value")])
        for part in ("kernel", "bias")
    }
    state = {"self_attn.in_proj_weight": joined["kernel"], "self_attn.in_proj_bias": joined["bias"]}
    for theirs, ours in {
        "self_attn.out_proj": attention["out"],
        "linear1": params["mlp"]["dense_1"],
        "linear2": params["mlp"]["dense_2"],
        "norm1": params["norm_1"],
        "norm2": params["norm_2"],
    }.items():
        state[f"{theirs}.weight"] = ours["kernel"].T if "kernel" in ours else ours["scale"]
        state[f"{theirs}.bias"] = ours["bias"]
    layer.load_state_dict({name: tensor(torch, leaf) for name, leaf in state.items()})
    return layer


def test_a_block_is_torchs():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(3, 7, 12)).astype(np.float32)
    block = Block(heads=3, hidden=20)
    params = leaf_values(jax.eval_shape(lambda x: block.init(KEY, x, False), x)["params"])
    with torch.no_grad():
        expected = torch_block(torch, params, 12, 3, 20).train()(torch.from_numpy(x))
    out = jax.jit(lambda params, x: block.apply({"params": params}, x, False))(params, x)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_the_whole_is_torchs(pool):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype(np.float32)
    model = vit("ti", 5, width=12, heads=3, depth=2, mlp_ratio=2, pool=pool)
    params = leaf_values(jax.eval_shape(model.init, KEY, x))
    backbone, embed = params["backbone"], params["backbone"]["embed"]
    with torch.no_grad():
        kernel = tensor(torch, embed["patch"]["kernel"]).permute(3, 2, 0, 1)
        images = torch.from_numpy(x).permute(0, 3, 1, 2)
        y = torch.nn.functional.conv2d(images, kernel, tensor(torch, embed["patch"]["bias"]), stride=4)
        y = y.flatten(2).permute(0, 2, 1)
        if pool == "cls":
            y = torch.cat([tensor(torch, embed["cls"]).expand(2, 1, 12), y], 1)
        y = y + tensor(torch, embed["position"])
        for name in ("block_00", "block_01"):
            y = torch_block(torch, backbone[name], 12, 3, 24).train()(y)
        y = torch.nn.functional.layer_norm(
            y, (12,), tensor(torch, backbone["norm"]["scale"]), tensor(torch, backbone["norm"]["bias"]), 1e-6
        )
        features = y[:, 0] if pool == "cls" else y.mean(1)
    np.testing.assert_allclose(jax.jit(model.apply)(params, x).features, features, rtol=1e-5, atol=1e-5)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("patch", [1, 3])
@pytest.mark.parametrize("use_bias", [True, False])
def test_patch_convolution_and_its_gradient_are_those_of_a_convolution(patch, use_bias):
    x = jax.random.normal(KEY, (2, 6, 9, 5))
    module = PatchConv(7, patch, use_bias)
    params = leaf_values(jax.eval_shape(module.init, KEY, x)["params"])

    def ours(params, x):
        return module.apply({"params": params}, x)

    def theirs(params, x):
        y = jax.lax.conv_general_dilated(
            x, params["kernel"], (patch, patch), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + params["bias"].reshape(1, 1, 1, -1) if use_bias else y

    def both(f):
        def loss(params, x):
            return jnp.sum(jnp.sin(f(params, x)))

        return jax.jit(f)(params, x), jax.jit(jax.grad(loss, argnums=(0, 1)))(params, x)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), both(ours), both(theirs))


def test_dropout_needs_and_uses_the_key():
    model = vit("ti", 5, width=12, heads=3, depth=1, dropout=0.5)
    x = jnp.ones((2, 8, 8, 3))
    params = leaf_values(jax.eval_shape(model.init, KEY, x))
    with pytest.raises(ModelError, match="give apply a key"):
        jax.eval_shape(lambda params: model.apply(params, x, train=True), params)
    train = jax.jit(lambda key: model.apply(params, x, train=True, key=key).features)
    a, b = train(jax.random.key(0)), train(jax.random.key(1))
    assert np.max(np.abs(a - b)) > 0.1


def test_errors_name_the_thing():
    for options, message in [
        ({"variant": "xl"}, "variant='xl'; expected ti, s, b, l, h, g, or with the patch, as 's16'"),
        ({"pool": "max"}, "pool='max'; expected 'cls' or 'mean'"),
        ({"heads": 5}, "width=192 is not a multiple of heads=5"),
    ]:
        with pytest.raises(ModelError, match=message):
            vit(**options)
    with pytest.raises(ModelError, match="patches of 16 do not divide images of 32x40"):
        vit("ti16").init(KEY, jnp.zeros((1, 32, 40, 3)))
    assert vit("s16").name == "vit-s16"
