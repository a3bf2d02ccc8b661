"""`tljax inspect`, `convert` and `models`."""

import pathlib

import numpy as np
import pytest

from tljax.checkpoints import read_weights, save_weights
from tljax.cli import main
from tljax.models import CATALOG
from tljax.tree import named_leaves


def resnet_like(folder: pathlib.Path) -> pathlib.Path:
    rng = np.random.default_rng(0)
    tree = {
        "layer1": {"0": {"weight": rng.normal(size=(4, 3)).astype("float16")}},
        "fc": {"bias": np.arange(3, dtype="int32")},
    }
    save_weights(tree, folder / "a.safetensors", separator=".")
    return folder / "a.safetensors"


def test_inspect_lists_every_leaf_and_the_groups(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["inspect", str(resnet_like(tmp_path))]) == 0
    text = capsys.readouterr().out
    assert "safetensors, 2 leaves, 15 elements" in text
    assert "no architecture that tljax knows" in text
    assert [line.split() for line in text.splitlines()[-2:]] == [
        ["fc.bias", "3", "int32"],
        ["layer1.0.weight", "4x3", "float16"],
    ]


@pytest.mark.parametrize("suffix", [".npz", ".msgpack", ".safetensors"])
def test_convert_keeps_names_and_values(suffix: str, tmp_path: pathlib.Path) -> None:
    source, target = resnet_like(tmp_path), tmp_path / f"b{suffix}"
    assert main(["convert", str(source), str(target)]) == 0
    before, after = (named_leaves(read_weights(file).tree) for file in (source, target))
    assert before.keys() == after.keys()
    for name, leaf in before.items():
        assert (leaf.dtype, leaf.tolist()) == (after[name].dtype, after[name].tolist())


def test_convert_replaces_nothing_unasked(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    source, target = resnet_like(tmp_path), tmp_path / "b.npz"
    target.write_bytes(b"precious")
    assert main(["convert", str(source), str(target)]) == 2
    assert "exists; give --force" in capsys.readouterr().err
    assert target.read_bytes() == b"precious"


def test_unreadable_files_are_one_message(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 20)
    assert main(["inspect", str(tmp_path / "a.safetensors")]) == 2
    assert capsys.readouterr().err.startswith("tljax: error: ")


def test_models_lists_the_catalogue(capsys: pytest.CaptureFixture) -> None:
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in CATALOG)
    assert "25,557,032" in text
