"""The CIFAR ResNet: published counts, torch's arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.models import ModelError, resnet
from tljax.tree import count, leaf_names, map_named, named_leaves, select, split
from tljax.types import is_state

KEY = jax.random.key(0)


def learned(model, shape=(1, 32, 32, 3)):
    params = jax.eval_shape(model.init, KEY, jnp.zeros(shape))
    return count(split(params, is_state)[1])


@pytest.mark.parametrize(
    ("depth", "options", "published"),
    [
        (20, {}, 269_722),
        (32, {}, 464_154),
        (44, {}, 658_586),
        (56, {}, 853_018),
        (20, {"shortcut": "B"}, 269_722 + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64),
    ],
)
def test_parameter_counts(depth, options, published):
    assert learned(resnet(depth, **options)) == published


@pytest.mark.slow
def test_parameter_count_of_110_layers():
    assert learned(resnet(110)) == 1_727_962


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 28, 28, 1), (2, 15, 10, 4), (2, 32, 32, 3)])
@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_any_image(shape, shortcut):
    model = resnet(8, num_classes=5, width=6, shortcut=shortcut)
    params = jax.eval_shape(model.init, KEY, jnp.zeros(shape))
    out = jax.eval_shape(lambda p, x: model.apply(p, x, train=True), params, jnp.zeros(shape))
    assert (out.logits.shape, out.features.shape) == ((2, 5), (2, 24))
    assert all(is_state(name) for name in leaf_names(out.stats))
    grouped = [name for group in model.groups for name in select(group).names(params)]
    assert sorted(grouped) == sorted(leaf_names(params))


def test_groups_go_from_stem_to_head():
    model = resnet(20)
    assert model.groups[0] == "backbone/stem/**"
    assert model.groups[1:4] == tuple(f"backbone/stage_1/block_0{i}/**" for i in range(3))
    assert model.groups[-1] == "head/**"
    assert len(model.groups) == 1 + 9 + 1
    assert len(resnet(110).groups) == 1 + 54 + 1
    assert resnet(110).groups[18] == "backbone/stage_1/block_17/**"


def to_torch(leaf):
    import torch

    axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(leaf.ndim, tuple(range(leaf.ndim)))
    return torch.from_numpy(np.asarray(leaf).transpose(axes).copy())


def leaf_values(params):
    """Every leaf different, statistics and scales positive."""
    rng = np.random.default_rng(1)

    def value(name, leaf):
        x = rng.normal(0, 0.3, leaf.shape)
        return jnp.asarray(np.abs(x) + 0.5 if is_state(name) or name.endswith("scale") else x, leaf.dtype)

    return map_named(value, params)


def torch_forward(torch, leaves, x, shortcut, train):
    """The network of He et al. with torch's functions, statistics updated in place."""
    F = torch.nn.functional

    def norm(x, name):
        w = [leaves[f"{name}/{part}"] for part in ("batch_stats/mean", "batch_stats/var", "scale", "bias")]
        return F.batch_norm(x, *w, training=train, momentum=0.1, eps=1e-5)

    def conv(x, name, stride=1, padding=1):
        return F.conv2d(x, leaves[f"{name}/kernel"], stride=stride, padding=padding)

    x = F.relu(norm(conv(x, "backbone/stem/conv"), "backbone/stem/norm"))
    for stage in (1, 2, 3):
        block, stride = f"backbone/stage_{stage}/block_00", 1 if stage == 1 else 2
        y = F.relu(norm(conv(x, f"{block}/conv_1", stride), f"{block}/norm_1"))
        y = norm(conv(y, f"{block}/conv_2"), f"{block}/norm_2")
        if stride == 2 and shortcut == "A":
            half = x.shape[1] // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
        elif stride == 2:
            x = norm(conv(x, f"{block}/shortcut_conv", 2, 0), f"{block}/shortcut_norm")
        x = F.relu(x + y)
    features = x.mean((2, 3))
    return F.linear(features, leaves["head/kernel"], leaves["head/bias"]), features


@pytest.mark.one_in(2)
@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize("train", [False, True])
def test_torch_agrees(shortcut, train):
    torch = pytest.importorskip("torch")
    model = resnet(8, num_classes=5, width=4, shortcut=shortcut)
    x = np.random.default_rng(0).normal(size=(4, 9, 8, 3)).astype(np.float32)
    params = leaf_values(jax.eval_shape(model.init, KEY, x))
    leaves = {name: to_torch(leaf) for name, leaf in named_leaves(params).items()}
    logits, features = torch_forward(torch, leaves, torch.from_numpy(x).permute(0, 3, 1, 2), shortcut, train)
    out = jax.jit(lambda params, x: model.apply(params, x, train=train))(params, x)
    np.testing.assert_allclose(out.features, features, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(out.logits, logits, rtol=1e-5, atol=1e-5)
    if not train:
        return
    n = {"stem": 4 * 9 * 8, "stage_1": 4 * 9 * 8, "stage_2": 4 * 5 * 4, "stage_3": 4 * 3 * 2}
    old = named_leaves(params)
    for name, new in named_leaves(out.stats).items():
        # torch's new variance is that of the sample, N / (N - 1) times the batch's
        size = n[name.split("/")[1]]
        expected = leaves[name].numpy()
        if name.endswith("var"):
            expected = 0.9 * old[name] + (expected - 0.9 * old[name]) * (size - 1) / size
        np.testing.assert_allclose(new, expected, rtol=1e-5, atol=1e-5, err_msg=name)


def test_errors_name_the_thing():
    with pytest.raises(ModelError, match="depth=21; expected 6n"):
        resnet(21)
    with pytest.raises(ModelError, match="shortcut='C'"):
        resnet(20, shortcut="C")
