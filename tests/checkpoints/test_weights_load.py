"""Telling formats apart, folders, names, selectors and the report."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from tljax.checkpoints import CheckpointError, load_weights, nest, open_weights, read_weights, save_weights
from tljax.tree import NoMatchError, named_leaves

TREE = {
    "encoder": {"layer_2": {"kernel": np.ones((2, 3), np.float32), "bias": np.zeros(3)}},
    "head": {"bias": np.ones(1)},
}


def same(a, b):
    a, b = named_leaves(a), named_leaves(b)
    return a.keys() == b.keys() and all(a[name].tobytes() == np.asarray(b[name]).tobytes() for name in a)


# ----------------------------------------------------------------------------------------------- which format


@pytest.mark.parametrize("format", ["safetensors", "npz", "msgpack"])
@pytest.mark.parametrize("suffix", ["", ".bin", ".npz", ".msgpack", ".safetensors", ".pt"])
def test_the_content_tells_the_format_whatever_the_suffix(tmp_path, format, suffix):
    save_weights(TREE, tmp_path / f"weights{suffix}", format=format)
    weights = read_weights(tmp_path / f"weights{suffix}")
    assert same(weights.tree, TREE)
    assert weights.report.format == format
    promised = {".bin": "torch", ".pt": "torch"}.get(suffix, suffix[1:])
    note = f"the suffix {suffix} promises {promised}; the content is {format}"
    assert weights.report.notes == (() if promised in ("", format) else (note,))


FOREIGN = [
    (b"", "the file is empty"),
    (b"\x93NUMPY\x01\x00", "a single .npy array without a name"),
    (b"\x89HDF\r\n\x1a\n", "is HDF5"),
    (b"GGUF\x03", "is GGUF"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "a Git LFS pointer, not the weights themselves"),
    (b"<!DOCTYPE html>", "is a web page"),
    (b"\x1f\x8b\x08", "is gzip"),
    (b"\x80\x04\x95", "a bare pickle, which could run code"),
    (bytes(257) + b"ustar", "is a tar archive"),
    (b"PK\x05\x06" + bytes(18), "there are no arrays in it"),
    (b"PK\x03\x04 not really", "reading the zip archive failed"),
    (b"hello", "begins with b'hello'; expected safetensors, npz, flax msgpack or torch"),
    (b"\x00", "begins with"),
]


@pytest.mark.parametrize(("content", "message"), FOREIGN, ids=[message for _, message in FOREIGN])
@pytest.mark.parametrize("name", ["weights", "weights.npz", "weights.msgpack"])
def test_what_else_a_file_may_be(tmp_path, content, message, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_weights(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))


@pytest.mark.parametrize("content", [b"", b"short", b"\0" * 100, b"\xff" * 100])
def test_a_broken_safetensors_file_is_called_that(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"truncated, or no safetensors file|the file is empty"):
        load_weights(tmp_path / "w.safetensors")


def test_an_unknown_format_argument(tmp_path):
    save_weights(TREE, tmp_path / "w.npz")
    with pytest.raises(
        CheckpointError, match="format='pickle'; expected one of safetensors, npz, msgpack, torch, orbax"
    ):
        load_weights(tmp_path / "w.npz", format="pickle")
    with pytest.raises(CheckpointError, match="the header claims"):
        load_weights(tmp_path / "w.npz", format="safetensors")
    with pytest.raises(CheckpointError, match="is a file; orbax is not read from one"):
        load_weights(tmp_path / "w.npz", format="orbax")


def test_a_file_that_is_not_there(tmp_path):
    save_weights(TREE, tmp_path / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"modle.safetensors does not exist; nearest in .*: \"model.safetensors\""
    ):
        load_weights(tmp_path / "modle.safetensors")
    with pytest.raises(CheckpointError, match="does not exist, nor does the folder"):
        load_weights(tmp_path / "nowhere" / "model.safetensors")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "w.safetensors")
    for path in (tmp_path / "w.safetensors", "/dev/zero"):
        with pytest.raises(CheckpointError, match="is neither a file nor a folder"):
            load_weights(path)


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "iterdir", refuse)
    with pytest.raises(CheckpointError, match="failed: Permission denied"):
        load_weights(tmp_path)


# ------------------------------------------------------------------------------------------------ folders, shards


def hugging_face(folder: pathlib.Path, name="model.safetensors", **kwargs) -> pathlib.Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "bert", "hidden_size": 4}')
    (folder / "README.md").write_text("# A model")
    save_weights(TREE, folder / name, separator=".", **kwargs)
    return folder


def test_a_hugging_face_folder(tmp_path):
    file = open_weights(hugging_face(tmp_path / "m"))
    assert file.config == {"model_type": "bert", "hidden_size": 4}
    assert set(file.specs) == {"encoder.layer_2.kernel", "encoder.layer_2.bias", "head.bias"}
    assert same(file.read().tree, TREE)
    assert file.report.path == str(tmp_path / "m" / "model.safetensors")


def test_safetensors_are_preferred_and_the_report_says_so(tmp_path):
    folder = hugging_face(tmp_path / "m")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02")
    weights = read_weights(folder)
    assert weights.report.notes == ("model.safetensors was read; pytorch_model.bin was not",)
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin"):
        read_weights(folder, format="torch")
    with pytest.raises(CheckpointError, match=r"holds no weights.*found README.md, config.json, model.safetensors"):
        read_weights(folder, format="npz")


def test_the_only_weight_file_of_a_folder(tmp_path):
    hugging_face(tmp_path / "m", "vit.npz", format="npz")
    assert same(load_weights(tmp_path / "m"), TREE)
    save_weights(TREE, tmp_path / "m" / "other.npz")
    with pytest.raises(
        CheckpointError, match=r"several weight files, give the path of one: \['other.npz', 'vit.npz'\]"
    ):
        load_weights(tmp_path / "m")


def test_one_format_of_several_and_no_optimiser(tmp_path):
    folder = hugging_face(tmp_path / "m", "open_clip_model.safetensors")
    for name in ("open_clip_pytorch_model.bin", "optimizer.pt", "rng_state_0.pth", "training_args.bin"):
        (folder / name).write_bytes(b"not read")
    assert read_weights(folder).report.path == str(folder / "open_clip_model.safetensors")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"open_clip_pytorch_model.bin begins with b'not read'"):
        read_weights(folder)


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no weights: expected model.safetensors.* found no files"):
        load_weights(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(CheckpointError, match=r"found notes.txt"):
        load_weights(tmp_path)
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_weights(tmp_path)


def test_a_config_that_is_no_json(tmp_path):
    (hugging_face(tmp_path / "m") / "config.json").write_text("{")
    file = open_weights(tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"config.json: reading the JSON failed"):
        _ = file.config
    assert same(file.read().tree, TREE)  # the weights do not depend on it
    (tmp_path / "m" / "config.json").unlink()
    assert file.config is None


@pytest.fixture
def sharded(tmp_path):
    folder = hugging_face(tmp_path / "m", max_shard_size=25, metadata={"format": "pt"})
    names = sorted(file.name for file in folder.glob("*.safetensors"))
    assert names == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    return folder


def edit_index(folder, change):
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    change(index)
    file.write_text(json.dumps(index))


@pytest.mark.parametrize("name", ["", "model.safetensors", "model.safetensors.index.json"])
def test_shards_are_read_by_folder_by_index_and_by_the_name_they_were_saved_as(sharded, name):
    weights = read_weights(sharded / name)
    assert same(weights.tree, TREE)
    assert weights.report.notes == ("3 shards",)
    assert weights.report.metadata == {"format": "pt"}


def test_only_the_shards_of_the_selected_leaves_are_read(sharded):
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    other = index["weight_map"]["head.bias"]
    data = bytearray((sharded / other).read_bytes())
    assert read_weights(sharded, select="encoder/**").report.not_selected == 1
    (sharded / other).write_bytes(data[:-1])
    with pytest.raises(CheckpointError, match=other):
        load_weights(sharded, select="encoder/**")  # the header of every shard is proved all the same


def test_a_missing_shard(sharded):
    (sharded / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"1 of 3 shards are missing: model-00002-of-00003.safetensors"):
        load_weights(sharded)


def test_a_folder_in_place_of_a_shard(sharded):
    (sharded / "model-00002-of-00003.safetensors").unlink()
    (sharded / "model-00002-of-00003.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="1 of 3 shards are missing"):
        load_weights(sharded)


@pytest.mark.parametrize(
    "shard",
    ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "a\\b", "..", ".", "", 3, None, "x\0.safetensors"],
)
def test_an_index_that_leads_out_of_the_folder(sharded, shard):
    save_weights(TREE, sharded.parent / "secret.safetensors", separator=".")
    edit_index(sharded, lambda index: index["weight_map"].update({"head.bias": shard}))
    with pytest.raises(CheckpointError, match=r"is said to stand in .*; expected a file in the same folder"):
        load_weights(sharded)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.pop("weight_map"), "weight_map is None"),
        (lambda index: index.update(weight_map={}), "weight_map is {}"),
        (lambda index: index.update(weight_map=["a"]), "weight_map is "),
        (
            lambda index: index["weight_map"].update(gone="model-00001-of-00003.safetensors"),
            "'gone' should be in model-00001",
        ),
        (
            lambda index: index["weight_map"].update({"head.bias": "model-00001-of-00003.safetensors"}),
            "'head.bias' should be in",
        ),
        (lambda index: index["weight_map"].update({"x": "model.safetensors.index.json"}), "begins with b'{"),
    ],
)
def test_an_index_that_lies(sharded, change, message):
    edit_index(sharded, change)
    with pytest.raises(CheckpointError, match=message):
        load_weights(sharded)


def test_an_index_that_names_less_than_there_is(sharded):
    edit_index(sharded, lambda index: index["weight_map"].pop("head.bias"))
    assert read_weights(sharded).report.notes == (
        "2 shards",
        "the index promises 56 bytes; its leaves have 48",
        "2 of 3 shards are in the index",
    )


def test_shards_in_torch_files(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a.w": torch.ones(2)}, tmp_path / "pytorch_model-00001-of-00002.bin")
    torch.save({"b.w": torch.zeros(3)}, tmp_path / "pytorch_model-00002-of-00002.bin")
    weight_map = {f"{x}.w": f"pytorch_model-0000{i}-of-00002.bin" for i, x in ((1, "a"), (2, "b"))}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert same(load_weights(tmp_path), {"a": {"w": np.ones(2, np.float32)}, "b": {"w": np.zeros(3, np.float32)}})


def test_saving_again_in_another_number_of_shards(tmp_path):
    path = tmp_path / "model.safetensors"
    for size in (None, 25, None, 40):
        tree = {**TREE, "head": {"bias": np.full(1, float(size or 0))}}
        save_weights(tree, path, max_shard_size=size)
        assert same(load_weights(path), tree)
        assert same(load_weights(tmp_path), tree)
        shards = len(list(tmp_path.glob("model-*")))
        assert shards == {None: 0, 25: 3, 40: 2}[size]  # no stale ones


# --------------------------------------------------------------------------------------------------------- names


def test_selecting_by_tree_names_in_a_torch_layout(tmp_path):
    save_weights(TREE, tmp_path / "w.safetensors", separator=".")
    weights = read_weights(tmp_path / "w.safetensors", select="**/bias")
    assert set(weights.leaves) == {"encoder.layer_2.bias", "head.bias"}
    assert weights.tree.keys() == {"encoder", "head"}
    with pytest.raises(NoMatchError, match=r"the nearest are .*encoder/layer_2/bias"):
        read_weights(tmp_path / "w.safetensors", select="encoder/layer_2/bais")


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".msgpack", ".orbax"])
def test_the_tree_comes_back(tmp_path, suffix):
    tree = {**TREE, "layer_10": {"dotted.key": np.ones(2)}, "layer_9": {"3": np.zeros(1)}}
    save_weights(tree, tmp_path / f"w{suffix}")
    assert same(load_weights(tmp_path / f"w{suffix}"), tree)
    assert list(load_weights(tmp_path / f"w{suffix}"))[-2:] == ["layer_9", "layer_10"]


def test_the_whole_file_as_it_is(tmp_path):
    save_weights({"params": TREE}, tmp_path / "w.msgpack")
    assert same(load_weights(tmp_path / "w.msgpack"), TREE)
    assert same(load_weights(tmp_path / "w.msgpack", root=""), {"params": TREE})
    assert same(load_weights(tmp_path / "w.msgpack", root="params/encoder"), TREE["encoder"])


def test_names_that_cannot_nest():
    with pytest.raises(CheckpointError, match=r"f: 'a' is a leaf, so 'a/b' cannot stand under it"):
        nest({"a": 1, "a.b": 2}, ".", "f")


# -------------------------------------------------------------------------------------------------------- report


def test_the_report(tmp_path, capsys):
    tree = {"w": np.array([[1, np.nan], [np.inf, 0]], np.float32), "n": np.arange(3), "b": np.ones(2)}
    save_weights({"model": tree, "optimizer": {"m": np.ones(1)}, "step": np.int32(4)}, tmp_path / "w.npz")
    load_weights(tmp_path / "w.npz", select="[wn]", report=print)
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/w.npz: npz, 2 leaves, 7 elements, 40 bytes",
        "  dtype       int64: 1 leaf, 3 elements",
        "  dtype       float32: 1 leaf, 4 elements",
        "  unwrapped   model",
        "  left out    optimizer: optimiser state (1 array)",
        "  left out    step: bookkeeping (1 array)",
        "  unselected  1 leaf",
        "  NaN or inf  w: 2 elements",
    ]


def test_a_long_report_is_cut_and_safe_to_print(tmp_path):
    save_weights({"\x1b[31m" + str(i): np.array([np.nan]) for i in range(50)}, tmp_path / "w.npz")
    weights = read_weights(tmp_path / "w.npz")
    lines = str(weights.report).splitlines()
    assert lines[-1] == "  NaN or inf  ... and 30 more"
    assert all(line.isprintable() for line in lines)
    assert len(weights.report.nonfinite) == 50


def test_opening_reads_no_array(tmp_path):
    save_weights(TREE, tmp_path / "w.safetensors")
    data = (tmp_path / "w.safetensors").read_bytes()
    n = 8 + int.from_bytes(data[:8], "little")
    file = open_weights(tmp_path / "w.safetensors")
    shutil.copy(tmp_path / "w.safetensors", tmp_path / "copy")
    (tmp_path / "w.safetensors").write_bytes(data[:n] + bytes(len(data) - n))
    assert file.report.leaves == 3
    with pytest.raises(CheckpointError, match="the file changed after its header was read"):
        file.read()


def test_links_that_lead_nowhere_are_called_so(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "model.npz").symlink_to(tmp_path / "gone.npz")
    for name, target in (("loop", "loop"), ("model.npz", "gone.npz")):
        with pytest.raises(CheckpointError, match=rf"{name} is a link that leads nowhere: to .*{target}$"):
            load_weights(tmp_path / name)


def test_weights_one_folder_down_are_named(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "config.json").write_text("{}")
    save_weights({"a": np.ones(2, np.float32)}, tmp_path / "inner" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"found config.json, inner/.*; give the path of one, as .*inner/model"):
        load_weights(tmp_path)
