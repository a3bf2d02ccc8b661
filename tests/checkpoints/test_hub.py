"""Names on the Hugging Face Hub, fetched from a server in miniature on this machine."""

import importlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import tljax as tl
from tljax.checkpoints import CheckpointError, open_weights, read_weights
from tljax.checkpoints.hub import HubName, parse
from tljax.cli import main
from tljax.data.text import load_tokenizer

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from hub_server import running

library = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")
close_session = (
    getattr(library, "close_session", None) or importlib.import_module("huggingface_hub.utils").reset_sessions
)
"""The second is its name before version 1."""
WEIGHTS = {"fc.weight": np.arange(6, dtype=np.float32).reshape(3, 2), "fc.bias": np.ones(3, np.float32)}


@pytest.fixture(scope="module")
def server():
    with running() as hub:
        yield hub


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """The server, forgetful, and a cache of its own for the test."""
    url = server.url
    server.__init__()
    server.url = url
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    close_session()  # one with the proxies of this environment may be open
    yield server
    close_session()


def offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()


def files_of(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def weights_file(folder, leaves=WEIGHTS, name="model.safetensors", **options):
    folder.mkdir(exist_ok=True, parents=True)
    tl.save_weights(leaves, folder / name, separator=".", **options)
    return files_of(folder)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hf://owner/name", ("owner/name", "main", "")),
        ("hf://bert-base-uncased", ("bert-base-uncased", "main", "")),
        ("hf://o/n@v1.0", ("o/n", "v1.0", "")),
        ("hf://o/n/sub/a.safetensors", ("o/n", "main", "sub/a.safetensors")),
        ("hf://o/n@refs/pr/7/a.npz", ("o/n", "refs/pr/7", "a.npz")),
        ("hf://o/n@feature%2Fx/a.npz", ("o/n", "feature/x", "a.npz")),
        (pathlib.Path("hf://o/n@v1"), ("o/n", "v1", "")),
    ],
)
def test_names(text, parts):
    assert parse(text) == HubName(*parts)


@pytest.mark.parametrize(
    "text", ["hf://", "hf:///n", "hf://o/n@", "hf://datasets/o/n", "hf://o/n/../../x", "hf://o n/x", "hf://o/n@a@b"]
)
def test_names_that_are_none(text):
    with pytest.raises(CheckpointError, match=r"is no model on the Hub; expected hf://owner/name or"):
        parse(text)


def test_only_what_is_needed_comes_and_the_report_says_which_commit(hub, tmp_path):
    small = {"config.json": b'{"model_type": "mine"}', "tokenizer.json": b"{}", "1_Pooling/config.json": b"{ }"}
    rest = {"pytorch_model.bin": b"never", "README.md": b"never", "onnx/model.onnx": b"never", "optimizer.pt": b"never"}
    sha = hub.commit("me/net", {**small, **rest, **weights_file(tmp_path / "a")})
    file = open_weights("hf://me/net")
    sent = hub.downloads()
    assert [name for name in sent if "." in name] == ["config.json", "config.json", "tokenizer.json"]
    assert len(sent) == 4  # large files come from elsewhere, by their hash
    assert file.config == {"model_type": "mine"}
    assert f"hf://me/net is commit {sha}" in file.report.notes
    assert "model.safetensors was read; pytorch_model.bin was not" in file.report.notes
    leaves = file.read().leaves
    assert all(np.array_equal(leaves[name], leaf) for name, leaf in WEIGHTS.items())
    open_weights("hf://me/net")
    assert hub.downloads() == []


def test_shards_of_an_index_and_bin_only_where_there_is_nothing_better(hub, tmp_path):
    shards = weights_file(tmp_path / "a", max_shard_size=24)
    assert len(shards) == 3
    hub.commit("me/sharded", shards | {"pytorch_model.bin": b"never", "model-00009-of-00009.safetensors": b"never"})
    leaves = read_weights("hf://me/sharded").leaves
    assert all(np.array_equal(leaves[name], leaf) for name, leaf in WEIGHTS.items())
    assert len(hub.downloads()) == 3
    pytest.importorskip("torch")
    binary = weights_file(tmp_path / "b", name="pytorch_model.bin")
    hub.commit("me/old", binary)
    assert tl.load_weights("hf://me/old")["fc"]["bias"].tolist() == [1, 1, 1]
    hub.commit("me/both", binary | weights_file(tmp_path / "c"))
    assert read_weights("hf://me/both", format="torch").report.format == "torch"


def test_files_and_folders_in_a_model(hub, tmp_path):
    files = weights_file(tmp_path / "a")
    inside = {f"vae/{name}": data for name, data in files.items()} | {"vae/config.json": b'{"of": "vae"}'}
    hub.commit("me/parts", inside | {"config.json": b'{"of": "all"}', "other.safetensors": files["model.safetensors"]})
    for name in ("hf://me/parts/vae", "hf://me/parts/vae/model.safetensors"):
        file = open_weights(name)
        assert file.config == {"of": "vae"}
        assert set(file.specs) == set(WEIGHTS)
    assert open_weights("hf://me/parts/other.safetensors").config == {"of": "all"}
    with pytest.raises(CheckpointError, match=r"hf://me/parts has no 'vea'; the nearest are "):
        open_weights("hf://me/parts/vea")
    hub.commit("me/none", {"config.json": b"{}", "notes.txt": b""})
    with pytest.raises(
        CheckpointError, match=r"hf://me/none holds no weights: expected model.safetensors, .* found config"
    ):
        open_weights("hf://me/none")


def test_revisions_are_pinned(hub, tmp_path):
    old = hub.commit("me/net", weights_file(tmp_path / "a"), ref="v1")
    new = hub.commit("me/net", weights_file(tmp_path / "a", {"fc.bias": np.zeros(2, np.float32)}))
    assert set(open_weights("hf://me/net").specs) == {"fc.bias"}
    for revision in ("v1", old):
        file = open_weights(f"hf://me/net@{revision}")
        assert set(file.specs) == set(WEIGHTS)
        assert f"hf://me/net@{revision} is commit {old}" in file.report.notes
    with pytest.raises(CheckpointError, match=r"hf://me/net@v2: the model has no revision 'v2'"):
        open_weights("hf://me/net@v2")
    assert old != new


def test_the_cache_serves_where_the_hub_cannot(hub, tmp_path, monkeypatch):
    shards = weights_file(tmp_path / "a", max_shard_size=24)
    sha = hub.commit("me/net", shards | {"config.json": b"{}", "README.md": b""})
    hub.commit("me/other", shards)
    first = read_weights("hf://me/net")
    hub.down = True
    again = read_weights("hf://me/net")
    assert "from the cache: the Hub could not be asked: HfHubHTTPError: " in again.report.notes[0]
    hub.down = False
    offline(monkeypatch)
    hub.asked.clear()
    for name in ("hf://me/net", f"hf://me/net@{sha}"):
        again = read_weights(name)
        assert again.report.path == first.report.path
        assert again.report.notes[0].endswith("from the cache: HF_HUB_OFFLINE forbids to ask the Hub")
    with pytest.raises(CheckpointError, match=r"hf://me/other is not in the cache, and HF_HUB_OFFLINE forbids"):
        read_weights("hf://me/other")
    shard = next(name for name in shards if "00001" in name)
    (pathlib.Path(first.report.path).parent / shard).unlink()
    with pytest.raises(CheckpointError, match=rf"hf://me/net: the cache lacks {shard}, and HF_HUB_OFFLINE"):
        read_weights("hf://me/net")
    assert not hub.asked


def test_what_is_not_there_or_not_for_us(hub, tmp_path, monkeypatch):
    files = weights_file(tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"hf://me/nothing: there is no such model .* HF_TOKEN"):
        open_weights("hf://me/nothing")
    hub.commit("me/gated", files)
    hub.gated.add("me/gated")
    with pytest.raises(CheckpointError, match=r"hf://me/gated is gated: accept its conditions"):
        open_weights("hf://me/gated")
    hub.commit("me/private", files)
    hub.private["me/private"] = "secret"
    with pytest.raises(CheckpointError, match="or it is private and needs a token"):
        open_weights("hf://me/private")
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert set(open_weights("hf://me/private").specs) == set(WEIGHTS)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(CheckpointError, match=r"is not in the cache, and the Hub could not be asked: Connect"):
        open_weights("hf://me/elsewhere")


def test_a_damaged_download_is_told(hub, tmp_path):
    index = json.dumps({"weight_map": {"fc.weight": "gone.safetensors"}}).encode()
    hub.commit("me/broken", {"model.safetensors.index.json": index})
    with pytest.raises(CheckpointError, match=r"1 of 1 shards are missing: gone\.safetensors"):
        open_weights("hf://me/broken")
    index = json.dumps({"weight_map": {"fc.weight": "../../evil.safetensors"}}).encode()
    hub.commit("me/evil", {"model.safetensors.index.json": index})
    with pytest.raises(CheckpointError, match=r"expected a file in the same folder"):
        open_weights("hf://me/evil")


def test_the_hub_is_not_written_to():
    with pytest.raises(CheckpointError, match="the Hub is read only here"):
        tl.save_weights(WEIGHTS, "hf://me/net/model.safetensors")


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'tljax\[hub\]'"):
        open_weights("hf://me/net")


def test_models_tokenizers_and_commands(hub, tmp_path, capsys):
    tokenizers = pytest.importorskip("tokenizers")
    model = tl.models.bert("tiny", 3, width=8, heads=2, depth=1, vocab=5, positions=8)
    shapes = tl.models.load_pretrained.__globals__["_shapes"](model, np.ones((1, 4), np.int32))
    params = tl.tree.map_named(lambda name, leaf: np.full(leaf.shape, 0.5, np.float32), shapes)
    tl.export(model, params, tmp_path / "out")
    words = {"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3, "c": 4}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.save(str(tmp_path / "out" / "tokenizer.json"))
    hub.commit("me/bert", files_of(tmp_path / "out"))
    tokenizer = load_tokenizer("hf://me/bert")
    assert not any("/blobs/" in path for _, path in hub.asked)  # a tokenizer does without the weights
    assert tokenizer(["a b"])["ids"][0, :3].tolist() == [2, 3, 0]
    loaded = tl.load_pretrained("hf://me/bert")
    assert np.array_equal(loaded.params["head"]["bias"], params["head"]["bias"])
    assert main(["inspect", "hf://me/bert"]) == 0
    assert "recognised by config.json" in capsys.readouterr().out
    assert main(["convert", "hf://me/bert", str(tmp_path / "bert.npz")]) == 0
    assert "classifier.bias" in np.load(tmp_path / "bert.npz")


@pytest.mark.slow
def test_the_environment_says_where(server, tmp_path):
    """A process as a user starts it: HF_ENDPOINT, HF_HOME, and then HF_HUB_OFFLINE."""
    server.down = False
    sha = server.commit("me/env", weights_file(tmp_path / "a"))
    code = "from tljax.checkpoints import open_weights as o; print(o('hf://me/env').report.notes[-1])"
    known = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1,localhost"}
    known |= {"PYTHONPATH": str(pathlib.Path(tl.__file__).parents[1]), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    for extra, expected in (({}, sha), ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE forbids")):
        env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | known | extra
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert expected in done.stdout
    assert (tmp_path / "home" / "hub" / "models--me--env" / "snapshots" / sha).is_dir()
