"""The CIFAR ResNet: published counts, torch's arithmetic, published checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.models import ModelError, resnet
from tljax.tree import count, from_named, leaf_names, map_named, named_leaves, select, split
from tljax.types import is_state

KEY = jax.random.key(0)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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


def from_published(state):
    """The tree of a checkpoint whose names are ``module.layer2.0.conv1.weight``."""
    names = {}
    for key, tensor in state.items():
        parts = key.removeprefix("module.").split(".")
        if parts[0] == "linear":
            where = "head"
        elif parts[0].startswith("layer"):
            layer = {"conv": "conv_", "bn": "norm_"}[parts[2][:-1]] + parts[2][-1]
            where = f"backbone/stage_{parts[0][-1]}/block_{int(parts[1]):02d}/{layer}"
        else:
            where = "backbone/stem/" + ("conv" if parts[0] == "conv1" else "norm")
        leaf = {"running_mean": "batch_stats/mean", "running_var": "batch_stats/var", "bias": "bias"}.get(parts[-1])
        if leaf is None and parts[-1] == "weight":
            leaf = "scale" if tensor.ndim == 1 else "kernel"
        if leaf:
            axes = {4: (2, 3, 1, 0), 2: (1, 0)}.get(tensor.ndim, (0,))
            names[f"{where}/{leaf}"] = jnp.asarray(tensor.numpy().transpose(axes))
    return from_named(names)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("depth", "file", "accuracy"),
    [
        (20, "resnet20-12fca82f.th", 0.9156),
        pytest.param(56, "resnet56-4bfd9763.th", 0.9286, marks=pytest.mark.slow),
    ],
)
def test_published_checkpoints(data_dir, depth, file, accuracy):
    torch = pytest.importorskip("torch")
    path = data_dir / "checkpoints/resnet_cifar10" / file
    params = from_published(torch.load(path, weights_only=True, map_location="cpu")["state_dict"])
    model = resnet(depth)
    shapes = jax.eval_shape(model.init, KEY, jnp.zeros((1, 32, 32, 3)))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
    images = np.load(data_dir / "images/cifar10.npz")
    mean, std = (np.array(v, np.float32).reshape(1, 1, 1, 3) for v in (IMAGENET_MEAN, IMAGENET_STD))
    apply = jax.jit(lambda params, x: model.apply(params, (x.astype(jnp.float32) / 255 - mean) / std).logits)
    x, y = images["test_x"], images["test_y"]
    predicted = np.concatenate([np.argmax(apply(params, x[i : i + 500]), 1) for i in range(0, len(x), 500)])
    assert round(float(np.mean(predicted == y)), 4) == accuracy


def test_errors_name_the_thing():
    with pytest.raises(ModelError, match="depth=21; expected 6n"):
        resnet(21)
    with pytest.raises(ModelError, match="shortcut='C'"):
        resnet(20, shortcut="C")
