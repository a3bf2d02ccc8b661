import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.checkpoints import buffers, dtypes
from tljax.checkpoints.errors import CheckpointError

FLOATS = [d for d in dtypes.BY_NAME.values() if jnp.issubdtype(d, jnp.inexact)]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nonfinite_count_is_that_of_the_values_one_by_one(dtype):
    rng = np.random.default_rng(0)
    array = rng.integers(256, size=(4099, dtype.itemsize), dtype=np.uint8).view(dtype)
    by_value = sum(not np.isfinite(complex(x)) for x in array.reshape(-1)[:4099])
    assert buffers.count_nonfinite(array) == by_value
    assert by_value > 0 or dtype.itemsize > 4


@pytest.mark.parametrize("dtype", [d for d in dtypes.BY_NAME.values() if d not in FLOATS], ids=str)
def test_integers_are_finite(dtype):
    assert buffers.count_nonfinite(np.ones(3, dtype)) == 0


def test_nonfinite_elements_are_found_at_the_seams_of_chunks():
    n = buffers.CHUNK // 4
    array = np.zeros(3 * n + 1, np.float32)
    array[[0, n - 1, n, 2 * n, 3 * n]] = [np.nan, np.inf, -np.inf, np.nan, np.nan]
    assert buffers.count_nonfinite(array) == 5


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5,), (7, 11), (buffers.CHUNK + 3,)])
@pytest.mark.parametrize("dtype", [np.dtype(np.int8), jnp.dtype(jnp.bfloat16), np.dtype(np.complex128)], ids=str)
def test_empty_arrays_are_aligned_writable_and_contiguous(shape, dtype):
    array = buffers.empty(jax.ShapeDtypeStruct(shape, dtype))
    assert array.shape == shape
    assert array.dtype == dtype
    assert array.size == 0 or array.ctypes.data % buffers.ALIGNMENT == 0
    assert array.flags.c_contiguous
    assert array.flags.writeable


def test_jax_takes_large_arrays_over_without_a_copy():
    array = buffers.empty(jax.ShapeDtypeStruct((1 << 20,), np.dtype(np.float32)))
    array[:] = 1
    assert jax.device_put(array).unsafe_buffer_pointer() == array.ctypes.data


@pytest.mark.parametrize(
    "shape", [[-1], [1.0], [True], "ab", 3, None, [2**63], [2**40, 2**40], [0, 2**62, 8], [1] * 33, {"a": 1}]
)
def test_impossible_shapes(shape):
    with pytest.raises(CheckpointError, match=r"^f: 'w' has shape .*; expected up to 32 whole numbers"):
        buffers.checked_spec(shape, np.dtype(np.float32), "f: 'w'")


def test_reading_notices_another_file(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(bytes(range(8)))
    span = buffers.Span(jax.ShapeDtypeStruct((2,), np.dtype(np.uint8)), ((6, 1), (1, 1)))
    with path.open("rb") as file:
        state = buffers.file_state(file)
    assert buffers.read_spans(path, state, {"w": span})["w"].tolist() == [6, 1]
    os.truncate(path, 7)
    with pytest.raises(CheckpointError, match="changed after its header was read"):
        buffers.read_spans(path, state, {"w": span})


def test_a_short_file_is_truncated_not_padded(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    with path.open("rb") as file:
        state = buffers.file_state(file)
    span = buffers.Span(jax.ShapeDtypeStruct((4,), np.dtype(np.uint8)), ((1, 4),))
    with pytest.raises(CheckpointError, match="ends after 2 of 4 bytes"):
        buffers.read_spans(path, state, {"w": span})
