"""safetensors: a length, a JSON header with the dtype, shape and place of each tensor, then their bytes.

The header is believed only after it is proved: the tensors must tile the rest of the file without hole or overlap,
and each must be as long as its shape and dtype say.  Then a leaf is one seek and one read.
"""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import jax
import numpy as np

from tljax.checkpoints import dtypes
from tljax.checkpoints.buffers import FileState, Span, as_bytes, checked_spec, file_state, read_spans, size_of
from tljax.checkpoints.errors import CheckpointError, guard, shown
from tljax.checkpoints.names import separator_of
from tljax.checkpoints.source import LeafPath, Source

MAX_HEADER = 100_000_000
"""Bytes; the format's own limit, so that a lying length cannot make us read a disk full of header."""
_METADATA = "__metadata__"


def open_safetensors(path: pathlib.Path) -> Source:
    """Read and prove the header of a safetensors file.

    Raises `CheckpointError` where header and file do not fit together exactly.
    """
    spans, metadata, state = _proved(path)
    separator = separator_of(list(spans))
    places = {_split(name, separator): span for name, span in spans.items()}

    def read(paths: Sequence[LeafPath]) -> dict[LeafPath, np.ndarray]:
        return read_spans(path, state, {key: places[key] for key in paths})

    specs = {key: span.spec for key, span in places.items()}
    return Source(path, "safetensors", specs, read, separator, metadata=metadata)


def map_safetensors(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of a file by name, mapped into memory and read-only, and its metadata.

    Only what is looked at is read, by the system and when it is. The file may be replaced by another, as writers do,
    but must not be changed.

    Raises `CheckpointError` where header and file do not fit together exactly.
    """
    spans, metadata, _ = _proved(path)
    with guard(path, "mapping the tensors"):
        whole = np.asarray(np.memmap(path, np.uint8, "r"))
        arrays = {
            name: whole[start : start + size].view(spec.dtype).reshape(spec.shape)
            for name, (spec, ((start, size),)) in spans.items()
        }
    return arrays, metadata


def _proved(path: pathlib.Path) -> tuple[dict[str, Span], dict[str, str], FileState]:
    """The places of the tensors, and the metadata, of a file that holds what its header says."""
    with guard(path, "reading the safetensors header"), open(path, "rb") as file:
        state = file_state(file)
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER, state.size - 8):
            raise CheckpointError(
                f"{path}: the header claims {length} bytes, but the file has {max(state.size - 8, 0)} after the length "
                f"and a header may have {MAX_HEADER}: truncated, or no safetensors file"
            )
        header = read_header(file.read(length), path)
    metadata = _checked_metadata(header.pop(_METADATA, {}), path)
    spans = _checked_spans(header, 8 + length, state.size, path)
    return spans, metadata, state


def read_header(text: bytes, path: os.PathLike[str]) -> dict[str, Any]:
    """The JSON object in `text`, with no key twice and no number JSON does not know.

    >>> read_header(b'{"a": 1, "a": 2}', "a.safetensors")
    Traceback (most recent call last):
    tljax.checkpoints.errors.CheckpointError: a.safetensors: the JSON names 'a' twice
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise CheckpointError(f"{path}: the JSON names {shown(name)!r} twice")
            found[name] = value
        return found

    def refuse(constant: str) -> Any:
        raise CheckpointError(f"{path}: the JSON holds {constant}, which is not JSON")

    with guard(path, "reading the JSON"):
        found = json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse)
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: the JSON is {shown(found)}; expected an object")
    return found


def write_safetensors(
    file: BinaryIO,
    leaves: Mapping[str, jax.ShapeDtypeStruct],
    arrays: Iterator[np.ndarray],
    metadata: Mapping[str, str],
) -> None:
    """Write `arrays`, which come in the order of `leaves`, into `file`; one is in memory at a time.

    Sort `leaves` with `write_order` first, so that every tensor is aligned to its own size.
    """
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    codes, end = {dtype: code for code, dtype in dtypes.SAFETENSORS.items()}, 0
    for name, spec in leaves.items():
        start, end = end, end + size_of(spec)
        header[name] = {"dtype": codes[spec.dtype], "shape": list(spec.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for array in arrays:
        file.write(as_bytes(array))


def write_order(leaves: Mapping[str, jax.ShapeDtypeStruct]) -> list[str]:
    """Names with the widest dtype first: then every tensor starts at a multiple of its own width.

    >>> write_order({"mask": jax.ShapeDtypeStruct((3,), bool), "w": jax.ShapeDtypeStruct((2,), "float32")})
    ['w', 'mask']
    """
    return sorted(leaves, key=lambda name: (-leaves[name].dtype.itemsize, name))


def _checked_metadata(found: Any, path: pathlib.Path) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise CheckpointError(f"{path}: {_METADATA} is {shown(found)}; expected an object of strings")
    return found


def _checked_spans(header: dict[str, Any], start: int, size: int, path: pathlib.Path) -> dict[str, Span]:
    spans = {name: _checked_span(entry, start, f"{path}: {shown(name)!r}") for name, entry in header.items()}
    end, last = start, "the header"
    for name, span in sorted(spans.items(), key=lambda item: item[1].pieces):
        begin, length = span.pieces[0]
        if begin != end:
            wrong = "overlap" if begin < end else "leave a hole"
            raise CheckpointError(
                f"{path}: {shown(last)!r} and {shown(name)!r} {wrong}: "
                f"the first ends at byte {end}, the next begins at {begin}"
            )
        end, last = begin + length, name
    if end != size:
        wrong = "the file is truncated" if end > size else "the rest belongs to no tensor"
        raise CheckpointError(f"{path}: the tensors end at byte {end}, the file at {size}: {wrong}")
    return spans


def _checked_span(entry: Any, start: int, where: str) -> Span:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where} is {shown(entry)}; expected dtype, shape and data_offsets")
    code, offsets = entry["dtype"], entry["data_offsets"]
    if not isinstance(code, str) or code not in dtypes.SAFETENSORS:
        raise CheckpointError(f"{where} has dtype {shown(code)}; expected one of {', '.join(dtypes.SAFETENSORS)}")
    spec = checked_spec(entry["shape"], dtypes.SAFETENSORS[code], where)
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(type(n) is int and n >= 0 for n in offsets)):
        raise CheckpointError(f"{where} has data_offsets {shown(offsets)}; expected [begin, end]")
    begin, end = offsets
    if end - begin != size_of(spec):
        raise CheckpointError(
            f"{where} has {shown(end - begin)} bytes; {code} of shape {list(spec.shape)} takes {size_of(spec)}"
        )
    return Span(spec, ((start + begin, end - begin),))


def _split(name: str, separator: str) -> LeafPath:
    """Flax layouts nest in the file already; a torch name is one key, as in a state dict."""
    return tuple(name.split("/")) if separator == "/" else (name,)
