"""orbax checkpoints, restored as NumPy arrays: the devices and shardings they were saved with do not matter."""

import logging
import pathlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from tljax.checkpoints import dtypes
from tljax.checkpoints.archive import check_expansion
from tljax.checkpoints.buffers import checked_spec, size_of
from tljax.checkpoints.errors import CheckpointError, guard, shown
from tljax.checkpoints.source import LeafPath, Source

MARKERS = ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt")
"""Files that only an orbax checkpoint has."""
_TREE = "_METADATA"
_ITEMS = ("default", "params", "model", "state")
_STEP = re.compile(r"(?:\D*[_.-])?(\d+)")


def is_orbax(folder: pathlib.Path) -> bool:
    """Whether `folder` is an orbax checkpoint, or holds numbered ones."""
    return any((folder / name).exists() for name in MARKERS) or bool(_steps(folder))


def open_orbax(path: pathlib.Path) -> Source:
    """Read the metadata of the orbax checkpoint at `path`.

    `path` may be the saved tree itself, a checkpoint of several items, of which `default`, `params`, `model` or
    `state` is taken, or a run's folder of numbered checkpoints, of which the last is taken; the notes say so.

    Raises `CheckpointError` where arrays are missing or damaged.
    """
    import orbax.checkpoint as ocp

    folder, notes = _tree_folder(path)
    with guard(folder, "reading the orbax metadata"), _quiet():
        metadata = ocp.PyTreeCheckpointer().metadata(folder.absolute()).item_metadata
        if metadata is None:
            raise CheckpointError(f"{folder}: its orbax metadata cannot be read: damaged or incomplete")
        found = jax.tree_util.tree_flatten_with_path(metadata.tree, is_leaf=lambda x: x is None)
        leaves, structure = found[0], found[1]
        specs: dict[LeafPath, jax.ShapeDtypeStruct] = {}
        others: dict[LeafPath, str] = {}
        order = [tuple(_key(key) for key in keys) for keys, _ in leaves]
        for key, (_, leaf) in zip(order, leaves):
            if isinstance(getattr(leaf, "dtype", None), np.dtype) and dtypes.is_weight(leaf.dtype):
                specs[key] = checked_spec(list(leaf.shape), leaf.dtype, f"{folder}: {shown('/'.join(key))!r}")
            else:
                others[key] = type(leaf).__name__
    if len(specs) + len(others) != len(leaves):
        raise CheckpointError(f"{folder}: leaves share a name: {shown(sorted(order))}")
    check_expansion(sum(map(size_of, specs.values())), _bytes_in(folder), folder)

    def read(paths: Sequence[LeafPath]) -> dict[LeafPath, np.ndarray]:
        wanted = set(paths)
        as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
        item = jax.tree.unflatten(
            structure, [leaf if k in wanted else ocp.PLACEHOLDER for k, (_, leaf) in zip(order, leaves)]
        )
        arguments = jax.tree.unflatten(structure, [as_numpy] * len(leaves))
        with guard(folder, "reading the orbax arrays"), _quiet():
            found = ocp.PyTreeCheckpointer().restore(folder.absolute(), item=item, restore_args=arguments)
            flat = dict(zip(order, jax.tree.leaves(found, is_leaf=lambda x: x is None), strict=True))
            return {key: np.asarray(flat[key]) for key in paths}

    return Source(path, "orbax", specs, read, "/", others, notes=tuple(notes))


def write_orbax(folder: pathlib.Path, tree: Any) -> None:
    """Write a nested dict of NumPy arrays as an orbax checkpoint into the new `folder`."""
    import orbax.checkpoint as ocp

    with guard(folder, "writing the orbax checkpoint"), _quiet():
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


def _key(key: Any) -> str:
    return jax.tree_util.keystr((key,), simple=True)


def _bytes_in(folder: pathlib.Path) -> int:
    with guard(folder, "listing"):
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what orbax and asyncio log: damage becomes one error here, the rest is about devices we do not use."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
