"""Published checkpoints through load_pretrained alone: their accuracies, and logits of an independent forward pass."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tljax as tl
from tljax.checkpoints import read_weights
from tljax.tree import named_leaves

pytestmark = pytest.mark.real_data
MEAN, STD = (np.array(v, np.float32).reshape(1, 1, 1, 3) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
FILES = {
    "resnet20": "resnet_cifar10/resnet20-12fca82f.th",
    "resnet56": "resnet_cifar10/resnet56-4bfd9763.th",
    "mobilenet": "mobilenetv1_025/mobilenetV1X0.25_pretrain.tar",
    "lenet": "lenet_mnist/mnist_lenet5_clntrained.pt",
}


def loaded(data_dir, name):
    pytest.importorskip("torch")
    found = tl.load_pretrained(data_dir / "checkpoints" / FILES[name])
    assert found.report.notes == found.report.missing == found.report.unexpected == ()
    assert found.report.graft.leaves["loaded"] + found.report.graft.leaves["renamed"] == len(named_leaves(found.params))
    return found


def logits_of(found, x, batch):
    apply = jax.jit(lambda params, x: found.model.apply(params, x).logits)
    return np.concatenate([apply(found.params, jnp.asarray(x[i : i + batch])) for i in range(0, len(x), batch)])


def reference(data_dir, name):
    stored = np.load(data_dir / "references/logits/logits.npz")
    return next(stored[key] for key in stored if key.startswith(name))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "accuracy"), [("resnet20", 0.9156), pytest.param("resnet56", 0.9286, marks=pytest.mark.slow)]
)
def test_cifar_resnets(data_dir, name, accuracy):
    images = np.load(data_dir / "images/cifar10.npz")
    x = (images["test_x"].astype(np.float32) / 255 - MEAN) / STD
    logits = logits_of(loaded(data_dir, name), x, 500)
    np.testing.assert_allclose(logits[:64], reference(data_dir, name), rtol=0, atol=2e-4)
    assert round(float(np.mean(logits.argmax(1) == images["test_y"])), 4) == accuracy


def test_lenet(data_dir):
    test = np.load(data_dir / "digits/mnist_test.npz")
    logits = logits_of(loaded(data_dir, "lenet"), test["x"].astype(np.float32)[..., None] / 255, 1000)
    np.testing.assert_allclose(logits[:64], reference(data_dir, "lenet"), rtol=0, atol=1e-4)
    assert round(float(np.mean(logits.argmax(1) == test["y"])), 4) == 0.9889


def photo(path):
    """As the checkpoint was evaluated: the shorter side to 256 pixels, bilinear, then the centre, 224x224."""
    image = pytest.importorskip("PIL.Image").open(path).convert("RGB")
    width, height = image.size
    scale = 256 / min(width, height)
    image = image.resize((256, int(height * scale)) if width <= height else (int(width * scale), 256), 2)
    left, top = round((image.width - 224) / 2), round((image.height - 224) / 2)
    return np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255


@pytest.mark.slow
def test_mobilenet(data_dir):
    folder = data_dir / "images/imagenet_sample"
    with open(folder / "labels.tsv", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file, delimiter="\t") if row[1].isdigit()]
    x = (np.stack([photo(folder / row[0]) for row in rows]) - MEAN) / STD
    y = np.array([int(row[1]) for row in rows])
    logits = logits_of(loaded(data_dir, "mobilenet"), x, 25)
    np.testing.assert_allclose(logits[:16], reference(data_dir, "mobilenet"), rtol=0, atol=2e-4)
    best = np.argsort(-logits, 1)[:, :5]
    assert np.mean(best[:, 0] == y) == pytest.approx(0.512)
    assert np.mean(np.any(best == y[:, None], 1)) == pytest.approx(0.768)


@pytest.mark.parametrize(
    "name", [name if name == "lenet" else pytest.param(name, marks=pytest.mark.slow) for name in FILES]
)
def test_there_and_back_is_the_same_to_the_bit(data_dir, tmp_path, name):
    found = loaded(data_dir, name)
    path = tmp_path / "back.pt"
    tl.export(found.model, found.params, path, format="torch", convention=found.convention)
    old, new = read_weights(data_dir / "checkpoints" / FILES[name]).leaves, read_weights(path).leaves
    for leaf, value in old.items():
        if not leaf.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(new[leaf], value, err_msg=leaf, strict=True)
    assert all(leaf.endswith("num_batches_tracked") for leaf in set(new) - set(old))
    again = tl.load_pretrained(path)
    jax.tree.map(np.testing.assert_array_equal, again.params, found.params)
