"""Export: which convention, which configuration, and nothing half-written or overwritten."""

import json
import pathlib

import flax.linen as nn
import jax
import numpy as np
import pytest

import tljax as tl
from tljax.checkpoints import CheckpointError, read_weights
from tljax.checkpoints.keymap import Keymap, KeymapError, size
from tljax.checkpoints.layers import dense
from tljax.models import imagenet_resnet, resnet

X = np.zeros((1, 32, 32, 3), np.float32)


@pytest.fixture(scope="module")
def basic():
    model = imagenet_resnet((1, 1), num_classes=3, block="basic", widths=(4, 8), stem=4)
    return model, made(model)


def made(model, x=X):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def test_a_folder_for_transformers(basic, tmp_path):
    model, params = basic
    tl.export(model, params, tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["model_type"] == "resnet"
    assert config["num_channels"] == 3
    assert config["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
    leaves = read_weights(tmp_path / "out")
    assert leaves.report.metadata == {"format": "pt"}
    np.testing.assert_array_equal(leaves.leaves["classifier.1.weight"], params["head"]["kernel"].T)


def test_other_entries_of_config_stay_and_labels_if_they_are_as_many(basic, tmp_path):
    model, params = basic
    labels = {"0": "cat", "1": "dog", "2": "owl"}
    given = {"id2label": labels, "label2id": {"cat": 0}, "stem": "mine", "depths": [9, 9], "torch_dtype": "float16"}
    tl.export(model, params, tmp_path / "a", config=given)
    config = json.loads((tmp_path / "a/config.json").read_text())
    assert (config["id2label"], config["stem"], config["depths"]) == (labels, "mine", [1, 1])
    assert config["torch_dtype"] == "float32"  # what is in the file, not what was
    tl.export(model, params, tmp_path / "b", config={"id2label": {"0": "cat", "1": "dog"}})
    assert len(json.loads((tmp_path / "b/config.json").read_text())["id2label"]) == 3


def test_a_base_leaves_the_head_out(basic, tmp_path):
    model, params = basic
    tl.export(model, params, tmp_path / "base", convention="transformers-base")
    names = read_weights(tmp_path / "base").leaves
    assert "embedder.embedder.convolution.weight" in names
    assert not any(name.startswith("classifier") for name in names)
    assert json.loads((tmp_path / "base/config.json").read_text())["architectures"] == ["ResNetModel"]
    loaded = tl.load_pretrained(tmp_path / "base", num_classes=3)
    jax.tree.map(np.testing.assert_array_equal, loaded.params["backbone"], params["backbone"])


def test_files_of_torch_and_safetensors(basic, tmp_path):
    pytest.importorskip("torch")
    model, params = basic
    tl.export(model, params, tmp_path / "a.pt", format="torch", convention="torchvision")
    tl.export(model, params, tmp_path / "a.safetensors", format="safetensors", convention="torchvision")
    one, two = read_weights(tmp_path / "a.pt").leaves, read_weights(tmp_path / "a.safetensors").leaves
    assert one.keys() == two.keys() >= {"layer1.0.conv1.weight", "bn1.num_batches_tracked", "fc.bias"}
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_shards(basic, tmp_path):
    model, params = basic
    tl.export(model, params, tmp_path / "out", max_shard_size=2000)
    assert (tmp_path / "out/model.safetensors.index.json").exists()
    again = tl.load_pretrained(tmp_path / "out").params
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_nothing_is_overwritten_unasked(basic, tmp_path):
    model, params = basic
    tl.export(model, params, tmp_path)  # an empty folder will do
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="is not empty; write overwrite=True"):
        tl.export(model, params, tmp_path)
    assert (tmp_path / "notes.txt").exists()
    tl.export(model, params, tmp_path, overwrite=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    with pytest.raises(CheckpointError, match=r"config\.json is a file; expected the name of a folder"):
        tl.export(model, params, tmp_path / "config.json")


def test_a_failure_leaves_nothing_behind(basic, tmp_path, monkeypatch):
    model, params = basic
    tl.export(model, params, tmp_path / "out")
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_text", full_disk)  # the weights are written by then
    with pytest.raises(CheckpointError, match="No space left"):
        tl.export(model, params, tmp_path / "out", overwrite=True)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_errors_name_the_thing(basic, tmp_path):
    model, params = basic
    with pytest.raises(CheckpointError, match="format='onnx'; expected one of huggingface, safetensors, torch"):
        tl.export(model, params, tmp_path / "a", format="onnx")
    with pytest.raises(KeymapError, match="convention='keras'; resnet1-1 has 'transformers', 'transformers-base'"):
        tl.export(model, params, tmp_path / "a", convention="keras")
    with pytest.raises(KeymapError, match=r"has the keymaps .*; choose with convention="):
        tl.export(model, params, tmp_path / "a.safetensors", format="safetensors")
    with pytest.raises(KeymapError, match=r"convention='torchvision' says nothing for config\.json"):
        tl.export(model, params, tmp_path / "a", convention="torchvision")
    cifar = resnet(8, width=2)
    with pytest.raises(KeymapError, match=r"transformers has no resnet8 like this: .*with convention= one of 'torch'"):
        tl.export(cifar, made(cifar), tmp_path / "a")
    base = model._replace(keymaps={"base": model.keymaps["transformers-base"]})
    with pytest.raises(KeymapError, match="no place for the head of this resnet1-1; write convention='base'"):
        tl.export(base, params, tmp_path / "a")
    half = model._replace(keymaps={"half": Keymap(dense("head", "fc"), config={"model_type": "half"})})
    with pytest.raises(KeymapError, match=r"no rule for 'backbone/.* and .* more"):
        tl.export(half, params, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_config_values_may_come_from_the_leaves(tmp_path):
    model = tl.from_flax(nn.Dense(2))
    params = {"head": {"kernel": np.ones((3, 2), np.float32), "bias": np.zeros(2, np.float32)}}
    keymap = Keymap(dense("head", "fc"), config={"model_type": "line", "inputs": size("fc.weight", 1)})
    tl.export(model._replace(keymaps={"mine": keymap}), params, tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text()) == {"model_type": "line", "inputs": 3}
