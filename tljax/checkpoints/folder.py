"""Which file to read: in a Hugging Face folder (config.json and weights), beside an index, or the path itself."""

import itertools
import json
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tljax.checkpoints.detect import SUFFIXES
from tljax.checkpoints.errors import CheckpointError, guard, shown
from tljax.checkpoints.orbax import is_orbax
from tljax.checkpoints.safetensors import read_header
from tljax.checkpoints.sharded import SUFFIX as INDEX_SUFFIX

CONFIG = "config.json"
MAX_CONFIG = 16 << 20
_PREFERRED = (
    "model.safetensors",
    "model.safetensors.index.json",
    "adapter_model.safetensors",
    "flax_model.msgpack",
    "flax_model.msgpack.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "adapter_model.bin",
)
_NO_WEIGHTS = re.compile(r"(optimizer|scheduler|scaler|rng_state(_\d+)?|training_args|trainer_state)\.")
"""What training scripts put beside the weights, under suffixes that weights have too."""


class Found(NamedTuple):
    """Where the weights are."""

    path: pathlib.Path
    """A file, or an orbax folder."""
    notes: tuple[str, ...]


def find_weights(path: pathlib.Path, format: str | None = None) -> Found:
    """The weight file that `path` means; in a folder, if there is a choice, the one of the `format` wanted.

    A folder means its weights under one of the names Hugging Face gives them, else the only weight file in it, else
    the orbax checkpoint it is. A file name that is not there means the shards whose index stands beside it.

    Raises `CheckpointError` with what there is, if that decides nothing.
    """
    with guard(path, "looking for weights"):
        return _find(path, format)


def _find(path: pathlib.Path, format: str | None) -> Found:
    if path.is_dir():
        if is_orbax(path):
            return Found(path, ())
        with guard(path, "listing"):
            there = sorted(file.name for file in path.iterdir() if file.is_file())
            deeper = (file for file in path.glob("*/*") if file.suffix in SUFFIXES and file.is_file())
            there += sorted(file.relative_to(path).as_posix() for file in itertools.islice(deeper, 5))
        name, notes = choose(there, format, path)
        return Found(path / name, notes)
    if path.is_file():
        return Found(path, ())
    index = path.with_name(path.name + INDEX_SUFFIX)
    if index.is_file():
        return Found(index, ())
    if path.exists():  # a pipe would keep us waiting, a device would never end
        raise CheckpointError(f"{path} is neither a file nor a folder")
    if path.is_symlink():
        raise CheckpointError(f"{path} is a link that leads nowhere: to {os.readlink(path)}")
    raise CheckpointError(f"{path} does not exist{_nearby(path)}")


def read_config(folder: pathlib.Path) -> dict[str, Any] | None:
    """What config.json in `folder` says, or None if there is none.

    Raises `CheckpointError` where it is no JSON object.
    """
    file = folder / CONFIG
    if not file.is_file():
        return None
    with guard(file, "reading"):
        if file.stat().st_size > MAX_CONFIG:
            raise CheckpointError(f"{file}: a configuration of more than {MAX_CONFIG} bytes")
        return read_header(file.read_bytes(), file)


def choose(there: Sequence[str], format: str | None, folder: object) -> tuple[str, tuple[str, ...]]:
    """The weight file among the files `there` of `folder`, and what should be known of the choice.

    Raises `CheckpointError` where there is none, or no telling which.

    >>> choose(["config.json", "model.safetensors", "pytorch_model.bin"], None, "weights")
    ('model.safetensors', ('model.safetensors was read; pytorch_model.bin was not',))
    """
    names = [name for name in there if "/" not in name and format in (None, _promised(name))]
    present = [name for name in _PREFERRED if name in names]
    if present:
        rest = ", ".join(present[1:])
        return present[0], (f"{present[0]} was read; {rest} was not",) if rest else ()
    for candidates in _candidates(names):
        if len(candidates) == 1:
            return candidates[0], ()
        if candidates:
            raise CheckpointError(
                f"{folder} holds several weight files, give the path of one: {shown(candidates, 300)}"
            )
    held = shown(", ".join(there), 300) if there else "no files"
    deeper = [name for name in there if "/" in name and pathlib.PurePath(name).suffix in SUFFIXES]
    hint = f"; give the path of one, as {folder}/{deeper[0]}" if deeper else ""
    raise CheckpointError(
        f"{folder} holds no weights: expected {', '.join(_PREFERRED[:2])} or the like, found {held}{hint}"
    )


def _candidates(names: Sequence[str]) -> Iterator[list[str]]:
    """The files of `names` that may hold weights, the kinds to be preferred first."""
    names = [name for name in names if not _NO_WEIGHTS.match(name)]
    yield [name for name in names if name.endswith(INDEX_SUFFIX)]
    for kind in ("safetensors", "npz", "msgpack", "torch"):
        yield [name for name in names if _promised(name) == kind and not name.endswith(INDEX_SUFFIX)]


def _promised(name: str) -> str | None:
    return SUFFIXES.get(pathlib.Path(name.removesuffix(INDEX_SUFFIX)).suffix.lower())


def _nearby(path: pathlib.Path) -> str:
    from tljax.tree import nearest

    try:
        names = [file.name for file in path.parent.iterdir()]
    except OSError:
        return f", nor does the folder {path.parent}"
    close = nearest(path.name, names)
    return f"; nearest in {path.parent}: {json.dumps(close)[1:-1]}" if close else f" in {path.parent}"
