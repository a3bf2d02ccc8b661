"""torch files (.pt .pth .bin .th .tar), zip and legacy container, read by ``torch.load(weights_only=True)`` alone.

Needs the `torch` extra.  Every file is followed symbolically first (see `pickles`), so that what torch then does
is known: only tensors and plain data, and every storage has all its bytes in the file.
"""

import io
import mmap
import os
import pathlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import jax
import numpy as np

from tljax.checkpoints import dtypes
from tljax.checkpoints.archive import check_expansion, open_archive
from tljax.checkpoints.buffers import checked_spec, size_of
from tljax.checkpoints.errors import CheckpointError, guard, shown
from tljax.checkpoints.names import separator_of
from tljax.checkpoints.pickles import DTYPES, INERT, Storage, follow
from tljax.checkpoints.source import LeafPath, Source

MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
"""How the legacy container begins: a pickle of the number 0x1950a86a20f9469cfc6c."""
MAX_DEPTH, MAX_NODES = 100, 1_000_000
_BITS = {1: "uint8", 2: "int16"}


def open_torch(path: pathlib.Path) -> Source:
    """Load a torch file; its tensors stay in memory, the arrays share it.

    Raises `CheckpointError` for a file that would call anything but torch's own tensor builders, for missing or
    surplus storage bytes, for sparse and quantised tensors, and without torch.
    """
    torch = import_torch(path)
    with guard(path, "following the torch pickle"), open(path, "rb") as file:
        legacy = file.read(len(MAGIC)) == MAGIC
        (_check_legacy if legacy else _check_zip)(path)
    with guard(path, "torch.load(weights_only=True)"), open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.serialization.safe_globals(_stubs()):
            content = torch.load(file, weights_only=True, map_location="cpu")
    if isinstance(content, torch.Tensor):
        raise CheckpointError(f"{path} is a single tensor without a name; expected a dict of named tensors")
    tensors: dict[LeafPath, Any] = {}
    others: dict[LeafPath, str] = {}
    with guard(path, "reading the tensors"):
        for key, value in _walk(content, path):
            if key in tensors or key in others:
                raise CheckpointError(f"{path}: two values are called {shown('.'.join(key))!r}")
            if isinstance(value, torch.Tensor):
                tensors[key] = value
            else:
                others[key] = shown(repr(value))
        specs = {key: _spec(tensor, f"{path}: {shown('.'.join(key))!r}") for key, tensor in tensors.items()}
    check_expansion(sum(map(size_of, specs.values())), path.stat().st_size, path)

    def read(paths: Sequence[LeafPath]) -> dict[LeafPath, np.ndarray]:
        with guard(path, "reading the tensors"):
            return {key: _array(tensors[key], specs[key].dtype) for key in paths}

    notes = ("legacy container",) if legacy else ()
    separator = separator_of(name for key in tensors for name in key)
    return Source(path, "torch", specs, read, separator, others, notes=notes)


def write_torch(file: BinaryIO, arrays: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
    """Write a state dict of tensors into `file`, in torch's zip container."""
    torch = import_torch(path)
    state = {}
    for name, array in arrays.items():
        if array.dtype.name not in DTYPES:
            raise CheckpointError(f"{path}: {name!r} is {array.dtype}, which torch does not have; cast it first")
        bits = array.view(_BITS[array.dtype.itemsize]) if dtypes.is_extended(array.dtype) else array
        writable = bits if bits.flags.writeable else bits.copy()  # torch warns of arrays that are not
        state[name] = torch.from_numpy(writable).view(getattr(torch, array.dtype.name))
    torch.save(state, file)


def import_torch(path: os.PathLike[str]) -> Any:
    """The torch module, or one error that names the extra."""
    try:
        import torch
    except ImportError as error:
        raise CheckpointError(f"{path} is a torch file, which takes torch: pip install 'tljax[torch]'") from error
    return torch


def _check_zip(path: pathlib.Path) -> None:
    with open_archive(path) as (archive, members):
        roots = [
            name.removesuffix("data.pkl") for name in members if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
        if len(roots) != 1 or f"{roots[0]}constants.pkl" in members:
            kind = "a TorchScript program" if roots else "a zip archive without data.pkl"
            raise CheckpointError(f"{path} is {kind}; expected weights as torch.save writes them")
        _, storages = follow(io.BytesIO(archive.read(members[f"{roots[0]}data.pkl"])), path)
    for key, storage in storages.items():
        member = members.get(f"{roots[0]}data/{key}")
        _check_size(key, storage, member.file_size if member else None, path)


def _check_legacy(path: pathlib.Path) -> None:
    """Magic number, protocol, system, content, storage keys; then for each key its length and its bytes."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for _ in range(3):
            follow(data, path)
        _, storages = follow(data, path)
        keys, _ = follow(data, path)
        at = data.tell()
        if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
            raise CheckpointError(f"{path}: the tensors use {len(storages)} storages, and the file lists {shown(keys)}")
        for key in keys:
            numel = int.from_bytes(data[at : at + 8], "little")
            itemsize = storages[key].itemsize
            _check_size(key, storages[key], min(numel * itemsize, max(len(data) - at - 8, 0)), path)
            at += 8 + storages[key].nbytes
        if at != len(data):
            raise CheckpointError(f"{path}: {len(data) - at} bytes follow the last storage")


def _check_size(key: str, storage: Storage, found: int | None, path: pathlib.Path) -> None:
    if found != storage.nbytes:
        held = "is missing" if found is None else f"has {found} bytes"
        raise CheckpointError(f"{path}: storage {shown(key)!r} {held}; its tensors need {storage.nbytes}")


class _Inert:
    """Stands in for plain data beside the weights, and forgets it."""

    def __init__(self, *_: Any): ...

    def __setstate__(self, _: Any) -> None: ...

    def __repr__(self) -> str:
        return f"{type(self).__module__}.{type(self).__qualname__}"


def _stubs() -> list[type]:
    """An inert class for each name in `INERT`; torch looks classes up by module and name."""
    names = [name.rpartition(".") for name in INERT if not name.startswith("__builtin__")]
    return [type(last, (_Inert,), {"__module__": module, "__qualname__": last}) for module, _, last in names]


def _walk(content: Any, path: pathlib.Path) -> Iterator[tuple[LeafPath, Any]]:
    """The leaves of nested dicts, lists and tuples with their keys."""
    pending: list[tuple[LeafPath, Any]] = [((), content)]
    for visited in range(MAX_NODES + 1):
        if not pending:
            return
        key, value = pending.pop()
        if len(key) > MAX_DEPTH or visited == MAX_NODES:
            raise CheckpointError(f"{path}: the content is nested without end, or has over {MAX_NODES} values")
        if isinstance(value, dict):
            children = list(dict.items(value))  # the file may have shadowed value.items
        elif isinstance(value, list | tuple):
            children = list(enumerate(value))
        else:
            yield key, value
            continue
        pending.extend(((*key, str(name)), child) for name, child in reversed(children))


def _spec(tensor: Any, where: str) -> jax.ShapeDtypeStruct:
    dtype = dtypes.BY_NAME.get(str(tensor.dtype).removeprefix("torch."))
    if dtype is None or str(tensor.layout) != "torch.strided" or tensor.is_quantized:
        raise CheckpointError(f"{where} is {tensor.layout} of {tensor.dtype}; only dense tensors of numbers are read")
    return checked_spec(list(tensor.shape), dtype, where)


def _array(tensor: Any, dtype: np.dtype) -> np.ndarray:
    import torch

    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()  # views that torch conjugates lazily
    if dtypes.is_extended(dtype):  # torch gives NumPy no bfloat16 or float8, so they cross as integers
        return tensor.view(getattr(torch, _BITS[dtype.itemsize])).numpy().view(dtype)
    return tensor.numpy()
