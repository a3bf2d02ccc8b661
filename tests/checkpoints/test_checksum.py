import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tljax.checkpoints import checksum as module
from tljax.checkpoints.checksum import checksum

DTYPES = ["float32", "float16", "bfloat16", "int8", "uint8", "int32", "uint32", "bool", "complex64"]


def example(dtype, n=37, seed=0):
    bits = np.random.default_rng(seed).integers(0, 256, 8 * n, dtype=np.uint8)
    if dtype == "bool":
        return jnp.asarray(bits[:n] % 2 == 0)
    return jnp.asarray(bits[: n * jnp.dtype(dtype).itemsize].view(jnp.dtype(dtype)))


def by_hand(leaf):
    """The formula, word by word in Python's integers."""
    raw = np.asarray(leaf).tobytes()
    width = min(np.asarray(leaf).dtype.itemsize, 4)
    words = [int.from_bytes(raw[i : i + width], "little") for i in range(0, len(raw), width)]
    return sum(word * (i * 0x9E3779B2 % 2**32 | 1) for i, word in enumerate(words)) % 2**32


@pytest.mark.parametrize("dtype", DTYPES)
def test_host_device_and_formula_agree(dtype, monkeypatch):
    leaf = example(dtype)
    monkeypatch.setattr(module, "_CHUNK", 8)
    assert int(checksum(leaf)[0]) == int(module._on_device(leaf)) == by_hand(leaf)


def test_eight_byte_elements_are_two_words():
    with jax.enable_x64(True):
        leaf = jnp.asarray(np.random.default_rng(0).normal(size=9))
        assert leaf.dtype == jnp.float64
        assert int(checksum(leaf)[0]) == int(module._on_device(leaf)) == by_hand(leaf)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(DTYPES), st.integers(0, 36), st.integers(0, 31))
def test_any_changed_bit_changes_the_sum(dtype, at, bit):
    leaf = np.array(example(dtype))
    raw = leaf.view(np.uint8).copy()
    size = leaf.dtype.itemsize
    raw[at * size + bit // 8 % size] ^= 1 if dtype == "bool" else 1 << bit % 8
    assert checksum(raw.view(leaf.dtype))[0] != checksum(leaf)[0]


def test_order_counts_and_leaves_are_apart():
    assert checksum(np.array([1, 2]))[0] != checksum(np.array([2, 1]))[0]
    assert checksum({"a": np.zeros(2), "b": np.ones(2)}).shape == (2,)
    assert checksum({}).shape == (0,)
    assert checksum(np.zeros((0, 3))).tolist() == [0]


def test_sharding_changes_nothing():
    whole = jnp.arange(64, dtype=jnp.float32).reshape(8, 8)
    mesh = Mesh(np.array(jax.devices()[:8]), ("d",))
    for spec in (PartitionSpec("d"), PartitionSpec(None, "d"), PartitionSpec()):
        assert checksum(jax.device_put(whole, NamedSharding(mesh, spec)))[0] == checksum(whole)[0]


def test_keys_are_summed_by_their_words():
    assert checksum(jax.random.key(3)).tolist() == checksum(jax.random.key_data(jax.random.key(3))).tolist()
