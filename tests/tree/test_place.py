"""Copies: whose memory, which dtype, which device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tljax.tree.place import CastError, placed


def test_the_kind_of_the_target_leaf_stays():
    value = np.ones(2, np.float32)
    assert isinstance(placed("w", value, jnp.zeros(2)), jax.Array)
    assert type(placed("w", jnp.ones(2), np.zeros(2, np.float64))) is np.ndarray
    assert placed("w", jnp.ones(2), np.zeros(2, np.float64)).dtype == np.float64
    assert placed("w", np.float32(2.5), 1.0) == 2.5
    assert type(placed("w", np.float32(2.5), 1.0)) is float
    assert isinstance(placed("w", value, jax.ShapeDtypeStruct((2,), jnp.float32)), jax.Array)


@pytest.mark.parametrize("value", [np.ones(1024, np.float32), jnp.ones(1024)])
@pytest.mark.parametrize("like", [np.zeros(1024, np.float32), jnp.zeros(1024)])
def test_the_copy_has_memory_of_its_own(value, like):
    out = placed("w", value, like)
    if isinstance(out, jax.Array):
        jax.jit(lambda x: x + 1, donate_argnums=0)(out)
        assert out.is_deleted()
    else:
        out += 1
    np.testing.assert_array_equal(np.asarray(value), np.ones(1024))


def test_committed_leaves_keep_their_devices():
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("x"))
    for like in (jax.device_put(jnp.zeros(4), sharding), jax.ShapeDtypeStruct((4,), jnp.float32, sharding=sharding)):
        out = placed("w", np.arange(4, dtype=np.float32), like)
        assert out.sharding == sharding
        again = placed("w", out, like)
        assert again.sharding == sharding
        jax.jit(lambda x: x + 1, donate_argnums=0)(again)
        np.testing.assert_array_equal(out, np.arange(4))  # not donated with its copy
    assert not placed("w", np.ones(4, np.float32), jnp.zeros(4)).committed


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (np.float32([1.001, -3]), jnp.bfloat16, [1.0, -3.0]),
        (jnp.array([1.5], jnp.bfloat16), jnp.float32, [1.5]),
        (np.int32([1, 2]), jnp.float32, [1, 2]),
        (np.int64([1, 2]), jnp.int32, [1, 2]),
        (np.array([True]), jnp.float32, [1.0]),
        (np.float32([np.inf, np.nan]), jnp.float16, [np.inf, np.nan]),
        (np.float64([1.0]), jnp.float32, [1.0]),
    ],
)
def test_casts(value, dtype, expected):
    out = placed("w", value, jnp.zeros(len(expected), dtype))
    assert out.dtype == dtype
    np.testing.assert_array_equal(np.asarray(out, np.float64), expected)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (np.float32([1.0]), jnp.int32),
        (np.float32([1.0]), jnp.bool_),
        (np.int32([1]), jnp.bool_),
        (np.complex64([1.0]), jnp.float32),
        (np.int32([300]), jnp.int8),
        (np.float32([1e5]), jnp.float16),
        (np.float64([1e300]), jnp.float32),
    ],
)
def test_casts_that_lose_the_meaning_are_refused(value, dtype):
    with pytest.raises(CastError, match="head/w"):
        placed("head/w", value, jnp.zeros(1, dtype))


def test_keys_go_to_keys_only():
    key = jax.random.key(1)
    assert placed("rng", key, jax.random.key(0)) == key
    with pytest.raises(CastError, match="rng"):
        placed("rng", np.zeros((), np.uint32), jax.random.key(0))
