"""Features in files: each in one safetensors file, named by its fingerprint, whole or not there, mapped when read."""

import json
import pathlib
import zlib
from typing import Any

import jax
import numpy as np

from tljax.checkpoints import CheckpointError
from tljax.checkpoints.atomic import atomic_file
from tljax.checkpoints.buffers import as_bytes
from tljax.checkpoints.safetensors import map_safetensors, write_order, write_safetensors
from tljax.features.inputs import FeatureError

_SUMS = "crc32"


def usable(folder: pathlib.Path) -> pathlib.Path:
    """`folder`, made where it is not there. Raises `FeatureError` where it cannot be."""
    folder = folder.expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FeatureError(f"cache: there can be no folder '{folder}': {error.strerror or error}") from error
    return folder


def write(folder: pathlib.Path, key: str, arrays: dict[str, np.ndarray]) -> None:
    """Keep `arrays` under `key`. Of several who write at once the last one stays, and all wrote the same."""
    names = write_order({name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in arrays.items()})
    ordered = {name: np.ascontiguousarray(arrays[name]) for name in names}
    specs = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in ordered.items()}
    sums = json.dumps({name: _sum(array) for name, array in ordered.items()})
    with atomic_file(_path(folder, key)) as file:
        write_safetensors(file, specs, iter(ordered.values()), {"fingerprint": key, _SUMS: sums})


def read(folder: pathlib.Path, key: str, size: int) -> dict[str, np.ndarray] | None:
    """The arrays `[size, ...]` that are kept under `key`, mapped into memory and read-only; None where there are none.

    Raises `CheckpointError` where the file is damaged: cut short, or with other bits than were written.
    """
    path = _path(folder, key)
    if not path.exists():
        return None
    arrays, metadata = map_safetensors(path)
    try:
        sums: Any = json.loads(metadata[_SUMS])
        whole = metadata["fingerprint"] == key and "features" in arrays
        whole = whole and sums == {name: _sum(array) for name, array in arrays.items()}
    except (KeyError, ValueError):
        whole = False
    if not whole or any(len(array) != size for array in arrays.values()):
        raise CheckpointError(f"{path} is damaged: it does not hold what was written into it")
    return arrays


def _path(folder: pathlib.Path, key: str) -> pathlib.Path:
    return folder / f"{key}.safetensors"


def _sum(array: np.ndarray) -> int:
    return zlib.crc32(as_bytes(array))
