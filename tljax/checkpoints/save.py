"""Trees to weight files, whole or not at all."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from tljax.checkpoints import dtypes
from tljax.checkpoints.atomic import atomic_file, atomic_folder
from tljax.checkpoints.buffers import size_of
from tljax.checkpoints.detect import SUFFIXES
from tljax.checkpoints.errors import CheckpointError
from tljax.checkpoints.hub import is_hub_name
from tljax.checkpoints.npz import write_npz
from tljax.checkpoints.orbax import MARKERS, write_orbax
from tljax.checkpoints.report import total_size
from tljax.checkpoints.safetensors import write_order, write_safetensors
from tljax.checkpoints.sharded import SUFFIX as INDEX_SUFFIX
from tljax.checkpoints.sharded import index_of, read_index
from tljax.checkpoints.torch import import_torch, write_torch
from tljax.tree import from_named, named_leaves

FORMATS = ("safetensors", "npz", "msgpack", "orbax", "torch")


def save_weights(
    tree: Any,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    separator: str | None = None,
    metadata: Mapping[str, str] | None = None,
    max_shard_size: int | None = None,
) -> None:
    """Save the arrays of any pytree; `load_weights` gives them back bit for bit.

    The file takes its place in one step: a crash or a full disk leaves what was there before.

    Args:
      tree: a nested dict, FrozenDict, NNX state, Equinox module ...; its leaves are called as `tljax.tree` calls them.
      path: where to; the folder must exist. The suffix tells the format: .safetensors, .npz, .msgpack, .orbax (a
        folder), .pt .pth .bin (with the `torch` extra).
      format: "safetensors", "npz", "msgpack", "orbax" or "torch", whatever the suffix.
      separator: what stands for the "/" of the names in flat files (safetensors, npz, torch). By default "." in torch
        files, "/" in the others.
      metadata: strings by name, kept in the header of safetensors.
      max_shard_size: in bytes; a larger safetensors file is cut into ``NAME-00001-of-00003.safetensors`` ... beside
        ``NAME.safetensors.index.json``, as Hugging Face does.

    Raises:
      CheckpointError: a leaf or an argument does not fit the format, or the file cannot be written.

    >>> import tempfile
    >>> from tljax.checkpoints import load_weights
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights({"norm": {"scale": np.ones(2, np.float16)}}, f"{folder}/model.npz")
    ...     load_weights(f"{folder}/model.npz")
    {'norm': {'scale': array([1., 1.], dtype=float16)}}
    """
    if is_hub_name(path):
        raise CheckpointError(f"{path}: the Hub is read only here; save to a file and upload it with `hf upload`")
    target = pathlib.Path(path)
    kind = _format(target, format)
    if kind != "safetensors" and (metadata or max_shard_size is not None):
        raise CheckpointError(f"{path}: metadata and max_shard_size are for safetensors; the format here is {kind}")
    if target.is_dir() and kind != "orbax":
        raise CheckpointError(f"{path} is a folder; give the name of a file in it, such as model.safetensors")
    if kind == "orbax" and target.exists() and not (target / MARKERS[0]).exists():
        raise CheckpointError(f"{path} is there already and is no orbax checkpoint, so it is not replaced")
    leaves = {name: _weight(name, leaf) for name, leaf in named_leaves(tree).items()}
    if not leaves:
        raise CheckpointError(f"{path}: the tree has no arrays to save")
    if kind in ("msgpack", "orbax"):
        _save_nested(target, kind, leaves)
        return
    flat = _renamed(leaves, separator or ("." if kind == "torch" else "/"), path)
    if kind == "safetensors":
        _save_safetensors(target, flat, dict(metadata or {}), max_shard_size)
    elif kind == "npz":
        with atomic_file(target) as file:
            write_npz(file, ((name, _array(leaf)) for name, leaf in flat.items()), target)
    else:
        import_torch(target)
        with atomic_file(target) as file:
            write_torch(file, {name: _array(leaf) for name, leaf in flat.items()}, target)


def _format(path: pathlib.Path, format: str | None) -> str:
    if format is None and path.suffix.lower() not in SUFFIXES:
        raise CheckpointError(f"{path}: the suffix tells no format; expected {', '.join(SUFFIXES)}, or format=...")
    if format is not None and format not in FORMATS:
        raise CheckpointError(f"format={format!r}; expected one of {', '.join(FORMATS)}")
    return format or SUFFIXES[path.suffix.lower()]


def _save_nested(path: pathlib.Path, kind: str, leaves: Mapping[str, Any]) -> None:
    tree = from_named({name: _array(leaf) for name, leaf in leaves.items()})
    if kind == "orbax":
        with atomic_folder(path) as folder:
            write_orbax(folder, tree)
        return
    from flax import serialization

    with atomic_file(path) as file:
        file.write(serialization.msgpack_serialize(tree, in_place=True))


def _save_safetensors(
    path: pathlib.Path, leaves: Mapping[str, Any], metadata: dict[str, str], max_shard_size: int | None
) -> None:
    specs = {name: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype) for name, leaf in leaves.items()}
    for name, spec in specs.items():
        if spec.dtype not in dtypes.SAFETENSORS.values() or name == "__metadata__":
            raise CheckpointError(f"{path}: {name!r} is {spec.dtype}, which safetensors does not have; cast it first")
    if not all(isinstance(text, str) for item in metadata.items() for text in item):
        raise CheckpointError(f"{path}: metadata is {metadata!r}; expected strings by name")
    index = path.with_name(path.name + INDEX_SUFFIX)
    shards = _shards(specs, max_shard_size)
    ending = f"-of-{len(shards):05d}{path.suffix}"
    files = [path.with_name(f"{path.stem}-{i:05d}{ending}") for i in range(1, len(shards) + 1)]
    stale = _shards_of(index) - set(files)
    if len(shards) == 1:
        _write_shard(path, shards[0], leaves, specs, metadata)
        index.unlink(missing_ok=True)
    else:
        # A reader finds shards through their index only: so there is none until all of them are there.
        index.unlink(missing_ok=True)
        for file_path, shard in zip(files, shards):
            _write_shard(file_path, shard, leaves, specs, metadata)
        text = json.dumps(index_of({f.name: shard for f, shard in zip(files, shards)}, total_size(specs)), indent=2)
        with atomic_file(index) as file:
            file.write(text.encode())
        path.unlink(missing_ok=True)
    for file_path in stale:
        file_path.unlink(missing_ok=True)


def _shards_of(index: pathlib.Path) -> set[pathlib.Path]:
    """The shards of the tree that was saved here before."""
    try:
        return {index.with_name(name) for name in read_index(index)["weight_map"].values()}
    except CheckpointError:
        return set()


def _write_shard(
    path: pathlib.Path,
    names: list[str],
    leaves: Mapping[str, Any],
    specs: Mapping[str, jax.ShapeDtypeStruct],
    metadata: Mapping[str, str],
) -> None:
    chosen = {name: specs[name] for name in write_order({name: specs[name] for name in names})}
    with atomic_file(path) as file:
        write_safetensors(file, chosen, (_array(leaves[name]) for name in chosen), metadata)


def _shards(specs: Mapping[str, jax.ShapeDtypeStruct], max_size: int | None) -> list[list[str]]:
    """Names in order, cut before the one that would make a shard too large; a leaf is never cut."""
    if max_size is not None and max_size < 1:
        raise CheckpointError(f"max_shard_size={max_size}; expected a number of bytes")
    shards: list[list[str]] = [[]]
    size = 0
    for name, spec in specs.items():
        if max_size is not None and shards[-1] and size + size_of(spec) > max_size:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += size_of(spec)
    return shards


def _renamed(leaves: Mapping[str, Any], separator: str, path: object) -> dict[str, Any]:
    renamed = {name.replace("/", separator): leaf for name, leaf in leaves.items()}
    if len(renamed) < len(leaves):
        raise CheckpointError(f"{path}: with separator={separator!r} two leaves have the same name; choose another")
    return renamed


def _weight(name: str, leaf: Any) -> Any:
    """`leaf`, still where it is (perhaps on a device), once it is sure that it can be saved."""
    array = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    if isinstance(array, jax.ShapeDtypeStruct):
        raise CheckpointError(f"{name!r} is only the description of an array ({array}); expected its values")
    if not isinstance(array.dtype, np.dtype) or not dtypes.is_weight(array.dtype):
        raise CheckpointError(f"{name!r} has dtype {array.dtype}; expected numbers or bools")
    return dtypes.native(array) if isinstance(array, np.ndarray) else array


def _array(leaf: Any) -> np.ndarray:
    """`leaf` on the host, in C order."""
    return np.require(np.asarray(leaf), requirements="C")
