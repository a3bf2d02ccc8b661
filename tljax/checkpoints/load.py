"""Weight files to trees: any format, told by its content, unwrapped, and reported."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from tljax.checkpoints.buffers import count_nonfinite
from tljax.checkpoints.detect import detect, mismatch
from tljax.checkpoints.errors import CheckpointError, guard, shown
from tljax.checkpoints.folder import find_weights, read_config
from tljax.checkpoints.hub import fetch, is_hub_name
from tljax.checkpoints.msgpack import open_msgpack
from tljax.checkpoints.names import check_names, nest, tree_name
from tljax.checkpoints.npz import open_npz
from tljax.checkpoints.orbax import open_orbax
from tljax.checkpoints.report import LoadReport, count_dtypes, total_size
from tljax.checkpoints.safetensors import open_safetensors
from tljax.checkpoints.sharded import SUFFIX as INDEX_SUFFIX
from tljax.checkpoints.sharded import open_sharded
from tljax.checkpoints.source import LeafPath, Source
from tljax.checkpoints.torch import open_torch
from tljax.checkpoints.unwrap import Unwrapped, descend, unwrap
from tljax.tree import Spec
from tljax.tree import select as select_leaves

Path = str | os.PathLike[str]

_READERS: Mapping[str, Callable[[pathlib.Path], Source]] = {
    "safetensors": open_safetensors,
    "npz": open_npz,
    "msgpack": open_msgpack,
    "torch": open_torch,
    "orbax": open_orbax,
}


@dataclasses.dataclass(frozen=True)
class Weights:
    """Leaves that were read, and the report of it."""

    leaves: Mapping[str, np.ndarray]
    """The arrays by the names they have in the file. JAX on a CPU may take over their memory, so do not write to them
    after ``jax.device_put``."""
    report: LoadReport

    @property
    def tree(self) -> dict[str, Any]:
        """The leaves as a nested dict, by the rule of `tljax.checkpoints.names`.

        Raises `CheckpointError` when one name is both a leaf and a subtree.
        """
        return nest(self.leaves, self.report.separator, self.report.path)


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """An opened weight file: what is in it, and reading some of it."""

    specs: Mapping[str, jax.ShapeDtypeStruct]
    """Shape and dtype of every leaf, by the name it has in the file."""
    report: LoadReport
    """The report as if all were read, but for NaN and inf, which are not known yet."""
    _source: Source
    _places: Mapping[str, LeafPath]

    @property
    def config(self) -> dict[str, Any] | None:
        """What config.json says that stands beside the weights, or in an orbax folder; None where there is none.

        Raises `CheckpointError` where it is no JSON object.
        """
        return read_config(self.folder)

    @property
    def folder(self) -> pathlib.Path:
        """The folder in which the weights stand, or the orbax folder that they are."""
        path = pathlib.Path(self.report.path)
        return path if path.is_dir() else path.parent

    def read(self, select: Spec = None) -> Weights:
        """Read the leaves that `select` selects by their tljax names (with "/"), or all.

        Raises `CheckpointError` for damaged data, `tljax.tree.NoMatchError` for a selector that matches nothing.
        """
        chosen = self.specs if select is None else self._selected(select)
        with guard(self.report.path, "reading"):
            found = self._source.read([self._places[name] for name in chosen])
        leaves = {name: found[self._places[name]] for name in chosen}
        for name, array in leaves.items():
            _check_bools(array, f"{self.report.path}: {shown(name)!r}")
        counts = {name: count_nonfinite(array) for name, array in leaves.items()}
        report = dataclasses.replace(
            self.report,
            dtypes=count_dtypes(chosen),
            nbytes=total_size(chosen),
            not_selected=len(self.specs) - len(chosen),
            nonfinite={name: n for name, n in counts.items() if n},
        )
        return Weights(leaves, report)

    def _selected(self, select: Spec) -> dict[str, jax.ShapeDtypeStruct]:
        in_file = {tree_name(name, self.report.separator): name for name in self.specs}
        specs = {name: self.specs[in_file[name]] for name in in_file}
        return {in_file[name]: specs[name] for name in select_leaves(select).names(specs)}


def load_weights(
    path: Path,
    *,
    select: Spec = None,
    format: str | None = None,
    root: str | None = None,
    report: Callable[[LoadReport], object] | None = None,
) -> dict[str, Any]:
    """The weights at `path` as a nested dict of NumPy arrays, each exactly as stored.

    Reads safetensors (also sharded), npz, flax msgpack, orbax, torch files (with the `torch` extra) and Hugging Face
    folders, told by their content. Nothing in a file is ever executed. Optimiser state and wrappers such as
    ``{"state_dict": ...}`` are taken off.

    Args:
      path: a file, a folder, or a model on the Hugging Face Hub (extra `hub`): ``"hf://owner/name"``, with
        ``@revision`` and ``/a/file.safetensors`` if need be.
      select: which leaves to read, by their names in the tree; safetensors, npz, msgpack and orbax then read no others.
      format: "safetensors", "npz", "msgpack", "torch" or "orbax", instead of recognising it.
      root: the key under which the weights stand, such as "model_ema"; "" takes the whole file as it is.
      report: called with the `LoadReport`; try ``report=print``.

    Raises:
      CheckpointError: the file cannot be read, whole and without doubt.
      NoMatchError: `select` matches nothing.

    >>> import tempfile
    >>> from tljax.checkpoints import save_weights
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights({"head": {"bias": np.zeros(3), "kernel": np.ones((2, 3))}}, f"{folder}/model.safetensors")
    ...     load_weights(f"{folder}/model.safetensors", select="**/bias")
    {'head': {'bias': array([0., 0., 0.])}}
    """
    weights = read_weights(path, select=select, format=format, root=root)
    if report is not None:
        report(weights.report)
    return weights.tree


def read_weights(path: Path, *, select: Spec = None, format: str | None = None, root: str | None = None) -> Weights:
    """As `load_weights`, but the leaves by their flat names in the file, and the report beside them.

    >>> import tempfile
    >>> from tljax.checkpoints import save_weights
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights({"fc.weight": np.ones(2, np.float32)}, f"{folder}/model.npz")
    ...     read_weights(f"{folder}/model.npz").leaves
    {'fc.weight': array([1., 1.], dtype=float32)}
    """
    return open_weights(path, format=format, root=root).read(select)


def open_weights(path: Path, *, format: str | None = None, root: str | None = None) -> WeightFile:
    """Open a weight file without reading its arrays (but torch files are read at once; torch cannot do otherwise).

    Arguments and errors are those of `load_weights`.

    >>> import tempfile
    >>> from tljax.checkpoints import save_weights
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights({"fc": {"kernel": np.ones((4, 2), np.float32)}}, f"{folder}/model.msgpack")
    ...     open_weights(f"{folder}/model.msgpack").specs
    {'fc/kernel': ShapeDtypeStruct(shape=(4, 2), dtype=float32)}
    """
    if format is not None and format not in _READERS:
        raise CheckpointError(f"format={format!r}; expected one of {', '.join(_READERS)}")
    found = fetch(path, format) if is_hub_name(path) else find_weights(pathlib.Path(path), format)
    with guard(found.path, "opening"):
        source = _open(found.path, format)
        check_names(map(source.separator.join, source.leaves), source.separator, path)
    inner = _unwrapped(source, root)
    places = {source.separator.join(short): path for short, path in inner.paths.items()}
    if len(places) < len(inner.paths):
        raise CheckpointError(f"{path}: two leaves have the same name once their keys are joined")
    specs = {name: source.leaves[place] for name, place in places.items()}
    if not specs:
        raise CheckpointError(f"{path}: there are no arrays in it")
    others = {source.separator.join(key): text for key, text in source.others.items()}
    notes = [*found.notes, *source.notes, mismatch(found.path, source.format) if found.path.is_file() else None]
    report = LoadReport(
        path=str(found.path),
        format=source.format,
        separator=source.separator,
        dtypes=count_dtypes(specs),
        nbytes=total_size(specs),
        unwrapped=inner.removed,
        left_out=_left_out(inner, others, source.separator),
        metadata=source.metadata,
        notes=tuple(note for note in notes if note),
    )
    return WeightFile(specs, report, source, places)


def _open(path: pathlib.Path, format: str | None) -> Source:
    if path.is_file() and path.name.endswith(INDEX_SUFFIX):
        return open_sharded(path, lambda shard: _open_one(shard, format))
    return _open_one(path, format)


def _open_one(path: pathlib.Path, format: str | None) -> Source:
    kind = format or ("orbax" if path.is_dir() else detect(path))
    if (kind == "orbax") != path.is_dir():
        raise CheckpointError(f"{path} is a {'folder' if path.is_dir() else 'file'}; {kind} is not read from one")
    return _READERS[kind](path)


def _unwrapped(source: Source, root: str | None) -> Unwrapped:
    if root is None:
        return unwrap(source.leaves, source.separator)
    outer = descend(source.leaves, root, source.path)
    if not root:
        return outer
    inner = unwrap({short: source.leaves[path] for short, path in outer.paths.items()}, source.separator)
    paths = {short: outer.paths[middle] for short, middle in inner.paths.items()}
    under = {f"{root}{source.separator}{key}": reason for key, reason in inner.left_out.items()}
    return Unwrapped(paths, outer.removed + inner.removed, {**outer.left_out, **under})


def _left_out(inner: Unwrapped, others: Mapping[str, str], separator: str) -> dict[str, str]:
    """What is no weight, optimiser state as one line."""
    covered = tuple(key + separator for key in inner.left_out)
    rest = {name: text for name, text in others.items() if not name.startswith(covered)}
    return {**inner.left_out, **{shown(name): text for name, text in rest.items()}}


def _check_bools(array: np.ndarray, where: str) -> None:
    if array.dtype == np.bool_ and array.size and array.view(np.uint8).max() > 1:
        raise CheckpointError(f"{where} is bool and has the byte {array.view(np.uint8).max()}; expected 0 or 1")
