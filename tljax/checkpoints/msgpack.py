"""flax msgpack: what `flax.serialization.to_bytes` writes, a nested map with arrays as extension 1.

We walk the file ourselves instead of unpacking it, for three gains: only the selected arrays are read, and straight
into place; a key given twice is an error (a Python dict would drop one array in silence); and nothing is allocated
on the word of a length that the file does not have.
"""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tljax.checkpoints import dtypes
from tljax.checkpoints.buffers import Span, checked_spec, file_state, read_spans, size_of
from tljax.checkpoints.errors import CheckpointError, guard, shown
from tljax.checkpoints.source import LeafPath, Source

MAX_DEPTH = 100
MAX_VALUES = 5_000_000
"""A file of more values is noise: the largest models have some thousand leaves."""
_NDARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_CHUNKED = "__msgpack_chunked_array__"


class _Bytes(NamedTuple):
    """A string of bytes: where it stands."""

    offset: int
    size: int


class _Ext(NamedTuple):
    """An extension: its code and where its payload stands."""

    code: int
    offset: int
    size: int


def open_msgpack(path: pathlib.Path) -> Source:
    """Walk through a flax msgpack file and note where its arrays stand.

    Raises `CheckpointError` unless the file is one whole map of names to arrays, numbers and maps of the same.
    """
    import mmap

    with guard(path, "reading flax msgpack"), open(path, "rb") as file:
        state = file_state(file)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            walker = _Walker(data, path)
            tree = walker.value()
            if walker.at != len(data):
                raise CheckpointError(f"{path}: {len(data) - walker.at} bytes follow the end of the msgpack data")
            if not isinstance(tree, dict):
                raise CheckpointError(f"{path}: the msgpack data is {shown(tree)}; expected a map of names to arrays")
            spans: dict[LeafPath, Span | np.ndarray] = {}
            others: dict[LeafPath, str] = {}
            _collect(tree, (), _Arrays(data, path), spans, others)

    def read(paths: Sequence[LeafPath]) -> dict[LeafPath, np.ndarray]:
        chosen = {key: spans[key] for key in paths}
        arrays = read_spans(path, state, {key: span for key, span in chosen.items() if isinstance(span, Span)})
        return {key: arrays[key] if isinstance(span, Span) else span for key, span in chosen.items()}

    specs = {key: s.spec if isinstance(s, Span) else _spec(s) for key, s in spans.items()}
    return Source(path, "msgpack", specs, read, "/", others)


def _spec(array: np.ndarray) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


class _Walker:
    """Reads msgpack values one after another; strings of bytes and extensions by place only."""

    def __init__(self, data: Any, path: pathlib.Path, at: int = 0, end: int | None = None):
        self.data, self.path, self.at, self.end = data, path, at, len(data) if end is None else end
        self.values = 0

    def take(self, n: int) -> int:
        """Step over `n` bytes; returns where they begin."""
        start = self.at
        if n > self.end - start:
            raise CheckpointError(
                f"{self.path}: byte {start} announces {n} bytes, but only {self.end - start} follow: truncated"
            )
        self.at += n
        return start

    def number(self, n: int, signed: bool = False) -> int:
        start = self.take(n)
        return int.from_bytes(self.data[start : start + n], "big", signed=signed)

    def value(self, depth: int = 0) -> Any:
        """The next value: dict, list, str, number, None, `_Bytes` or `_Ext`."""
        self.values += 1
        if depth > MAX_DEPTH or self.values > MAX_VALUES:
            raise CheckpointError(
                f"{self.path}: more than {MAX_VALUES} values, or maps more than {MAX_DEPTH} deep in one another"
            )
        tag = self.number(1)
        if tag <= 0x7F or tag >= 0xE0:
            return tag if tag <= 0x7F else tag - 256
        if 0x80 <= tag <= 0x8F or tag in (0xDE, 0xDF):
            return self.map(tag & 0x0F if tag <= 0x8F else self.number(2 << (tag - 0xDE)), depth)
        if 0x90 <= tag <= 0x9F or tag in (0xDC, 0xDD):
            count = tag & 0x0F if tag <= 0x9F else self.number(2 << (tag - 0xDC))
            return [self.value(depth + 1) for _ in range(count)]
        if 0xA0 <= tag <= 0xBF or 0xD9 <= tag <= 0xDB:
            return self.text(tag & 0x1F if tag <= 0xBF else self.number(1 << (tag - 0xD9)))
        return self.simple(tag)

    def simple(self, tag: int) -> Any:
        """A value that holds no other."""
        if tag in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[tag]
        if 0xC4 <= tag <= 0xC6:
            size = self.number(1 << (tag - 0xC4))
            return _Bytes(self.take(size), size)
        if 0xC7 <= tag <= 0xC9 or 0xD4 <= tag <= 0xD8:
            size = self.number(1 << (tag - 0xC7)) if tag <= 0xC9 else 1 << (tag - 0xD4)
            code = self.number(1, signed=True)
            return _Ext(code, self.take(size), size)
        if tag in (0xCA, 0xCB):
            start = self.take(4 if tag == 0xCA else 8)
            return float(np.frombuffer(self.data[start : self.at], ">f4" if tag == 0xCA else ">f8")[0])
        if 0xCC <= tag <= 0xD3:
            return self.number(1 << (tag & 0x03), signed=tag >= 0xD0)
        raise CheckpointError(f"{self.path}: byte {self.at - 1} is 0x{tag:02x}, which begins no msgpack value")

    def map(self, count: int, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise CheckpointError(f"{self.path}: a map has the key {shown(key)}; expected a name")
            if str(key) in found:
                raise CheckpointError(f"{self.path}: a map names {shown(key)!r} twice")
            found[str(key)] = self.value(depth + 1)
        return found

    def text(self, size: int) -> str:
        start = self.take(size)
        return self.data[start : self.at].decode("utf-8")


class _Arrays:
    """Reads the payload of array extensions: shape, dtype name, bytes."""

    def __init__(self, data: Any, path: pathlib.Path):
        self.data, self.path = data, path

    def span(self, ext: _Ext, where: str) -> Span:
        walker = _Walker(self.data, self.path, ext.offset, ext.offset + ext.size)
        found = walker.value()
        if walker.at != walker.end or not isinstance(found, list) or len(found) != 3:
            raise CheckpointError(f"{where} is no array; expected shape, dtype and bytes")
        shape, name, place = found
        dtype = dtypes.BY_NAME.get(self._text(name))
        if dtype is None:
            raise CheckpointError(f"{where} has dtype {shown(self._text(name))}, which no weight has")
        spec = checked_spec(shape, dtype, where)
        if not isinstance(place, _Bytes) or place.size != size_of(spec):
            held = place.size if isinstance(place, _Bytes) else "no"
            raise CheckpointError(
                f"{where} has {held} bytes; {dtype} of shape {list(spec.shape)} takes {size_of(spec)}"
            )
        return Span(spec, ((place.offset, place.size),) if place.size else ())

    def _text(self, value: Any) -> str:
        if isinstance(value, _Bytes):
            return bytes(self.data[value.offset : value.offset + value.size]).decode("utf-8")
        return str(value)


def _collect(
    node: Any,
    path: LeafPath,
    arrays: _Arrays,
    spans: dict[LeafPath, Span | np.ndarray],
    others: dict[LeafPath, str],
) -> None:
    """Sort the leaves under `node` into arrays in the file, numbers, and the rest."""
    where = f"{arrays.path}: {shown('/'.join(path))!r}"
    if isinstance(node, dict) and _CHUNKED in node:
        spans[path] = _joined(node, arrays, where)
    elif isinstance(node, dict | list):
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            _collect(child, (*path, str(key)), arrays, spans, others)
    elif isinstance(node, _Ext) and node.code in (_NDARRAY, _SCALAR):
        spans[path] = arrays.span(node, where)
    elif isinstance(node, _Ext) and node.code == _COMPLEX:
        spans[path] = _complex(node, arrays, where)
    elif isinstance(node, _Ext):
        raise CheckpointError(f"{where} is msgpack extension {node.code}; flax writes only 1, 2 and 3")
    elif isinstance(node, bool | int | float):
        spans[path] = np.asarray(node)
    else:
        others[path] = "bytes" if isinstance(node, _Bytes) else shown(repr(node))


def _joined(node: dict[str, Any], arrays: _Arrays, where: str) -> Span:
    """An array that flax cut into pieces, since a msgpack value ends at 2 GiB."""
    shape, chunks = (
        [node.get(key, {}).get(str(i)) for i in range(len(node.get(key, {})))] for key in ("shape", "chunks")
    )
    if not all(isinstance(chunk, _Ext) and chunk.code == _NDARRAY for chunk in chunks) or not chunks:
        raise CheckpointError(f"{where} is an array in pieces, and not all of them are there")
    spans = [arrays.span(chunk, where) for chunk in chunks]
    whole = checked_spec(shape, spans[0].spec.dtype, where)
    if {span.spec.dtype for span in spans} != {whole.dtype} or sum(size_of(s.spec) for s in spans) != size_of(whole):
        raise CheckpointError(f"{where} is an array in pieces that do not add up to {whole}")
    return Span(whole, tuple(piece for span in spans for piece in span.pieces))


def _complex(ext: _Ext, arrays: _Arrays, where: str) -> np.ndarray:
    found = _Walker(arrays.data, arrays.path, ext.offset, ext.offset + ext.size).value()
    if not isinstance(found, list) or len(found) != 2 or not all(isinstance(x, float) for x in found):
        raise CheckpointError(f"{where} is {shown(found)}; expected the two parts of a complex number")
    return np.asarray(complex(*found))
