import flax.serialization
import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

from tljax.checkpoints import CheckpointError, load_weights, read_weights, save_weights

TREE = {
    "block_10": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": jnp.ones(3, jnp.bfloat16)},
    "block_2": {"mask": np.array([True, False]), "scale": jnp.ones(2, jnp.float8_e4m3fn), "q": jnp.ones(3, jnp.int4)},
    "scalar": np.float16(2.5),
    "number": 0.25,
    "complex": 1 + 2j,
    "empty": np.zeros((0, 4)),
    "list": [np.ones(1), np.zeros(2)],
}


def assert_same(found, tree):
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(tree)):
        assert (a.dtype, a.shape) == (np.asarray(b).dtype, np.shape(b))
        assert a.tobytes() == np.asarray(b).tobytes()


def test_what_flax_writes(tmp_path):
    (tmp_path / "w.msgpack").write_bytes(flax.serialization.msgpack_serialize(TREE))
    assert_same(load_weights(tmp_path / "w.msgpack"), {**TREE, "list": {"0": np.ones(1), "1": np.zeros(2)}})


def test_flax_reads_what_we_write(tmp_path):
    tree = {name: TREE[name] for name in ("block_10", "scalar")}
    save_weights(tree, tmp_path / "w.msgpack")
    assert_same(flax.serialization.msgpack_restore((tmp_path / "w.msgpack").read_bytes()), tree)
    assert_same(load_weights(tmp_path / "w.msgpack"), tree)


def test_arrays_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 64)
    tree = {"a": {"w": np.arange(60.0).reshape(3, 20)}, "b": np.arange(100, dtype=np.int8)}
    (tmp_path / "w.msgpack").write_bytes(flax.serialization.msgpack_serialize(tree))
    assert b"__msgpack_chunked_array__" in (tmp_path / "w.msgpack").read_bytes()
    assert_same(load_weights(tmp_path / "w.msgpack"), tree)


@pytest.mark.filterwarnings("ignore")
def test_a_train_state_without_its_optimiser(tmp_path):
    params = {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}}
    state = TrainState.create(apply_fn=None, params=params, tx=optax.adam(0.1))
    (tmp_path / "checkpoint_7").write_bytes(flax.serialization.to_bytes(state))
    weights = read_weights(tmp_path / "checkpoint_7")
    assert set(weights.leaves) == {"dense/kernel", "dense/bias"}
    assert weights.report.unwrapped == ("params",)
    assert weights.report.left_out == {"opt_state": "optimiser state (5 arrays)", "step": "bookkeeping (1 array)"}


def ndarray(shape=(2,), dtype="float32", data=b"\0" * 8):
    return msgpack.ExtType(1, msgpack.packb((shape, dtype, data)))


def nested(depth):
    return b"\x81\xa1a" * depth + b"\xc0"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (msgpack.packb({"w": ndarray(data=b"\0" * 7)}), r"'w' has 7 bytes; float32 of shape \[2\] takes 8"),
        (msgpack.packb({"w": ndarray(shape=(2, -1))}), "expected up to 32 whole numbers"),
        (msgpack.packb({"w": ndarray(shape=(2.0,))}), "expected up to 32 whole numbers"),
        (msgpack.packb({"w": ndarray(dtype="object")}), "dtype object, which no weight has"),
        (msgpack.packb({"w": ndarray(dtype="V8")}), "dtype V8, which no weight has"),
        (msgpack.packb({"w": ndarray(data=3)}), "'w' has no bytes"),
        (msgpack.packb({"w": msgpack.ExtType(1, b"\x93")}), "announces 1 bytes, but only 0 follow"),
        (msgpack.packb({"w": msgpack.ExtType(1, b"\xc0")}), "is no array; expected shape, dtype and bytes"),
        (msgpack.packb({"w": msgpack.ExtType(1, b"\xc0\xc0")}), "is no array; expected shape, dtype and bytes"),
        (msgpack.packb({"w": msgpack.ExtType(42, b"x")}), "is msgpack extension 42"),
        (msgpack.packb({"w": msgpack.ExtType(2, b"\x91\xcb" + b"\0" * 8)}), "the two parts of a complex number"),
        (b"\x82" + 2 * (msgpack.packb("w") + msgpack.packb(ndarray())), "names 'w' twice"),
        (b"\x82\x01\xc0\xa11\xc0", "names '1' twice"),
        (b"\x81\x90\xc0", "a map has the key"),
        (b"\x81\xc3\xc0", "a map has the key True"),
        (msgpack.packb({"w": ndarray()}) + b"\0", "1 bytes follow the end"),
        (msgpack.packb({"w": ndarray()})[:-1], "announces 21 bytes, but only 20 follow: truncated"),
        (b"\xdf\xff\xff\xff\xff", "announces 1 bytes, but only 0 follow"),
        (b"\x81\xa1w\xdd\xff\xff\xff\xff", "announces 1 bytes, but only 0 follow"),
        (b"\x81\xa1w\xc1", "is 0xc1, which begins no msgpack value"),
        (b"\x81\xa1\xff\xc0", "reading flax msgpack failed: UnicodeDecodeError"),
        (nested(10_000), "more than 100 deep"),
        (msgpack.packb({"w": {"__msgpack_chunked_array__": True, "shape": {"0": 2}, "chunks": {}}}), "not all of them"),
        (msgpack.packb({"w": {"__msgpack_chunked_array__": True}}), "not all of them"),
        (
            msgpack.packb({"w": {"__msgpack_chunked_array__": True, "shape": {"0": 3}, "chunks": {"0": ndarray()}}}),
            "pieces that do not add up",
        ),
        (msgpack.packb({"a": "only", "text": None}), "there are no arrays in it"),
    ],
)
def test_files_that_cannot_be_right(tmp_path, content, message):
    (tmp_path / "w.msgpack").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_weights(tmp_path / "w.msgpack", format="msgpack")


def test_every_integer_and_float_of_msgpack(tmp_path):
    numbers = [
        0,
        127,
        128,
        255,
        256,
        2**16,
        2**32,
        2**64 - 1,
        -1,
        -32,
        -33,
        -128,
        -129,
        -(2**15) - 1,
        -(2**31) - 1,
        -(2**63),
    ]
    tree = {f"n{i}": n for i, n in enumerate(numbers)} | {"f": 0.1, "t": True}
    content = msgpack.packb(tree)[:-1] + b"\xc3"
    (tmp_path / "w.msgpack").write_bytes(content)
    found = read_weights(tmp_path / "w.msgpack").leaves
    assert {name: leaf.item() for name, leaf in found.items()} == tree
