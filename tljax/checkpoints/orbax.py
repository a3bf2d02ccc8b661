"""orbax checkpoints, read as NumPy arrays: the devices and shardings they were saved with do not matter.

An orbax tree is a list of leaves (``_METADATA``) and a zarr array for each, alone in a folder or together in an OCDBT
database.  TensorStore, which orbax itself reads them with, reads them here directly: the answer to a damaged file
is then one exception, where orbax leaves others behind in its threads.
"""

import math
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from tljax.checkpoints import dtypes
from tljax.checkpoints.archive import check_expansion
from tljax.checkpoints.buffers import checked_spec
from tljax.checkpoints.errors import CheckpointError, guard, shown
from tljax.checkpoints.safetensors import MAX_HEADER, read_header
from tljax.checkpoints.source import LeafPath, Source

MARKERS = ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt")
"""Files that only an orbax checkpoint has."""
_TREE = "_METADATA"
_ITEMS = ("default", "params", "model", "state")
_STEP = re.compile(r"(?:\D*[_.-])?(\d+)")
_ARRAYS = ("jax.Array", "np.ndarray", "scalar")


def is_orbax(folder: pathlib.Path) -> bool:
    """Whether `folder` is an orbax checkpoint, or holds numbered ones."""
    return any((folder / name).exists() for name in MARKERS) or bool(_steps(folder))


def open_orbax(path: pathlib.Path) -> Source:
    """Read the metadata of the orbax checkpoint at `path`.

    `path` may be the saved tree itself, a checkpoint of several items, of which `default`, `params`, `model` or
    `state` is taken, or a run's folder of numbered checkpoints, of which the last is taken; the notes say so.

    Raises `CheckpointError` where arrays are missing or damaged.
    """
    folder, notes = _tree_folder(path)
    with guard(folder, "reading the orbax metadata"):
        metadata = _read_metadata(folder / _TREE)
        kinds = _leaf_kinds(metadata, folder)
        names = [key for key, kind in kinds.items() if kind in _ARRAYS]
        stores = dict(zip(names, _open_stores(folder, names, metadata)))
        specs = {key: _spec(store, f"{folder}: {shown('/'.join(key))!r}") for key, store in stores.items()}
        packed = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        check_expansion(sum(map(_memory, stores.values())), packed, folder)

    def read(paths: Sequence[LeafPath]) -> dict[LeafPath, np.ndarray]:
        with guard(folder, "reading the orbax arrays"):
            pending = {key: stores[key].read() for key in paths}
            return {key: np.asarray(future.result()) for key, future in pending.items()}

    others = {key: kind for key, kind in kinds.items() if kind not in _ARRAYS}
    return Source(path, "orbax", specs, read, "/", others, notes=tuple(notes))


def _read_metadata(file: pathlib.Path) -> dict[str, Any]:
    if file.stat().st_size > MAX_HEADER:
        raise CheckpointError(f"{file}: orbax metadata of more than {MAX_HEADER} bytes")
    return read_header(file.read_bytes(), file)


def _leaf_kinds(metadata: dict[str, Any], folder: pathlib.Path) -> dict[LeafPath, str]:
    """What each leaf of the tree is, in orbax's words."""
    leaves = metadata.get("tree_metadata")
    if not isinstance(leaves, dict):
        raise CheckpointError(f"{folder}: tree_metadata is {shown(leaves)}; expected the leaves of the tree")
    kinds: dict[LeafPath, str] = {}
    for name, leaf in leaves.items():
        match leaf:
            case {"key_metadata": [_, *_] as keys, "value_metadata": {"value_type": str(kind)}}:
                path = tuple(str(key["key"]) for key in keys)
            case _:
                raise CheckpointError(f"{folder}: {shown(name)} is {shown(leaf)}; expected its keys and its type")
        parts = ".".join(path).replace("\\", "/").split("/")
        if path in kinds or ".." in parts or parts[0] == "" or "\0" in parts:
            raise CheckpointError(f"{folder}: {shown(name)} is given twice, or leads out of the folder")
        kinds[path] = kind
    return kinds


def _open_stores(folder: pathlib.Path, paths: Sequence[LeafPath], metadata: dict[str, Any]) -> list[Any]:
    """An open TensorStore for each leaf. A chunk that is not there is an error, not zeros."""
    import tensorstore as ts

    context = ts.Context()
    base = f"{folder.absolute()}/"
    pending = []
    for path in paths:
        place: dict[str, Any] = {"driver": "file", "path": f"{base}{'.'.join(path)}/"}
        if metadata.get("use_ocdbt", (folder / "manifest.ocdbt").exists()):
            place = {"driver": "ocdbt", "base": {"driver": "file", "path": base}, "path": f"{'.'.join(path)}/"}
        driver = "zarr3" if metadata.get("use_zarr3") else "zarr"
        spec = {"driver": driver, "kvstore": place, "fill_missing_data_reads": False}
        pending.append(ts.open(spec, open=True, read=True, context=context))
    return [future.result() for future in pending]


def _spec(store: Any, where: str) -> jax.ShapeDtypeStruct:
    dtype = np.dtype(store.dtype.numpy_dtype)
    if not dtypes.is_weight(dtype):
        raise CheckpointError(f"{where} has dtype {dtype}, which no weight has")
    return checked_spec(list(store.shape), dtype, where)


def _memory(store: Any) -> int:
    """The most that reading takes at once: all of the array, or a chunk where that is larger."""
    chunk = math.prod(store.chunk_layout.read_chunk.shape or ())
    return max(math.prod(store.shape), chunk) * store.dtype.numpy_dtype.itemsize


def write_orbax(folder: pathlib.Path, tree: Any) -> None:
    """Write a nested dict of NumPy arrays as an orbax checkpoint into the new `folder`."""
    import orbax.checkpoint as ocp

    with guard(folder, "writing the orbax checkpoint"):
        ocp.PyTreeCheckpointer().save(folder.absolute(), tree)


def _tree_folder(path: pathlib.Path) -> tuple[pathlib.Path, list[str]]:
    """The folder below `path` that holds one saved tree, and what was chosen on the way."""
    folder, notes = path, []
    steps = _steps(folder)
    if steps and not (folder / _TREE).exists():
        folder = steps[max(steps)]
        notes.append(f"step {max(steps)}" + (f", the last of {len(steps)}" if len(steps) > 1 else ""))
    if (folder / _TREE).exists():
        return folder, notes
    with guard(folder, "listing"):
        items = sorted(child.name for child in folder.iterdir() if (child / _TREE).exists())
    chosen = [name for name in _ITEMS if name in items][:1] or (items if len(items) == 1 else [])
    if not chosen:
        held = f"the items {', '.join(items)}; give the path of one" if items else "no saved tree"
        raise CheckpointError(f"{folder}: an orbax checkpoint with {held} (a folder with {_TREE})")
    if len(items) > 1:
        notes.append(f"item {chosen[0]} of {', '.join(items)}")
    return folder / chosen[0], notes


def _steps(folder: pathlib.Path) -> dict[int, pathlib.Path]:
    """The complete numbered checkpoints in `folder`; unfinished ones carry a longer name."""
    with guard(folder, "listing"):
        found = [(_STEP.fullmatch(child.name), child) for child in folder.iterdir() if child.is_dir()]
        return {
            int(match[1]): child
            for match, child in found
            if match and len(match[1]) < 20 and any((child / name).exists() for name in MARKERS)
        }
