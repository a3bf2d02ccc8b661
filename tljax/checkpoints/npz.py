"""npz: a zip of .npy arrays, as big_vision and the Google ViT and BiT releases use it, with "/"-joined names.

NumPy's format does not know bfloat16 and files it as two-byte "void" (`V2`), which is read back as bfloat16 here.
Pickled objects are never read.
"""

import pathlib
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np

from tljax.checkpoints import dtypes
from tljax.checkpoints.archive import open_archive
from tljax.checkpoints.buffers import CHUNK, as_bytes, checked_spec, empty, fill, size_of
from tljax.checkpoints.errors import CheckpointError, guard, shown
from tljax.checkpoints.names import separator_of
from tljax.checkpoints.source import LeafPath, Source

_SUFFIX = ".npy"
_VOID2 = np.dtype("V2")


def open_npz(path: pathlib.Path) -> Source:
    """Read the headers of the arrays in an .npz file.

    Raises `CheckpointError` for a damaged archive and for arrays of Python objects.
    """
    specs: dict[str, jax.ShapeDtypeStruct] = {}
    others: dict[LeafPath, str] = {}
    with open_archive(path) as (archive, members):
        for member, info in members.items():
            where = f"{path}: {shown(member)!r}"
            with _member(archive, info) as file:
                shape, _, dtype = _read_header(file, where)
                _check_size(shape, dtype, info.file_size - file.tell(), where)
            name = member.removesuffix(_SUFFIX)
            if not member.endswith(_SUFFIX) or name in specs:
                raise CheckpointError(f"{path}: member {shown(member)!r}; expected one array a member, as NAME.npy")
            if dtype.kind in "SUmM":  # strings and dates: a description of the weights, not a part of them
                others[(name,)] = f"array of {dtype}"
            elif dtypes.is_weight(dtype):
                specs[name] = checked_spec(shape, dtype.newbyteorder("="), where)
            else:
                raise CheckpointError(f"{where} has dtype {dtype}, which no weight has")
    separator = separator_of(list(specs))
    names = {tuple(name.split("/")) if separator == "/" else (name,): name for name in specs}

    def read(paths: Sequence[LeafPath]) -> dict[LeafPath, np.ndarray]:
        with open_archive(path) as (archive, members):
            return {key: _read_array(archive, members, names[key], path) for key in paths}

    return Source(path, "npz", {key: specs[name] for key, name in names.items()}, read, separator, others)


def write_npz(file: BinaryIO, arrays: Iterator[tuple[str, np.ndarray]], path: pathlib.Path) -> None:
    """Write named arrays into `file`, uncompressed; one is in memory at a time."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays:
            if array.dtype == jnp.bfloat16:
                array = array.view(_VOID2)
            elif dtypes.is_extended(array.dtype):
                raise CheckpointError(
                    f"{path}: {name!r} is {array.dtype}, which npz cannot tell from raw bytes; "
                    "save as .safetensors, or cast it first"
                )
            # A fixed date: the same weights make the same file.
            with archive.open(zipfile.ZipInfo(name + _SUFFIX), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Any:
    return archive.open(info)  # typed as a plain stream, which would lack readinto


def _read_header(file: Any, where: str) -> tuple[Any, bool, np.dtype]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    # A damaged header makes NumPy, and Python's literal parser, warn before they fail.
    with guard(where, "reading the .npy header"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        version = np.lib.format.read_magic(file)
        if version not in readers:
            raise CheckpointError(f"{where} is .npy version {version}; weights are written as 1.0 or 2.0")
        shape, fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise CheckpointError(
            f"{where} holds Python objects, which only pickle could read, and a pickle can run code; "
            "save it as plain numeric arrays"
        )
    return shape, fortran, jnp.dtype(jnp.bfloat16) if dtype == _VOID2 else dtype


def _check_size(shape: Any, dtype: np.dtype, held: int, where: str) -> None:
    spec = checked_spec(shape, dtype, where)
    if held != size_of(spec):
        raise CheckpointError(f"{where} has {held} bytes; {dtype} of shape {list(spec.shape)} takes {size_of(spec)}")


def _read_array(
    archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], name: str, path: pathlib.Path
) -> np.ndarray:
    where = f"{path}: {shown(name)!r}"
    with guard(where, "unpacking"), _member(archive, members[name + _SUFFIX]) as file:
        shape, fortran, dtype = _read_header(file, where)
        stored = checked_spec(shape[::-1] if fortran else shape, dtype, where)
        array = empty(stored)
        target = as_bytes(array)
        for start in range(0, len(target), CHUNK):
            fill(file.readinto, target[start : start + CHUNK], where)
        if file.read(1):  # reaching the end is also what makes zipfile compare the checksum
            raise CheckpointError(f"{where} has bytes after its {array.nbytes} of data")
    array = dtypes.native(array)
    return np.ascontiguousarray(array.T) if fortran else array
