"""orbax checkpoints, written by orbax itself in all its layouts, and on more devices than read them."""

import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tljax.checkpoints import CheckpointError, load_weights, open_weights, read_weights, save_weights

TREE = {
    "block_10": {"kernel": np.arange(24, dtype=np.float32).reshape(4, 6), "bias": np.ones(6, jnp.bfloat16)},
    "block_2": {"n": np.int32(3), "flag": np.array([True, False]), "half": np.ones(2, np.float16)},
    "slash/~/haiku": {"dot.key": np.ones(1)},
}
NAMES = {"block_10/kernel", "block_10/bias", "block_2/n", "block_2/flag", "block_2/half", "slash/~/haiku/dot.key"}


def save(folder, tree, **handler):
    ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**handler)).save(folder.absolute(), tree)
    return folder


@pytest.mark.parametrize("use_ocdbt", [True, False])
@pytest.mark.parametrize("use_zarr3", [True, False])
def test_every_layout(tmp_path, use_ocdbt, use_zarr3):
    save(tmp_path / "ckpt", TREE, use_ocdbt=use_ocdbt, use_zarr3=use_zarr3)
    weights = read_weights(tmp_path / "ckpt")
    assert set(weights.leaves) == NAMES
    assert weights.report.format == "orbax"
    for name, leaf in (("block_10/kernel", TREE["block_10"]["kernel"]), ("block_10/bias", TREE["block_10"]["bias"])):
        assert weights.leaves[name].dtype == leaf.dtype
        assert weights.leaves[name].tobytes() == leaf.tobytes()
    assert weights.leaves["block_2/flag"].tolist() == [True, False]
    assert weights.leaves["block_2/n"] == 3


def test_only_the_selected_leaves_are_read(tmp_path):
    save(tmp_path / "ckpt", TREE, use_ocdbt=False)
    shutil.rmtree(tmp_path / "ckpt" / "block_10.kernel" / "0.0", ignore_errors=True)
    (tmp_path / "ckpt" / "block_10.kernel" / "0.0").unlink(missing_ok=True)
    assert load_weights(tmp_path / "ckpt", select="block_2/half")["block_2"]["half"].tolist() == [1.0, 1.0]
    with pytest.raises(CheckpointError, match="reading the orbax arrays failed"):
        load_weights(tmp_path / "ckpt")


def test_a_train_state(tmp_path):
    state = {
        "params": {"w": jnp.ones(2), "l": [jnp.zeros(1)]},
        "opt_state": {"mu": jnp.ones(2)},
        "step": 7,
        "key": jax.random.key(0),
    }
    save(tmp_path / "ckpt", {**state, "note": "hello", "nothing": None})
    weights = read_weights(tmp_path / "ckpt", root="params")
    assert set(weights.leaves) == {"w", "l/0"}
    assert weights.report.left_out["note"] == "string"
    assert weights.report.left_out["nothing"] == "None"
    del state["key"]
    save(tmp_path / "ckpt2", state)
    assert set(read_weights(tmp_path / "ckpt2").leaves) == {"w", "l/0"}


def test_the_last_step_of_a_run(tmp_path):
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        for step in (3, 20):
            manager.save(step, args=ocp.args.StandardSave({"w": jnp.full(2, step)}))
            manager.wait_until_finished()
    (tmp_path / "run" / "100.orbax-checkpoint-tmp-5").mkdir()
    (tmp_path / "run" / "99").mkdir()  # empty, so not a checkpoint
    weights = read_weights(tmp_path / "run")
    assert weights.leaves["w"].tolist() == [20, 20]
    assert weights.report.notes == ("step 20, the last of 2",)
    assert load_weights(tmp_path / "run" / "3")["w"].tolist() == [3, 3]


def test_a_checkpoint_of_several_items(tmp_path):
    save_both = ocp.args.Composite(
        params=ocp.args.StandardSave({"w": jnp.ones(2)}), other=ocp.args.StandardSave({"v": jnp.ones(3)})
    )
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        manager.save(1, args=save_both)
        manager.wait_until_finished()
    weights = read_weights(tmp_path / "run")
    assert set(weights.leaves) == {"w"}
    assert "item params of other, params" in weights.report.notes
    (tmp_path / "run" / "1" / "params").rename(tmp_path / "run" / "1" / "another")
    with pytest.raises(CheckpointError, match="with the items another, other; give the path of one"):
        load_weights(tmp_path / "run")


def test_saving_and_saving_over(tmp_path):
    for value in (1.0, 2.0):
        save_weights({"w": np.full(2, value), "b": jnp.ones(3, jnp.bfloat16)}, tmp_path / "w.orbax")
        found = load_weights(tmp_path / "w.orbax")
        assert found["w"].tolist() == [value, value]
        assert found["b"].dtype == jnp.bfloat16
    assert [file.name for file in tmp_path.iterdir()] == ["w.orbax"]
    restored = ocp.PyTreeCheckpointer().restore(tmp_path / "w.orbax")
    assert restored["w"].tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("tree_metadata"), "tree_metadata is None; expected the leaves of the tree"),
        (lambda m: m["tree_metadata"].update(x={}), "x is {}; expected its keys and its type"),
        (lambda m: rename(m, ["w"], [".."]), "leads out of the folder"),
        (lambda m: rename(m, ["w"], ["/etc", "passwd"]), "leads out of the folder"),
        (lambda m: rename(m, ["w"], ["v"]), "is given twice"),
        (lambda m: rename(m, ["w"], ["gone"]), "reading the orbax metadata failed"),
        (lambda m: m.update(use_zarr3=True), "reading the orbax metadata failed"),
    ],
)
@pytest.mark.parametrize("use_ocdbt", [True, False])
def test_metadata_that_lies(tmp_path, change, message, use_ocdbt):
    save(tmp_path / "ckpt", {"w": np.ones(2), "v": np.ones(3)}, use_ocdbt=use_ocdbt)
    metadata = json.loads((tmp_path / "ckpt" / "_METADATA").read_text())
    change(metadata)
    (tmp_path / "ckpt" / "_METADATA").write_text(json.dumps(metadata))
    with pytest.raises(CheckpointError, match=message):
        load_weights(tmp_path / "ckpt")


def rename(metadata, old, new):
    for leaf in metadata["tree_metadata"].values():
        if [key["key"] for key in leaf["key_metadata"]] == old:
            leaf["key_metadata"] = [{"key": key, "key_type": 2} for key in new]


@pytest.mark.parametrize("shape", [[10**6, 10**6], [-1], [2, 2]])
def test_an_array_larger_than_its_data(tmp_path, shape):
    save(tmp_path / "ckpt", {"w": np.ones(2)}, use_ocdbt=False)
    file = tmp_path / "ckpt" / "w" / ".zarray"
    zarray = json.loads(file.read_text())
    zarray["shape"] = shape
    zarray["chunks"] = [max(n, 1) for n in shape]
    file.write_text(json.dumps(zarray))
    with pytest.raises(CheckpointError, match=r"orbax|bomb"):
        load_weights(tmp_path / "ckpt")


def test_a_folder_that_only_looks_like_one(tmp_path):
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt" / "_CHECKPOINT_METADATA").write_text("{}")
    with pytest.raises(CheckpointError, match="an orbax checkpoint with no saved tree"):
        load_weights(tmp_path / "ckpt")


SAVE = """
import sys, jax, numpy as np, jax.numpy as jnp, orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
assert jax.device_count() == 8
mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))
put = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, P(*spec)))
tree = {
    "both": put(jnp.arange(64.0).reshape(8, 8), "data", "model"),
    "one": put(jnp.arange(16, dtype=jnp.bfloat16), "model"),
    "whole": put(jnp.arange(3)),
}
with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(sys.argv[1], {"params": tree, "step": 5})
"""
LOAD = """
import sys, jax, numpy as np
assert jax.device_count() == 1
from tljax.checkpoints import load_weights
tree = load_weights(sys.argv[1])
assert set(tree) == {"both", "one", "whole"}, tree
assert all(type(leaf) is np.ndarray for leaf in tree.values())
assert (tree["both"] == np.arange(64.0).reshape(8, 8)).all()
assert (tree["one"].astype(int) == np.arange(16)).all() and tree["one"].dtype.name == "bfloat16"
assert tree["whole"].tolist() == [0, 1, 2]
"""


def run(program, devices, *arguments):
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_saved_on_eight_devices_read_on_one(tmp_path):
    run(SAVE, 8, tmp_path / "ckpt")
    run(LOAD, 1, tmp_path / "ckpt")
    assert open_weights(tmp_path / "ckpt").specs["both"].shape == (8, 8)
