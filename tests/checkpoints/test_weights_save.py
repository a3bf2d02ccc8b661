"""Whole or not at all: full disks, crashes, unwritable places; and what may be saved."""

import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import freeze

from tljax.checkpoints import CheckpointError, load_weights, save_weights
from tljax.checkpoints.atomic import atomic_file, atomic_folder
from tljax.tree import named_leaves

SUFFIXES = pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".msgpack", ".orbax"])


@SUFFIXES
def test_any_pytree(tmp_path, suffix):
    kernel = jax.device_put(jnp.arange(16.0).reshape(8, 2), jax.NamedSharding(jax.make_mesh((8,), ("x",)), jax.P("x")))
    tree = freeze(
        {"a": {"kernel": kernel, "hole": None}, "list": [np.ones(2, ">f4"), 3.5], "f": np.asfortranarray(np.eye(3))}
    )
    save_weights(tree, tmp_path / f"w{suffix}")
    found = named_leaves(load_weights(tmp_path / f"w{suffix}"))
    assert found["a/kernel"].tolist() == np.arange(16.0).reshape(8, 2).tolist()
    assert found["list/0"].tolist() == [1.0, 1.0]
    assert found["list/1"] == 3.5
    assert found["f"].tolist() == np.eye(3).tolist()
    assert len(found) == 4


@pytest.mark.parametrize(
    ("tree", "arguments", "message"),
    [
        ({}, {}, "the tree has no arrays to save"),
        ({"f": jax.nn.relu}, {}, "the tree has no arrays to save"),
        ({"w": jax.ShapeDtypeStruct((2,), "float32")}, {}, "'w' is only the description of an array"),
        ({"w": jax.random.key(0)}, {}, "'w' has dtype key<fry>; expected numbers or bools"),
        ({"w": np.ones(2)}, {"format": "pickle"}, "format='pickle'; expected one of"),
        ({"w": np.ones(2)}, {"metadata": {"a": 1}}, "expected strings by name"),
        (
            {"w": np.ones(2)},
            {"format": "npz", "metadata": {"a": "b"}},
            "metadata and max_shard_size are for safetensors",
        ),
        ({"w": np.ones(2)}, {"format": "npz", "max_shard_size": 3}, "metadata and max_shard_size are for safetensors"),
        ({"w": np.ones(2)}, {"max_shard_size": 0}, "max_shard_size=0; expected a number of bytes"),
        ({"a": {"b": np.ones(1)}, "a.b": np.ones(2)}, {"separator": "."}, "two leaves have the same name"),
    ],
)
def test_what_cannot_be_saved(tmp_path, tree, arguments, message):
    with pytest.raises(CheckpointError, match=message):
        save_weights(tree, tmp_path / "w.safetensors", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    (tmp_path / "file.orbax").write_text("mine")
    for name in ("home", "file.orbax"):
        with pytest.raises(CheckpointError, match="is there already and is no orbax checkpoint, so it is not replaced"):
            save_weights({"w": np.ones(1)}, tmp_path / name, format="orbax")
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"
    assert (tmp_path / "file.orbax").read_text() == "mine"


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(CheckpointError, match=r"the suffix tells no format; expected .safetensors, .npz"):
        save_weights({"w": np.ones(1)}, tmp_path / "weights")
    with pytest.raises(CheckpointError, match="writing failed: No such file or directory"):
        save_weights({"w": np.ones(1)}, tmp_path / "nowhere" / "w.npz")
    with pytest.raises(CheckpointError, match=r"is a folder; give the name of a file in it"):
        save_weights({"w": np.ones(1)}, tmp_path, format="npz")


@SUFFIXES
@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_failure_at_the_end_leaves_what_was_there(tmp_path, suffix, failing, monkeypatch):
    path = tmp_path / f"w{suffix}"
    save_weights({"w": np.ones(2)}, path)
    if failing == "fsync" and suffix == ".orbax":
        pytest.skip("orbax flushes its own files")

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(CheckpointError, match="No space left on device"):
            save_weights({"w": np.zeros(2)}, path)
    assert load_weights(path)["w"].tolist() == [1.0, 1.0]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


FULL_DISK = """
import resource, signal, sys
import numpy as np
from tljax.checkpoints import CheckpointError, save_weights
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing beyond the limit is an error, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_weights({"w": np.random.default_rng(0).standard_normal(100_000)}, sys.argv[1])
except CheckpointError as error:
    print(error)
"""


def python(program, *arguments, **kwargs):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


@pytest.mark.parametrize("suffix", [".safetensors", pytest.param(".npz", marks=pytest.mark.slow)])
def test_a_full_disk_leaves_what_was_there(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    save_weights({"w": np.ones(2)}, path)
    out, err = python(FULL_DISK, path).communicate(timeout=120)
    assert "writing failed: File too large" in out, out + err
    assert load_weights(path)["w"].tolist() == [1.0, 1.0]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


KILLED = """
import sys
import numpy as np
from tljax.checkpoints import save_weights
tree = {f"w{i}": np.full(100_000, 0.0) for i in range(40)}
step = 0
while True:
    step += 1
    for leaf in tree.values():
        leaf[:] = step
    save_weights(tree, sys.argv[1], **eval(sys.argv[2]))
    print(step, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".msgpack"])
def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    rng = np.random.default_rng(0)
    for _ in range(4):
        process = python(KILLED, path, {})
        assert process.stdout.readline()
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        tree = load_weights(path)
        assert len(tree) == 40
        assert len({leaf[0] for leaf in tree.values()} | {leaf[-1] for leaf in tree.values()}) == 1


@pytest.mark.slow
def test_a_kill_between_shards_leaves_a_whole_set_or_none(tmp_path):
    path = tmp_path / "w.safetensors"
    rng = np.random.default_rng(1)
    for _ in range(6):
        process = python(KILLED, path, {"max_shard_size": 4_000_000})
        assert process.stdout.readline()
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        try:
            tree = load_weights(path)
        except CheckpointError as error:
            assert "does not exist" in str(error)  # noqa: PT017
            continue
        assert len({leaf[0] for leaf in tree.values()}) == 1


def test_an_interrupted_block_leaves_nothing(tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "w") as file:
        interrupt(file.write(b"half"))
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "f") as folder:
        interrupt(folder.mkdir())
    assert not list(tmp_path.iterdir())


def test_a_link_is_replaced_not_written_through(tmp_path):
    save_weights({"w": np.ones(2)}, tmp_path / "blob.npz")
    (tmp_path / "w.npz").symlink_to(tmp_path / "blob.npz")
    save_weights({"w": np.zeros(2)}, tmp_path / "w.npz")
    assert load_weights(tmp_path / "blob.npz")["w"].tolist() == [1.0, 1.0]
    assert load_weights(tmp_path / "w.npz")["w"].tolist() == [0.0, 0.0]


def test_files_have_the_usual_permissions(tmp_path):
    save_weights({"w": np.ones(2)}, tmp_path / "w.npz")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "w.npz").stat().st_mode == (tmp_path / "plain").stat().st_mode


LOAD = """
import sys
from tljax.checkpoints import load_weights

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

before = peak()
tree = load_weights(sys.argv[1])
print((peak() - before) / sum(leaf.nbytes for leaf in tree.values()))
"""


@pytest.mark.one_in(2)
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("layout", ["leaves of one size", "one large leaf"])
def test_loading_takes_the_memory_of_the_weights_and_no_more(tmp_path, layout):
    shapes = [(250, 10_000)] * 10 if layout == "leaves of one size" else [(2500, 10_000)]
    save_weights({f"w{i}": np.ones(shape, np.float32) for i, shape in enumerate(shapes)}, tmp_path / "w.safetensors")
    out, err = python(LOAD, tmp_path / "w.safetensors").communicate(timeout=120)
    assert 0.9 < float(out) < 1.3, err
