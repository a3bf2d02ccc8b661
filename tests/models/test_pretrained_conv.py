"""Convolutional networks of transformers, timm, torchvision and plain torch, loaded and written by tljax alone.

The golden file holds their outputs; their weights are made from their names. See tests/golden/make_conv_models.py.
"""

import json

import jax
import numpy as np
import pytest
from golden_files import GOLDEN, script, write_case

import tljax as tl
from tljax.checkpoints import open_weights, read_weights
from tljax.checkpoints.convention import match_convention
from tljax.models.recognition import recognise
from tljax.tree import named_leaves

STORED = np.load(GOLDEN / "conv_models.npz")
CASES = list(dict.fromkeys(name.split("/")[0] for name in STORED))
TRANSFORMERS = [case for case in CASES if case.startswith("transformers")]
FAST = [
    "transformers resnet basic",
    "transformers convnext",
    "transformers mobilenet",
    "torchvision convnext",
    "torch wide resnet",
    "torch cifar resnet",
    "torch lenet",
]
FAMILY = {
    "transformers resnet": "imagenet_resnet",
    "transformers convnext": "convnext",
    "transformers mobilenet": "mobilenet_v1",
    "torchvision resnet": "imagenet_resnet",
    "torchvision convnext": "convnext",
    "timm resnet18": "imagenet_resnet",
    "timm convnext": "convnext",
    "timm mobilenet": "mobilenet_v1",
    "torch wide": "wide_resnet",
    "torch cifar": "cifar_resnet",
    "torch lenet": "lenet",
    "facebook convnext": "convnext",
}


def everyday(cases):
    """The parameters of a test: one case of each family, the others marked slow."""
    return [case if case in FAST else pytest.param(case, marks=pytest.mark.slow) for case in cases]


def written(case, folder):
    return write_case(STORED, case, folder)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("case", everyday(CASES))
def test_same_outputs_and_back_again(case, tmp_path):
    flat, about = written(case, tmp_path)
    model, params, report, config, convention = tl.load_pretrained(tmp_path)
    assert report.recognised.startswith(FAMILY[" ".join(case.split()[:2])])
    assert convention == {"torch lenet": "torch-fc", "timm resnet18": "torchvision"}.get(case, case.split()[0])
    assert not report.notes
    assert report.graft.leaves["reinitialised"] == report.graft.leaves["resized"] == 0

    x = script("made_weights").uniform("images", (2, *about["images"]))
    out = jax.jit(model.apply)(params, x)
    np.testing.assert_allclose(out.features, STORED[f"{case}/features"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(out.logits, STORED[f"{case}/logits"], rtol=0, atol=1e-5)

    again = tmp_path / "again"
    if config is not None:
        tl.export(model, params, again, config=config)
        assert reading(json.loads((again / "config.json").read_text())) == reading(config)
    else:
        again = tmp_path / "again.safetensors"
        tl.export(model, params, again, format="safetensors", convention=convention)
    leaves = read_weights(again).leaves
    assert set(leaves) == set(flat)
    for name, leaf in flat.items():
        np.testing.assert_array_equal(leaves[name], leaf, err_msg=name, strict=True)
    back = tl.load_pretrained(again).params
    jax.tree.map(np.testing.assert_array_equal, back, params)


def reading(config):
    """What config.json says of the network."""
    return {name: value for name, value in config.items() if name != "classifier_dropout_prob"}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("case", everyday(TRANSFORMERS))
def test_a_file_without_its_head(case, tmp_path):
    flat, about = written(case, tmp_path)
    base = next(name.split(".")[0] for name in flat if not name.startswith("classifier")) + "."
    bare = {name.removeprefix(base): leaf for name, leaf in flat.items() if name.startswith(base)}
    tl.save_weights(bare, tmp_path / "model.safetensors", separator=".")
    loaded = tl.load_pretrained(tmp_path, num_classes=3)
    assert loaded.convention == "transformers-base"
    assert loaded.report.notes == ("the file has no head: ours, for 3 classes, is initialised afresh",)
    assert jax.eval_shape(loaded.model.apply, loaded.params, np.zeros((1, *about["images"]), "f")).logits.shape == (
        1,
        3,
    )
    keymap = loaded.model.keymaps["transformers"]
    whole = keymap.export({**loaded.params, "head": tl.load_pretrained(tmp_path, num_classes=3).params["head"]})
    assert all(np.array_equal(whole[name], leaf) for name, leaf in flat.items() if name.startswith(base))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("case", CASES)
def test_names_alone_tell_the_architecture_too(case, tmp_path):
    flat, _ = written(case, tmp_path)
    (tmp_path / "config.json").unlink(missing_ok=True)
    file = open_weights(tmp_path)
    found = recognise(file, {})
    assert found.how.startswith(FAMILY[" ".join(case.split()[:2])])
    assert found.how.endswith("recognised by names and shapes")
    model = found.build(5)
    shapes = named_leaves(jax.eval_shape(model.init, jax.random.key(0), found.example))
    match = match_convention(model.keymaps, shapes, file.specs)
    leaves = match.binding.import_(flat).leaves
    assert {name: leaf.shape for name, leaf in leaves.items()} == {name: leaf.shape for name, leaf in shapes.items()}


@pytest.mark.parametrize("case", everyday(CASES))
@pytest.mark.filterwarnings("ignore")
def test_the_script_gives_what_is_stored(case):
    pytest.importorskip("torch")
    library = case.split()[0]
    if library in ("transformers", "timm", "torchvision"):
        pytest.importorskip(library)
    about, logits, features = script("make_conv_models").result(case)
    known = json.loads(str(STORED[f"{case}/about"]))
    assert json.loads(about)["shapes"] == known["shapes"]
    np.testing.assert_allclose(logits, STORED[f"{case}/logits"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(features, STORED[f"{case}/features"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", everyday(TRANSFORMERS))
@pytest.mark.filterwarnings("ignore")
def test_transformers_reads_what_was_exported(case, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    flat, _ = written(case, tmp_path)
    loaded = tl.load_pretrained(tmp_path)
    tl.export(loaded.model, loaded.params, tmp_path / "out")
    like = script("make_conv_models").CASES[case][0]()
    theirs, info = type(like).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    assert theirs.state_dict().keys() == flat.keys()
    for name, leaf in theirs.state_dict().items():
        assert torch.equal(leaf, torch.from_numpy(flat[name])), name
    ours, other = like.config.to_dict(), theirs.config.to_dict()
    differ = {key for key in ours if ours[key] != other.get(key)}
    assert differ <= {"_name_or_path", "architectures", "dtype", "classifier_dropout_prob"}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", ["transformers resnet basic", "transformers convnext"])
def test_grey_images_and_other_classes_are_told(name, tmp_path):
    written(name, tmp_path)
    example = jax.ShapeDtypeStruct((1, 32, 32, 1), np.float32)
    loaded = tl.load_pretrained(tmp_path, num_classes=7, example=example)
    text = str(loaded.report)
    assert "the head of the file has 5 classes, ours 7: ours is initialised afresh" in text
    assert "backbone/stem/conv/kernel is" in text
    assert text.count("by input_channels") == 2  # in the table and in the notes
    assert loaded.report.graft.names("resized") == ["backbone/stem/conv/kernel"]
    assert loaded.report.graft.names("reinitialised") == ["head/bias", "head/kernel"]
    assert named_leaves(loaded.params)["head/kernel"].shape[1] == 7
    assert jax.eval_shape(loaded.model.apply, loaded.params, example).logits.shape == (1, 7)
