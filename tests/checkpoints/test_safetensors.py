import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from tljax.checkpoints import CheckpointError, buffers, open_weights, read_weights, save_weights
from tljax.checkpoints.dtypes import SAFETENSORS


def tensor_file(path: pathlib.Path, header, data: bytes = b"", length: int | None = None) -> pathlib.Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(dtype="F32", shape=(1,), begin=0, end=4):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def examples() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    raw = rng.integers(256, size=96, dtype=np.uint8)
    leaves = {f"a.{code}": raw.view(dtype) for code, dtype in SAFETENSORS.items() if code != "BOOL"}
    return leaves | {
        "b": raw > 7,
        "scalar": np.array(3, np.float32),
        "empty": np.zeros((0, 5), np.int16),
        "é/名": raw[:3],
    }


def test_the_library_reads_what_we_write(tmp_path):
    leaves = examples()
    save_weights(leaves, tmp_path / "w.safetensors", metadata={"format": "pt", "who": "me"})
    found = dict(safetensors.deserialize((tmp_path / "w.safetensors").read_bytes()))
    assert found.keys() == leaves.keys()
    for name, leaf in leaves.items():
        assert bytes(found[name]["data"]) == leaf.tobytes()
        assert tuple(found[name]["shape"]) == leaf.shape
        assert SAFETENSORS[found[name]["dtype"]] == leaf.dtype
    with safetensors.safe_open(tmp_path / "w.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt", "who": "me"}


def test_we_read_what_the_library_writes(tmp_path):
    leaves = {name: leaf for name, leaf in examples().items() if leaf.dtype.isbuiltin == 1}
    safetensors.numpy.save_file(leaves, tmp_path / "w.safetensors", metadata={"format": "np"})
    weights = read_weights(tmp_path / "w.safetensors")
    assert weights.leaves.keys() == leaves.keys()
    for name, leaf in leaves.items():
        assert (weights.leaves[name].dtype, weights.leaves[name].shape) == (leaf.dtype, leaf.shape)
        assert weights.leaves[name].tobytes() == leaf.tobytes()
    assert weights.report.metadata == {"format": "np"}


def test_every_dtype_comes_back_bit_for_bit(tmp_path):
    leaves = examples()
    save_weights(leaves, tmp_path / "w.safetensors")
    found = read_weights(tmp_path / "w.safetensors").leaves
    assert found.keys() == leaves.keys()
    for name, leaf in leaves.items():
        assert (found[name].dtype, found[name].shape) == (leaf.dtype, leaf.shape)
        assert found[name].tobytes() == leaf.tobytes()


def test_every_tensor_is_aligned_to_its_width(tmp_path):
    save_weights(examples(), tmp_path / "w.safetensors")
    data = (tmp_path / "w.safetensors").read_bytes()
    n = int.from_bytes(data[:8], "little")
    assert n % 8 == 0
    for tensor in json.loads(data[8 : 8 + n]).values():
        assert tensor["data_offsets"][0] % SAFETENSORS[tensor["dtype"]].itemsize == 0


@pytest.mark.parametrize("length", [128, 384, 0x0450, 0x6880, 0x9380])
def test_no_length_of_the_header_is_taken_for_another_format(tmp_path, length):
    """128 is how a pickle begins, 0x9380 and others resemble magic bytes too."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(length.to_bytes(8, "little") + header.ljust(length) + b"\x07")
    assert read_weights(tmp_path / "a.safetensors").leaves == {"w": 7}


def test_only_the_selected_leaves_are_read(tmp_path, monkeypatch):
    save_weights({"a": {"kernel": np.ones(1000), "bias": np.ones(10)}, "b": np.ones(10)}, tmp_path / "w.safetensors")
    asked = []

    def read_spans(path, state, spans):
        asked.extend(spans)
        return buffers.read_spans(path, state, spans)

    monkeypatch.setattr("tljax.checkpoints.safetensors.read_spans", read_spans)
    weights = read_weights(tmp_path / "w.safetensors", select="a/bias")
    assert asked == [("a", "bias")]
    assert list(weights.leaves) == ["a/bias"]
    assert weights.report.not_selected == 2


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"w": entry()}, b"\0" * 3, "end at byte .*, the file at .*: the file is truncated"),
        ({"w": entry()}, b"\0" * 5, "the rest belongs to no tensor"),
        ({"w": entry(begin=4, end=8)}, b"\0" * 8, "leave a hole"),
        ({"w": entry(), "v": entry()}, b"\0" * 4, "'v' and 'w' overlap|'w' and 'v' overlap"),
        ({"w": entry(), "v": entry(begin=2, end=6)}, b"\0" * 6, "overlap"),
        ({"w": entry(shape=(2,))}, b"\0" * 4, r"'w' has 4 bytes; F32 of shape \[2\] takes 8"),
        ({"w": entry(end=3)}, b"\0" * 3, "'w' has 3 bytes"),
        ({"w": entry(begin=4, end=0)}, b"\0" * 4, "'w' has -4 bytes"),
        ({"w": entry(begin=-4, end=0)}, b"\0" * 4, r"data_offsets \[-4, 0\]; expected \[begin, end\]"),
        ({"w": entry(shape=(2**40, 2**40))}, b"\0" * 4, "expected up to 32 whole numbers"),
        ({"w": entry(dtype="F4")}, b"\0" * 4, "dtype F4; expected one of BOOL, U8"),
        ({"w": entry(dtype=3)}, b"\0" * 4, "dtype 3"),
        ({"w": {**entry(), "x": 1}}, b"\0" * 4, "expected dtype, shape and data_offsets"),
        ({"w": [1]}, b"\0" * 4, "expected dtype, shape and data_offsets"),
        ({"__metadata__": {"a": 1}, "w": entry()}, b"\0" * 4, "expected an object of strings"),
        (b'{"w":1,"w":2}', b"", "names 'w' twice"),
        (b'{"w": NaN}', b"", "NaN, which is not JSON"),
        (b"[1, 2]", b"", "expected an object"),
        (b"{1: 2}", b"", "reading the JSON failed"),
        (b'{"w": ' + b"[" * 100_000, b"", "reading the JSON failed"),
        (b'{"w": ' + b"9" * 10_000 + b"}", b"", "reading the JSON failed"),
        (b'{"\xff": 1}', b"", "reading the JSON failed"),
        ({}, b"", "there are no arrays in it"),
        ({"\ud800": entry()}, b"\0" * 4, "expected text"),
        ({"a/" * 2000 + "w": entry()}, b"\0" * 4, "nested up to 100 deep"),
        ({"model/" * 300_000 + "w": entry()}, b"\0" * 4, "nested up to 100 deep"),
        (b'{"w": ' + b"[" * 900 + b"]" * 900 + b"}", b"", "expected dtype, shape and data_offsets|RecursionError"),
        ({"m": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]}}, b"\x07", "bool and has the byte 7"),
    ],
)
def test_headers_that_lie(tmp_path, header, data, message):
    path = tensor_file(tmp_path / "w.safetensors", header, data)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_weights(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("length", [0, 1, 10**6, 2**63, 2**64 - 1])
def test_lengths_that_lie_read_nothing(tmp_path, length):
    path = tensor_file(tmp_path / "w.safetensors", {"w": entry()}, b"\0" * 4, length)
    with pytest.raises(CheckpointError, match=r"the header claims|reading the JSON"):
        read_weights(path, format="safetensors")


def test_an_empty_tensor_may_stand_between_others(tmp_path):
    header = {"a": entry(), "e": entry(shape=(0,), begin=4, end=4), "b": entry(begin=4, end=8)}
    path = tensor_file(tmp_path / "w.safetensors", header, np.array([1, 2], np.float32).tobytes())
    assert {k: v.tolist() for k, v in read_weights(path).leaves.items()} == {"a": [1.0], "e": [], "b": [2.0]}


def test_opening_describes_without_reading(tmp_path):
    save_weights({"w": jnp.ones((2, 3), jnp.bfloat16)}, tmp_path / "w.safetensors")
    file = open_weights(tmp_path / "w.safetensors")
    assert file.specs == {"w": jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)}
    assert file.report.dtypes == {"bfloat16": (1, 6)}


def test_int4_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(CheckpointError, match="'w' is int4, which safetensors does not have"):
        save_weights({"w": jnp.ones(2, jnp.int4)}, tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())
