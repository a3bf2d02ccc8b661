"""Bytes of a file into arrays: read once, straight into the memory where the array stays."""

import math
import mmap
import os
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from tljax.checkpoints.errors import CheckpointError, guard, shown

K = TypeVar("K", bound=Hashable)
ALIGNMENT = 64
"""JAX on a CPU takes over memory aligned like this without a copy."""
CHUNK = 1 << 20
MAX_NDIM = 32


class Span(NamedTuple):
    """Where the bytes of an array stand in a file: the places of its pieces (nearly always one), in order."""

    spec: jax.ShapeDtypeStruct
    pieces: tuple[tuple[int, int], ...]
    """Offset and number of bytes of each."""


class FileState(NamedTuple):
    """What tells that a file is still the one whose header was read."""

    size: int
    inode: int
    modified: int


def file_state(file: Any) -> FileState:
    """The state of an open file."""
    found = os.fstat(file.fileno())
    return FileState(found.st_size, found.st_ino, found.st_mtime_ns)


def size_of(spec: jax.ShapeDtypeStruct) -> int:
    """The bytes of an array like `spec`.

    >>> size_of(jax.ShapeDtypeStruct((3, 2), "float32"))
    24
    """
    return math.prod(spec.shape) * spec.dtype.itemsize


def checked_spec(shape: Any, dtype: np.dtype, where: str) -> jax.ShapeDtypeStruct:
    """The spec of an array as a file describes it; raises unless `shape` is a list of possible lengths.

    >>> checked_spec([2, True], np.dtype("int8"), "a.npz: 'w'")
    Traceback (most recent call last):
    tljax.checkpoints.errors.CheckpointError: a.npz: 'w' has shape [2, True]; expected up to 32 whole numbers >= 0
    """
    whole = isinstance(shape, list | tuple) and all(type(n) is int and 0 <= n < 2**63 for n in shape)
    # An empty array may claim huge other lengths; NumPy and JAX count them all.
    if not whole or len(shape) > MAX_NDIM or math.prod(max(n, 1) for n in shape) * dtype.itemsize >= 2**63:
        raise CheckpointError(f"{where} has shape {shown(shape)}; expected up to {MAX_NDIM} whole numbers >= 0")
    return jax.ShapeDtypeStruct(tuple(shape), dtype)


def empty(spec: jax.ShapeDtypeStruct) -> np.ndarray:
    """An uninitialised array like `spec`, aligned for JAX.

    >>> empty(jax.ShapeDtypeStruct((3,), "float32")).ctypes.data % 64
    0
    """
    return _memory(size_of(spec)).view(spec.dtype).reshape(spec.shape)


def _memory(size: int) -> np.ndarray:
    """`size` bytes, aligned.

    Large pieces come from the system in ordinary pages. NumPy would ask for huge pages, which a busy machine must first
    clear a place for: reading 1 GB into them took 3.9 s instead of 1.0 s.
    """
    if size >= CHUNK and hasattr(mmap, "MAP_PRIVATE"):
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return np.frombuffer(pages, np.uint8)
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


def as_bytes(array: np.ndarray) -> memoryview:
    """The memory of a C-contiguous array, without a copy.

    >>> bytes(as_bytes(np.array([1, 2], np.int16)))
    b'\\x01\\x00\\x02\\x00'
    """
    return array.reshape(-1).view(np.uint8).data


def fill(readinto: Callable[[memoryview], int | None], target: memoryview, where: str) -> None:
    """Fill `target` from `readinto`, in as many calls as it takes; raises when the file ends early."""
    done = 0
    while done < len(target):
        n = readinto(target[done:])
        if not n:
            raise CheckpointError(f"{where} ends after {done} of {len(target)} bytes: the file is truncated")
        done += n


def read_spans(path: os.PathLike[str], state: FileState, spans: Mapping[K, Span]) -> dict[K, np.ndarray]:
    """The arrays at `spans` of the file, read in the order in which they stand there.

    Raises where the file is no longer the one of which `state` was taken.
    """
    arrays: dict[K, np.ndarray] = {}
    with guard(path, "reading"), open(path, "rb", buffering=0) as file:
        if file_state(file) != state:
            raise CheckpointError(f"{path}: the file changed after its header was read")
        for key, span in sorted(spans.items(), key=lambda item: item[1].pieces[:1]):
            array = empty(span.spec)
            target, done = as_bytes(array), 0
            for offset, size in span.pieces:
                file.seek(offset)
                fill(file.readinto, target[done : done + size], f"{path}: {shown(key)}")
                done += size
            arrays[key] = array
    return {key: arrays[key] for key in spans}


def count_nonfinite(array: np.ndarray) -> int:
    """How many elements are NaN or infinite; looked at in pieces, so that it needs no memory to speak of.

    >>> count_nonfinite(np.array([[1.0, np.nan], [np.inf, 0.0]], np.float32))
    2
    """
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        return 0
    flat = array.reshape(-1)
    step = max(CHUNK // array.dtype.itemsize, 1)
    return sum(_count_chunk(flat[i : i + step]) for i in range(0, flat.size, step))


def _count_chunk(chunk: np.ndarray) -> int:
    if chunk.dtype.itemsize == 1:  # ml_dtypes tests float8 one by one; there are only 256 of them
        codes = np.arange(256, dtype=np.uint8).view(chunk.dtype)
        return int(np.count_nonzero(~np.isfinite(codes)[chunk.view(np.uint8)]))
    if chunk.dtype.itemsize == 2:  # tested one by one as well; NaN and inf are those with a full exponent
        full = np.uint16(0x7C00 if chunk.dtype == np.float16 else 0x7F80)
        return int(np.count_nonzero((chunk.view(np.uint16) & full) == full))
    finite = np.isfinite(chunk)
    return 0 if finite.all() else int(np.count_nonzero(~finite))
