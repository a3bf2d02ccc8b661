"""Files that torch writes, in both containers, and files that torch should never be given."""

import argparse
import io
import pathlib
import pickle
import re
import sys
import zipfile
from collections import OrderedDict

import jax.numpy as jnp
import numpy as np
import pytest

from tljax.checkpoints import CheckpointError, load_weights, read_weights, save_weights
from tljax.checkpoints.pickles import follow

torch = pytest.importorskip("torch")
CONTAINERS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def save(content, path, zipped=True):
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def bits(tensor):
    return tensor.detach().contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


@CONTAINERS
def test_every_dtype(tmp_path, zipped):
    raw = torch.arange(64, dtype=torch.uint8)
    integers = ["int64", "int32", "int16", "int8", "uint8"]
    names = ["float64", "float32", "float16", "bfloat16", "complex64", "complex128", *integers]
    state = {name: raw.view(getattr(torch, name)).clone() for name in names}
    state |= {"bool": raw > 3, "scalar": torch.tensor(3.0), "empty": torch.zeros(0, 3)}
    if zipped:  # the legacy container has no storage class for these
        state |= {name: raw.view(getattr(torch, name)).clone() for name in ("float8_e4m3fn", "float8_e5m2", "uint16")}
    found = read_weights(save(state, tmp_path / "w.pt", zipped)).leaves
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].shape == tuple(tensor.shape)
        assert found[name].dtype.name == str(tensor.dtype).removeprefix("torch.")
        assert found[name].tobytes() == (bits(tensor) if tensor.dim() else tensor.numpy().tobytes())


@CONTAINERS
def test_views_parameters_and_tied_weights(tmp_path, zipped):
    base = torch.arange(12.0).reshape(3, 4)
    state = OrderedDict(base=base, tied=base, transposed=base.t(), row=base[1], column=base[:, 2])
    state |= {"expanded": torch.ones(1, 3).expand(4, 3), "parameter": torch.nn.Parameter(base * 2)}
    found = load_weights(save(state, tmp_path / "w.bin", zipped))
    for name, tensor in state.items():
        np.testing.assert_array_equal(found[name], tensor.detach().numpy(), strict=True)


@CONTAINERS
def test_a_training_checkpoint(tmp_path, zipped):
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    moments = {"step": torch.tensor(1.0), "exp_avg": torch.ones(2, 3), "exp_avg_sq": torch.ones(2, 3)}
    groups = [{"lr": 0.1, "betas": (0.9, 0.999), "params": [0, 1]}]
    content = {
        "epoch": 7,
        "args": argparse.Namespace(lr=0.1, out=pathlib.Path("x")),
        "best": np.float64(0.5),
        "model": {f"module._orig_mod.{name}": value for name, value in model.state_dict().items()},
        "model_ema": model.state_dict(),
        "optimizer": {"state": {0: moments, 1: moments}, "param_groups": groups},
        "rng_state": torch.get_rng_state(),
        "best_acc1": torch.tensor(91.5),
    }
    weights = read_weights(save(content, tmp_path / "w.tar", zipped))
    assert set(weights.leaves) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(weights.leaves[name], tensor.numpy(), strict=True)
    assert weights.report.unwrapped == ("model", "module.", "_orig_mod.")
    left_out = dict(weights.report.left_out)
    assert left_out.pop("best").startswith("numpy.")
    assert left_out == {
        "model_ema": "averaged copy (7 arrays)",
        "optimizer": "optimiser state (6 arrays)",
        "rng_state": "bookkeeping (1 array)",
        "best_acc1": "bookkeeping (1 array)",
        "epoch": "7",
        "args": "argparse.Namespace",
    }
    averaged = read_weights(tmp_path / "w.tar", root="model_ema")
    assert set(averaged.leaves) == set(model.state_dict())


def test_the_tree_nests_at_dots(tmp_path):
    save({"layer1.0.weight": torch.ones(2), "fc.bias": torch.zeros(1)}, tmp_path / "w.pth")
    tree = load_weights(tmp_path / "w.pth", select="layer1/**")
    assert tree["layer1"]["0"]["weight"].tolist() == [1.0, 1.0]
    assert set(tree) == {"layer1"}


def test_names_with_slashes_nest_at_slashes(tmp_path):
    save({"model": {"block1.0/conv/kernel": torch.ones(1), "head/bias": torch.zeros(1)}}, tmp_path / "w.pt")
    assert load_weights(tmp_path / "w.pt").keys() == {"block1.0", "head"}


def test_tensors_of_another_device_are_read(tmp_path):
    save({"w": torch.ones(2)}, tmp_path / "w.pt", zipped=False)
    data = (tmp_path / "w.pt").read_bytes()
    assert data.count(b"X\x03\x00\x00\x00cpu") == 1
    (tmp_path / "w.pt").write_bytes(data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:7"))
    assert load_weights(tmp_path / "w.pt")["w"].tolist() == [1.0, 1.0]


def test_saving_for_torch(tmp_path):
    tree = {"fc": {"weight": jnp.ones((2, 3), jnp.bfloat16), "n": np.int64(3)}, "f8": jnp.ones(2, jnp.float8_e5m2)}
    save_weights(tree, tmp_path / "w.pt")
    found = torch.load(tmp_path / "w.pt", weights_only=True)
    assert {name: (t.dtype, tuple(t.shape)) for name, t in found.items()} == {
        "fc.weight": (torch.bfloat16, (2, 3)),
        "fc.n": (torch.int64, ()),
        "f8": (torch.float8_e5m2, (2,)),
    }
    assert found["fc.weight"].sum() == 6
    assert load_weights(tmp_path / "w.pt")["fc"]["weight"].dtype == jnp.bfloat16


def test_without_torch_one_error_names_the_extra(tmp_path, monkeypatch):
    save({"w": torch.ones(2)}, tmp_path / "w.pt")
    monkeypatch.setitem(sys.modules, "torch", None)
    for action in (lambda: load_weights(tmp_path / "w.pt"), lambda: save_weights({"w": np.ones(1)}, tmp_path / "v.pt")):
        with pytest.raises(CheckpointError, match=r"pip install 'tljax\[torch\]'"):
            action()
    assert [file.name for file in tmp_path.iterdir()] == ["w.pt"]


# ---------------------------------------------------------------------------------------------- code in a pickle


class Evil:
    def __reduce__(self):
        return (open, ("evil-was-here", "w"))


@CONTAINERS
def test_a_pickle_that_would_run_code_does_not(tmp_path, zipped, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save({"w": torch.ones(2), "evil": Evil()}, "w.pt", zipped)
    with pytest.raises(CheckpointError, match=r"the pickle calls .*open, which could run code"):
        load_weights("w.pt")
    assert not (tmp_path / "evil-was-here").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_a_bare_pickle_is_never_read(tmp_path, protocol, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("w.pt", "w.npz", "w.msgpack", "w.safetensors", "w"):
        (tmp_path / name).write_bytes(pickle.dumps({"w": Evil()}, protocol))
        with pytest.raises(CheckpointError):
            load_weights(name)
        for format in ("torch", "npz", "msgpack", "safetensors"):
            with pytest.raises(CheckpointError):
                load_weights(name, format=format)
    assert not (tmp_path / "evil-was-here").exists()


@CONTAINERS
@pytest.mark.parametrize(
    "name", ["builtins\nbytearray", "torch\nTensor", "torch._utils\n_rebuild_sparse_tensor", "os\nsystem"]
)
def test_calls_that_torch_would_allow_or_not(tmp_path, zipped, name):
    save({"w": torch.ones(2)}, tmp_path / "w.pt", zipped)
    edit_pickle(tmp_path / "w.pt", lambda data: data.replace(b"collections\nOrderedDict", name.encode()))
    with pytest.raises(CheckpointError, match=f"the pickle calls {re.escape(name.replace(chr(10), '.'))}"):
        load_weights(tmp_path / "w.pt")


def edit_pickle(path, change):
    """Change the pickled content of a torch file in either container."""
    data = path.read_bytes()
    if not zipfile.is_zipfile(path):
        assert change(data) != data
        path.write_bytes(change(data))
        return
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, change(content) if name.endswith("data.pkl") else content)


@CONTAINERS
def test_a_storage_that_is_longer_than_its_bytes(tmp_path, zipped):
    save({"w": torch.ones(6)}, tmp_path / "w.pt", zipped)
    edit_pickle(tmp_path / "w.pt", lambda data: re.sub(rb"(?<=cpuq.K)\x06", b"\xff", data, flags=re.DOTALL))
    with pytest.raises(CheckpointError, match=r"storage .* has 24 bytes; its tensors need 1020"):
        load_weights(tmp_path / "w.pt")


def test_a_storage_that_legacy_torch_would_leave_uninitialised(tmp_path):
    save({"v": torch.ones(6), "w": torch.ones(6)}, tmp_path / "w.pt", zipped=False)
    data = (tmp_path / "w.pt").read_bytes()
    with io.BytesIO(data) as file:
        for _ in range(4):
            follow(file, "w.pt")
        start = file.tell()
        keys, _ = follow(file, "w.pt")
        end = file.tell()
    (tmp_path / "w.pt").write_bytes(data[:start] + pickle.dumps(keys[:1], 2) + data[end : end + 8 + 24])
    assert torch.load(tmp_path / "w.pt", weights_only=True)["w"].shape == (6,)  # with whatever memory held
    with pytest.raises(CheckpointError, match="the tensors use 2 storages, and the file lists"):
        load_weights(tmp_path / "w.pt")


@CONTAINERS
def test_a_shape_that_is_larger_than_its_storage(tmp_path, zipped):
    save({"w": torch.ones(6)}, tmp_path / "w.pt", zipped)
    edit_pickle(tmp_path / "w.pt", lambda data: data.replace(b"K\x06\x85", b"K\xff\x85"))
    with pytest.raises(CheckpointError, match=r"torch.load\(weights_only=True\) failed"):
        load_weights(tmp_path / "w.pt")


def test_a_small_storage_seen_as_a_huge_tensor(tmp_path):
    save({"w": torch.ones(1).expand(10**5, 10**5)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="claim to unpack to 40000000000"):
        load_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("n", [0, 1, 2, 999, 1000, 1001, 2500])
def test_lists_of_any_length_are_followed(n):
    keys = [str(i) for i in range(n)]
    for protocol in (2, 3):
        assert follow(io.BytesIO(pickle.dumps(keys, protocol)), "f") == (keys, {})


def test_many_storages_in_the_legacy_container(tmp_path):
    state = {f"w{i}": torch.full((2,), float(i)) for i in range(1100)}
    found = read_weights(save(state, tmp_path / "w.pt", zipped=False)).leaves
    assert [leaf[0] for leaf in found.values()] == list(range(1100))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"w": torch.ones(3).to_sparse()}, "the pickle calls torch._utils._rebuild_sparse_tensor"),
        ([1, 2], "there are no arrays in it"),
        ({1: torch.ones(1), "1": torch.ones(2)}, "two values are called '1'"),
        ({"a.b": torch.ones(1), "a": {"b": torch.ones(2)}}, "two leaves have the same name"),
    ],
)
def test_contents_that_are_no_weights(tmp_path, content, message):
    with pytest.raises(CheckpointError, match=message):
        load_weights(save(content, tmp_path / "w.pt"))


def test_a_leaf_and_a_subtree_of_one_name_can_be_had_flat(tmp_path):
    save({"a": torch.ones(1), "a.b": torch.ones(2)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"'a' is a leaf.*read_weights\(...\)\.leaves has them"):
        load_weights(tmp_path / "w.pt")
    assert set(read_weights(tmp_path / "w.pt").leaves) == {"a", "a.b"}


def test_a_content_that_holds_itself(tmp_path):
    loop = {"w": torch.ones(1)}
    loop["self"] = loop
    with pytest.raises(CheckpointError, match="nested without end"):
        load_weights(save(loop, tmp_path / "w.pt"))


def test_a_billion_laughs(tmp_path, monkeypatch):
    monkeypatch.setattr("tljax.checkpoints.torch.MAX_NODES", 10_000)
    laugh = {"w": 1}
    for _ in range(40):
        laugh = {"a": laugh, "b": laugh}
    with pytest.raises(CheckpointError, match="has over 10000 values"):
        load_weights(save(laugh, tmp_path / "w.pt"))


def test_a_pickle_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("tljax.checkpoints.pickles.MAX_OPCODES", 1000)
    save({"w": torch.ones(1), "n": [None] * 1000}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="over 1000 instructions"):
        load_weights(tmp_path / "w.pt")


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_program(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="is a TorchScript program"):
        load_weights(tmp_path / "w.pt")


def test_a_tensor_without_a_name(tmp_path):
    torch.save(torch.ones(3), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"is a single tensor without a name; expected a dict"):
        read_weights(tmp_path / "a.pt")


def test_a_lightning_checkpoint(tmp_path):
    beside = {"callbacks": {"best": {"score": torch.tensor(0.5), "ema": torch.ones(2)}}, "loops": {"x": torch.ones(2)}}
    torch.save({"state_dict": {"w": torch.ones(3)}, "epoch": 1, **beside}, tmp_path / "a.ckpt")
    weights = read_weights(tmp_path / "a.ckpt")
    assert list(weights.leaves) == ["w"]
    assert weights.report.left_out["callbacks"] == "bookkeeping (2 arrays)"


def test_views_that_share_memory_or_are_conjugated_lazily(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    turned = torch.complex(base, base + 1)
    views = {"w": base, "same": base, "t": base.t(), "s": base[::2, 1:3], "e": base[0].expand(5, 4)}
    views |= {"conj": turned.conj(), "neg": turned.clone().conj().imag}
    torch.save(views, tmp_path / "views.pt")
    found = load_weights(tmp_path / "views.pt")
    for name, view in views.items():
        np.testing.assert_array_equal(found[name], view.resolve_conj().resolve_neg().numpy())
