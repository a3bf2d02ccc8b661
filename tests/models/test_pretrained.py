"""load_pretrained: what it recognises, what it refuses, and that every difference is told."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tljax as tl
from tljax.checkpoints import CheckpointError
from tljax.checkpoints.keymap import Keymap, KeymapError
from tljax.checkpoints.layers import batch_norm, conv, counters, dense
from tljax.models import ModelError, lenet, resnet
from tljax.tree import GraftError, NoMatchError, head_rows, leaf_names, named_leaves

X = np.zeros((1, 8, 8, 3), np.float32)
MODEL = resnet(8, num_classes=4, width=2)


def made(model, x=X, dtype=np.float32):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(dtype), shapes)


def equal(a, b):
    return leaf_names(a) == leaf_names(b) and all(
        np.array_equal(x, y) for x, y in zip(named_leaves(a).values(), named_leaves(b).values())
    )


@pytest.fixture
def saved(tmp_path):
    """A small CIFAR ResNet as others would have saved it: path, leaves, our tree."""
    params = made(MODEL)
    flat = MODEL.keymaps["torch"].export(params)
    path = tmp_path / "small.safetensors"
    tl.save_weights(flat, path, separator=".")
    return path, flat, params


def resaved(path, flat):
    tl.save_weights(flat, path, separator=".")
    return path


def test_recognised_built_and_filled(saved):
    path, _, params = saved
    loaded = tl.load_pretrained(path)
    assert loaded.model.name == "resnet8"
    assert equal(loaded.params, params)
    assert (loaded.convention, loaded.config, loaded.report.notes) == ("torch", None, ())
    assert loaded.report.recognised.startswith("cifar_resnet(depth=8, width=2")
    assert loaded.report.graft.leaves["loaded"] == len(leaf_names(params))
    assert "names: torch" in str(loaded.report)
    out = jax.eval_shape(loaded.model.apply, loaded.params, X)
    assert out.logits.shape == (1, 4)


def test_a_given_model(saved):
    path, _, params = saved
    loaded = tl.load_pretrained(path, MODEL)
    assert loaded.model is MODEL
    assert equal(loaded.params, params)
    assert equal(tl.load_pretrained(path, MODEL, example=jnp.ones((5, 16, 16, 3))).params, params)
    with pytest.raises(ModelError, match="num_classes= is for an architecture that load_pretrained builds; resnet8"):
        tl.load_pretrained(path, MODEL, num_classes=4)
    with pytest.raises(ModelError, match="depth= is for an architecture"):
        tl.load_pretrained(path, MODEL, depth=8)


@pytest.mark.slow
def test_another_number_of_classes_is_told_and_the_head_afresh(saved):
    path, _, params = saved
    loaded = tl.load_pretrained(path, num_classes=7, key=jax.random.key(3))
    assert loaded.report.notes[0].startswith("the head of the file has 4 classes, ours 7: ours is initialised afresh")
    assert loaded.report.graft.names("reinitialised") == ["head/bias", "head/kernel"]
    assert equal(loaded.params["backbone"], params["backbone"])
    fresh = loaded.model.init(jax.random.key(3), jnp.zeros((1, 32, 32, 3)))
    assert equal(loaded.params["head"], fresh["head"])
    other = tl.load_pretrained(path, num_classes=7, key=jax.random.key(4))
    assert not equal(other.params["head"], fresh["head"])
    again = tl.load_pretrained(path, resnet(8, num_classes=7, width=2))
    assert again.report.notes == loaded.report.notes


def test_the_same_number_of_classes_keeps_the_head_unless_asked(saved):
    path, _, params = saved
    assert equal(tl.load_pretrained(path, num_classes=4).params, params)
    fresh = tl.load_pretrained(path, reinit="head/**")
    assert fresh.report.graft.names("reinitialised") == ["head/bias", "head/kernel"]
    assert not equal(fresh.params["head"], params["head"])


def test_head_rows_keep_the_classes_both_have(saved):
    path, _, params = saved
    rule = head_rows(["ant", "bee", "cat", "dog"], ["cat", "eel", "ant"])
    loaded = tl.load_pretrained(path, num_classes=3, resize={"head/**": rule})
    kernel, old = loaded.params["head"]["kernel"], params["head"]["kernel"]
    np.testing.assert_array_equal(kernel[:, 0], old[:, 2])
    np.testing.assert_array_equal(kernel[:, 2], old[:, 0])
    assert loaded.report.graft.names("resized") == ["head/bias", "head/kernel"]
    assert all("head_rows" in note for note in loaded.report.notes)
    assert len(loaded.report.notes) == 2


def test_other_channels_go_through_the_named_rule(saved):
    path, _, params = saved
    loaded = tl.load_pretrained(path, example=jnp.zeros((1, 8, 8)))
    kernel = loaded.params["backbone"]["stem"]["conv"]["kernel"]
    np.testing.assert_allclose(kernel[:, :, 0], params["backbone"]["stem"]["conv"]["kernel"].sum(2), rtol=1e-5)
    assert loaded.report.notes == ("backbone/stem/conv/kernel is [3, 3, 3, 2] -> [3, 3, 1, 2] by input_channels",)


@pytest.mark.parametrize("spec", ["backbone/stem/conv/kernel", "backbone/stem/**"])
def test_a_rule_of_ones_own_goes_before_the_architectures(saved, spec):
    path, _, _ = saved

    def ones(name, source, target):
        return np.ones(target.shape, np.float32)

    loaded = tl.load_pretrained(path, example=jnp.zeros((1, 8, 8, 1)), resize={spec: ones})
    assert np.all(loaded.params["backbone"]["stem"]["conv"]["kernel"] == 1)
    assert "by ones" in loaded.report.notes[0]


def test_a_rule_that_matches_nothing_is_an_error(saved):
    path, _, _ = saved
    with pytest.raises(NoMatchError, match="haed"):
        tl.load_pretrained(path, resize={"haed/**": head_rows(["a"], ["a"])})


def test_another_image_size_names_the_leaf(tmp_path):
    small = lenet(3, channels=(2, 4), hidden=5)
    params = made(small, np.zeros((1, 28, 28, 1), np.float32))
    path = resaved(tmp_path / "lenet.safetensors", small.keymaps["torch"].export(params))
    assert equal(tl.load_pretrained(path).params, params)
    with pytest.raises(GraftError, match=r"backbone/dense/kernel: source \[196, 5\], target \[256, 5\]"):
        tl.load_pretrained(path, example=jnp.zeros((1, 32, 32, 1)))
    any_size = tl.load_pretrained(path, example=jnp.zeros((1, 32, 32, 1)), grid=7)  # further options are passed on
    assert equal(any_size.params, params)


def test_half_precision_is_cast_and_told(saved):
    path, flat, _ = saved
    half = {name: leaf.astype(np.float16) if leaf.dtype == np.float32 else leaf for name, leaf in flat.items()}
    loaded = tl.load_pretrained(resaved(path, half))
    assert {str(leaf.dtype) for leaf in named_leaves(loaded.params).values()} == {"float32"}
    assert "float16 -> float32" in str(loaded.report)
    assert loaded.report.graft.leaves["cast"] == len(leaf_names(loaded.params))


@pytest.mark.parametrize("strict", [True, False])
def test_missing_and_unexpected_leaves(saved, strict):
    path, flat, params = saved
    del flat["layer1.0.bn1.weight"]
    flat["layer9.weight"] = np.ones(3, np.float32)
    resaved(path, flat)
    if strict:
        text = r"(?s)missing \(1\): 'layer1.0.bn1.weight'.*unexpected \(1\): 'layer9.weight'.*strict=False"
        with pytest.raises(KeymapError, match=text):
            tl.load_pretrained(path)
        return
    loaded = tl.load_pretrained(path, strict=False)
    assert loaded.report.missing == ("layer1.0.bn1.weight",)
    assert loaded.report.unexpected == ("layer9.weight",)
    assert loaded.report.graft.names("kept") == ["backbone/stage_1/block_00/norm_1/scale"]
    assert "missing in the file (1): 'layer1.0.bn1.weight'" in str(loaded.report)
    assert "unexpected in the file (1): 'layer9.weight'" in str(loaded.report)
    assert equal(loaded.params["head"], params["head"])


def test_wrong_shapes_are_errors_even_if_not_strict(saved):
    path, flat, _ = saved
    flat["layer1.0.conv1.weight"] = np.ones((2, 2, 5, 5), np.float32)
    resaved(path, flat)
    for strict in (True, False):
        with pytest.raises(GraftError, match=r"stage_1/block_00/conv_1/kernel: source \[5, 5, 2, 2\], target \[3, 3"):
            tl.load_pretrained(path, strict=strict)


def test_leaves_of_no_use_are_left_in_the_file(saved):
    path, flat, _ = saved
    keymap = MODEL.keymaps["torch"]
    ignoring = Keymap(keymap.rules, keymap.extras, ignored=(r"auxiliary\..*",))
    flat["auxiliary.weight"] = np.ones(3, np.float32)
    loaded = tl.load_pretrained(resaved(path, flat), MODEL._replace(keymaps={"torch": ignoring}), example=X)
    assert loaded.report.ignored == ("auxiliary.weight",)
    assert "ignored in the file (1): 'auxiliary.weight'" in str(loaded.report)


def test_an_unknown_architecture_lists_those_known(tmp_path):
    path = resaved(tmp_path / "a.safetensors", {"a.weight": np.ones((2, 3), np.float32)})
    text = r"no known architecture; the file begins with a.weight \[2, 3\]. Known are cifar_resnet, .*model=\.\.\."
    with pytest.raises(ModelError, match=text):
        tl.load_pretrained(path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "convnextv2"}))
    with pytest.raises(ModelError, match=r"config\.json says 'convnextv2'"):
        tl.load_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"shapes of inputs cannot be told.*example=jnp.zeros"):
        tl.load_pretrained(path, tl.from_flax(nn.Dense(2)))


def test_config_json_goes_before_names(saved):
    path, _, _ = saved  # the names are a CIFAR ResNet's, config.json says otherwise
    (path.parent / "config.json").write_text(json.dumps({"architecture": "resnet50d"}))
    with pytest.raises(ModelError, match=r"config\.json says 'resnet50d'"):
        tl.load_pretrained(path)
    (path.parent / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    with pytest.raises(KeymapError, match=r"(?s)missing \(65\): 'layer1.1.conv1.weight', .*unexpected \(2\): 'linear"):
        tl.load_pretrained(path)
    (path.parent / "config.json").write_text(json.dumps({"architecture": "resnet18", "model_args": {"aa": "blur"}}))
    with pytest.raises(ModelError, match="resnet18 with model_args"):
        tl.load_pretrained(path)
    (path.parent / "config.json").write_text(json.dumps({"learning_rate": 0.1}))  # of something else
    assert tl.load_pretrained(path).model.name == "resnet8"


def test_classes_that_config_json_tells_otherwise(saved):
    path, _, _ = saved
    model = tl.models.imagenet_resnet((1, 1), 3, block="basic", widths=(4, 8), stem=4)
    tl.export(model, made(model, np.zeros((1, 32, 32, 3), np.float32)), path.parent / "out")
    file = path.parent / "out/config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"id2label": {"0": "a", "1": "b"}}))
    loaded = tl.load_pretrained(path.parent / "out")
    assert loaded.params["head"]["bias"].shape == (3,)
    assert loaded.report.notes == ("config.json says 2 classes, the head of the file has 3",)


def test_values_that_are_no_numbers_are_told(saved):
    path, flat, _ = saved
    flat["bn1.bias"][0] = np.nan
    assert tl.load_pretrained(resaved(path, flat)).report.notes == ("NaN or inf in 'bn1.bias'",)


def test_wider_bottlenecks_and_groups_are_not_taken_for_resnet50(tmp_path):
    model = tl.models.imagenet_resnet((1, 1), 3, widths=(16, 32), stem=4)
    shapes = {n: v.shape for n, v in named_leaves(jax.eval_shape(model.init, jax.random.key(0), X)).items()}
    flat = model.keymaps["torchvision"].export({n: np.zeros(s, np.float32) for n, s in shapes.items()})
    assert tl.load_pretrained(resaved(tmp_path / "a.safetensors", flat)).model.name == "resnet1-1"
    for change in ({"layer1.0.conv2.weight": (4, 1, 3, 3)}, {"layer1.0.conv1.weight": (8, 4, 1, 1)}):
        other = flat | {name: np.zeros(shape, np.float32) for name, shape in change.items()}
        with pytest.raises(ModelError, match="no known architecture"):
            tl.load_pretrained(resaved(tmp_path / "b.safetensors", other))


def test_options_that_an_architecture_lacks(saved):
    path, _, _ = saved
    with pytest.raises(ModelError, match="cifar_resnet has no option 'widht'; it has depth, width, shortcut"):
        tl.load_pretrained(path, widht=3)
    with pytest.raises(CheckpointError, match="does not exist"):
        tl.load_pretrained(path.parent / "nothing.safetensors")


class Own(nn.Module):
    """Somebody's module, with names that no catalogue knows."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), name="first")(x)
        x = nn.BatchNorm(use_running_average=not train, name="normal")(x)
        return nn.Dense(3, name="out")(nn.relu(x).mean((1, 2)))


def test_a_keymap_for_ones_own_module(tmp_path):
    rules = (*conv("backbone/first", "net.0"), *batch_norm("backbone/normal", "net.1"), *dense("head", "fc"))
    model = tl.from_flax(Own())._replace(keymaps={"mine": Keymap(rules, counters(rules))})
    params = made(model)
    tl.export(model, params, tmp_path / "own.safetensors", format="safetensors")
    loaded = tl.load_pretrained(tmp_path / "own.safetensors", model, example=X)
    assert equal(loaded.params, params)
    assert loaded.report.recognised == "Own, as given"
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.BatchNorm2d(4))
    theirs = torch.nn.ModuleDict({"net": net, "fc": torch.nn.Linear(4, 3)}).eval()
    tl.save_weights({n: v.numpy() for n, v in theirs.state_dict().items()}, tmp_path / "theirs.pt")
    loaded = tl.load_pretrained(tmp_path / "theirs.pt", model, example=X)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    with torch.no_grad():
        expected = theirs["fc"](net(torch.from_numpy(x).permute(0, 3, 1, 2)).relu().mean((2, 3))).numpy()
    np.testing.assert_allclose(model.apply(loaded.params, x).logits, expected, rtol=0, atol=1e-5)


def test_a_file_needs_no_head_and_a_model_needs_no_source(saved):
    path, flat, params = saved
    bare = {name: leaf for name, leaf in flat.items() if not name.startswith("linear")}
    loaded = tl.load_pretrained(resaved(path, bare), MODEL, example=X)
    assert loaded.report.notes == ("the file has no head: ours, for 4 classes, is initialised afresh",)
    assert equal(loaded.params["backbone"], params["backbone"])
    half = bare | {"linear.bias": flat["linear.bias"]}  # half a head is a damaged file
    with pytest.raises(KeymapError, match=r"missing \(1\): 'linear.weight'"):
        tl.load_pretrained(resaved(path, half), MODEL, example=X)
