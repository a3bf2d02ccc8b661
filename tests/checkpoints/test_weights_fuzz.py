"""Ten thousand damaged files: each gives a `CheckpointError`, or what an independent reader finds in it."""

import os
import pathlib
import re
import shutil
import signal
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization
from weight_mutations import mutate, mutate_folder

from tljax.checkpoints import CheckpointError, read_weights, save_weights

SECONDS = 20
"""More than any one file may take; a hang ends here."""
STATUS = pathlib.Path("/proc/self/status")
GROWTH = 400 << 20
"""Bytes by which the process may grow over all files, oracles included; each is a few kB, some claim to be exabytes."""

TREE = {
    "encoder": {
        "block_0": {"kernel": np.arange(48, dtype=np.float32).reshape(6, 8), "bias": np.ones(8, np.float16)},
        "embed": jnp.arange(12, dtype=jnp.bfloat16).reshape(3, 4),
        "mask": np.array([True, False, True]),
    },
    "head": {"kernel": np.linspace(-1, 1, 16).reshape(8, 2), "steps": np.int64(7)},
}


def write_safetensors(folder):
    save_weights(TREE, folder / "w.safetensors", metadata={"format": "pt"})


def write_npz(folder):
    save_weights(TREE, folder / "w.npz")


def write_packed_npz(folder):
    arrays = {name: np.asarray(leaf) for name, leaf in flat(TREE, "/").items() if "embed" not in name}
    np.savez_compressed(folder / "w.npz", **arrays)


def write_msgpack(folder):
    old, serialization.MAX_CHUNK_SIZE = serialization.MAX_CHUNK_SIZE, 100  # so that some arrays come in pieces
    try:
        state = {"params": TREE, "opt_state": {"0": {"mu": np.zeros(3)}}, "step": 7}
        (folder / "w.msgpack").write_bytes(serialization.msgpack_serialize(state))
    finally:
        serialization.MAX_CHUNK_SIZE = old


def write_torch(folder, legacy=False):
    torch = pytest.importorskip("torch")
    kernel = torch.arange(12.0).reshape(3, 4)
    weights = {
        "fc.weight": kernel,
        "fc.tied": kernel.t(),
        "bn.bias": torch.ones(4, dtype=torch.bfloat16),
        "n": torch.tensor(3),
    }
    state = {"epoch": 3, "state_dict": weights, "optimizer": {"state": {0: {"momentum": torch.zeros(3)}}}}
    torch.save(state, folder / "w.pt", _use_new_zipfile_serialization=not legacy)


def write_legacy(folder):
    write_torch(folder, legacy=True)


def flat(tree, separator, path=()):
    """The leaves of nested dicts and lists by their joined keys."""
    if isinstance(tree, dict | list | tuple):
        children = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {
            name: leaf for key, child in children for name, leaf in flat(child, separator, (*path, str(key))).items()
        }
    return {separator.join(path): tree}


def read_by_safetensors(path):
    """The library gives bfloat16 as raw bytes through its own parser of the header."""
    from safetensors import deserialize

    return {name: np.frombuffer(bytes(entry["data"]), np.uint8) for name, entry in deserialize(path.read_bytes())}


def read_by_numpy(path):
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name.removesuffix(".npy"): archive[name] for name in archive.files}
    return {name: a.astype(a.dtype.newbyteorder("=")) for name, a in arrays.items() if a.dtype.kind not in "SUmM"}


def read_by_flax(path):
    leaves = flat(serialization.msgpack_restore(path.read_bytes()), "/")
    return {name: np.asarray(leaf) for name, leaf in leaves.items() if np.asarray(leaf).dtype.kind not in "SUO"}


def read_by_torch(path):
    torch = pytest.importorskip("torch")
    leaves = flat(torch.load(path, weights_only=True, map_location="cpu"), ".")
    tensors = {name: leaf.detach().contiguous() for name, leaf in leaves.items() if isinstance(leaf, torch.Tensor)}
    return {
        name: t.view(torch.int16).numpy() if t.dtype == torch.bfloat16 else t.numpy() for name, t in tensors.items()
    }


# format: (file, how it is made, mutation family, oracle, files of ten thousand)
FORMATS = {
    "safetensors": ("w.safetensors", write_safetensors, "safetensors", read_by_safetensors, 3000),
    "npz": ("w.npz", write_npz, "npz", read_by_numpy, 1300),
    "packed_npz": ("w.npz", write_packed_npz, "npz", read_by_numpy, 700),
    "msgpack": ("w.msgpack", write_msgpack, "msgpack", read_by_flax, 2200),
    "torch": ("w.pt", write_torch, "torch", read_by_torch, 1200),
    "legacy": ("w.pt", write_legacy, "legacy", read_by_torch, 900),
}


def expire(*_):
    raise AssertionError(f"no answer within {SECONDS} seconds")


def memory(entry):
    """Bytes the process has (VmRSS), or had at most since the mark was reset (VmHWM); 0 where Linux does not tell."""
    if not STATUS.exists():
        return 0
    return 1024 * next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(entry))


@pytest.fixture
def bounded(tmp_path):
    """Stops a hang, and checks afterwards that memory stayed bounded and nothing was unpacked outside."""
    if STATUS.exists():
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = memory("VmRSS")
    old = signal.signal(signal.SIGALRM, expire)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)
    assert memory("VmHWM") - before < GROWTH
    assert not list(tmp_path.parent.glob("evil*"))


def attempt(path):
    """What reading `path` gives: the weights as they are and unwrapped, or None after a `CheckpointError`.

    Any other exception fails the test.
    """
    signal.alarm(SECONDS)
    error = None
    try:
        return read_weights(path, root=""), read_weights(path)
    except CheckpointError as caught:
        error = str(caught)
    finally:
        signal.alarm(0)
    assert str(path) in error, error
    assert error.isprintable(), error
    assert len(error) < 2000, error
    return None


def check(found, path, oracle):
    """Nothing may be lost or changed: the leaves are the oracle's, and what is unwrapped is told."""
    raw, weights = found
    with warnings.catch_warnings(action="ignore"):
        theirs = oracle(path)
    assert set(raw.leaves) == set(theirs)
    for name, leaf in raw.leaves.items():
        assert leaf.tobytes() == theirs[name].tobytes(), name
    told = sum(int(n) for reason in weights.report.left_out.values() for n in re.findall(r"\((\d+) arrays?\)", reason))
    assert len(weights.leaves) + told == len(raw.leaves)


def fuzz(folder, kind, n, seed):
    """Try `n` damaged files; returns how many could be read nevertheless."""
    name, write, family, oracle, _ = FORMATS[kind]
    write(folder)
    path, whole = folder / name, (folder / name).read_bytes()
    assert read_weights(path).leaves
    readable = 0
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        path.write_bytes(mutate(whole, family, rng))
        try:
            found = attempt(path)
            if found is not None:
                readable += 1
                check(found, path, oracle)
        except Exception as error:
            pathlib.Path(os.environ.get("TLJAX_FUZZ_KEEP", folder), f"{kind}-{seed}-{i}").write_bytes(path.read_bytes())
            raise AssertionError(f"fuzz({kind!r}, seed={seed}) failed at i={i}") from error
    return readable


@pytest.mark.parametrize("kind", FORMATS)
def test_some_damaged_files(kind, tmp_path, bounded):
    readable = fuzz(tmp_path, kind, 60, seed=1)
    assert 0 < readable < 60  # some damage is to the numbers only, most is not


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_ten_thousand_damaged_files(kind, tmp_path, bounded):
    fuzz(tmp_path, kind, FORMATS[kind][-1], seed=2)


def fuzz_folder(tmp_path, make, n, seed):
    """As `fuzz`, on a folder of files. A tree that is read must have every leaf of the original."""
    whole = tmp_path / "whole"
    make(whole)
    n_leaves = len(read_weights(whole).leaves)
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        copy = tmp_path / "copy"
        shutil.copytree(whole, copy)
        mutate_folder(copy, rng)
        found = attempt(copy)
        # An index may name less, which the notes then say; nothing may be lost besides.
        if found is not None and len(found[0].leaves) != n_leaves:
            assert "in the index" in " ".join(found[0].report.notes), f"seed {seed}, {i}: {found[0].report}"
        shutil.rmtree(copy)


def make_sharded(folder):
    folder.mkdir()
    save_weights(TREE, folder / "model.safetensors", max_shard_size=150)


def make_orbax(folder):
    save_weights(TREE, folder, format="orbax")


def make_zarr(folder):
    import orbax.checkpoint as ocp

    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False)
    ocp.Checkpointer(handler).save(folder.absolute(), jax.tree.map(np.asarray, TREE))


@pytest.mark.parametrize("make", [make_sharded, make_orbax, make_zarr])
def test_some_damaged_folders(make, tmp_path, bounded):
    fuzz_folder(tmp_path, make, 25, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "n"), [(make_sharded, 400), (make_orbax, 200), (make_zarr, 100)])
def test_ten_thousand_damaged_folders(make, n, tmp_path, bounded):
    fuzz_folder(tmp_path, make, n, seed=4)


def test_the_counts_are_ten_thousand():
    assert sum(entry[-1] for entry in FORMATS.values()) + 700 == 10_000
