"""Sharded weights: an index (``model.safetensors.index.json``) that tells in which file each leaf stands."""

import os
import pathlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tljax.checkpoints.buffers import size_of
from tljax.checkpoints.errors import CheckpointError, guard, shown
from tljax.checkpoints.names import separator_of
from tljax.checkpoints.safetensors import MAX_HEADER, read_header
from tljax.checkpoints.source import LeafPath, Source

SUFFIX = ".index.json"


def open_sharded(path: pathlib.Path, open_file: Callable[[pathlib.Path], Source]) -> Source:
    """Open every shard named in the index at `path`, with `open_file`.

    Raises `CheckpointError` for a missing shard, a shard outside the folder, and a leaf that is not where the index
    says. Leaves that no line of the index names are left out; the notes tell.
    """
    index = read_index(path)
    weight_map = index["weight_map"]
    names_in: dict[str, list[str]] = {}
    for name, shard in weight_map.items():
        names_in.setdefault(shard, []).append(name)
    missing = [shard for shard in names_in if not (path.parent / shard).is_file()]
    if missing:
        raise CheckpointError(
            f"{path}: {len(missing)} of {len(names_in)} shards are missing: {shown(', '.join(missing), 300)}"
        )
    shards = {shard: open_file(path.parent / shard) for shard in sorted(names_in)}
    notes = [f"{len(shards)} shards"]
    places: dict[LeafPath, str] = {}
    for shard, source in shards.items():
        found = _paths_of(names_in[shard], source, path)
        places.update(dict.fromkeys(found, shard))
        if len(source.leaves) > len(found):
            notes.append(f"{len(source.leaves) - len(found)} leaves of {shard} are not in the index, and not read")

    def read(paths: Sequence[LeafPath]) -> dict[LeafPath, np.ndarray]:
        arrays: dict[LeafPath, np.ndarray] = {}
        for shard, source in shards.items():
            arrays.update(source.read([key for key in paths if places[key] == shard]))
        return {key: arrays[key] for key in paths}

    first = next(iter(shards.values()))
    specs = {key: shards[shard].leaves[key] for key, shard in places.items()}
    notes += _doubts(index, shards, sum(map(size_of, specs.values())))
    separator = first.separator if first.separator == "/" else separator_of(list(weight_map))
    return Source(path, first.format, specs, read, separator, metadata=first.metadata, notes=tuple(notes))


def _paths_of(names: Sequence[str], source: Source, index: pathlib.Path) -> list[LeafPath]:
    """Where the leaves called `names` stand in a shard; raises when one does not."""
    by_name = {source.separator.join(key): key for key in source.leaves}
    if len(by_name) < len(source.leaves):
        raise CheckpointError(f"{source.path}: two leaves have the same name once their keys are joined")
    lost = [name for name in names if name not in by_name]
    if lost:
        raise CheckpointError(f"{index}: {shown(lost[0])!r} should be in {source.path.name}, and is not")
    return [by_name[name] for name in names]


def read_index(path: pathlib.Path) -> dict[str, Any]:
    """The content of an index file, once it is sure that its `weight_map` names plain files.

    Raises `CheckpointError` where it does not.
    """
    with guard(path, "reading the shard index"):
        if os.stat(path).st_size > MAX_HEADER:
            raise CheckpointError(f"{path}: a shard index of more than {MAX_HEADER} bytes")
        index = read_header(path.read_bytes(), path)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path}: weight_map is {shown(weight_map)}; expected leaf names and their files")
    for name, shard in weight_map.items():
        plain = isinstance(shard, str) and "\\" not in shard and "\0" not in shard and shard not in ("", ".", "..")
        if not plain or pathlib.PurePosixPath(shard).name != shard:
            raise CheckpointError(
                f"{path}: {shown(name)!r} is said to stand in {shown(shard)!r}; expected a file in the same folder"
            )
    return index


def index_of(names: Mapping[str, Sequence[str]], total_size: int) -> dict[str, Any]:
    """The content of an index file, from the names of the leaves in each shard and their size in bytes.

    >>> index_of({"model-00001-of-00001.safetensors": ["w"]}, 4)["weight_map"]
    {'w': 'model-00001-of-00001.safetensors'}
    """
    weight_map = {name: shard for shard, inside in names.items() for name in inside}
    return {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}


def _doubts(index: Mapping[str, Any], shards: Collection[str], size: int) -> list[str]:
    """Signs that the index names less than was saved. Some tools write them wrong, so they are no errors."""
    metadata = index.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    promised = {int(found[1]) for shard in shards if (found := re.search(r"-of-(\d{1,9})\b", shard))}
    doubts = [f"the index promises {shown(total)} bytes; its leaves have {size}"] if total not in (None, size) else []
    doubts += [f"{len(shards)} of {n} shards are in the index" for n in promised if n != len(shards)]
    return doubts
