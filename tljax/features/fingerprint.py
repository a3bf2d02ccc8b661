"""What tells features apart: the computation, its weights, and the examples, in one hash."""

import dataclasses
import functools
import hashlib
from typing import Any

import jax
import numpy as np

from tljax.checkpoints.checksum import storable
from tljax.data import ExampleStream, in_turn
from tljax.features.inputs import Examples
from tljax.tree import named_leaves
from tljax.types import Params

_VERSION = "tljax features 1"
_CHUNK = 256


def fingerprint(
    program: Any, name: str, layer: str, pooling: str | None, params: Params, rows: Examples, sample: Any
) -> str:
    """The hash of all that the features of `rows` depend on.

    A model is functions, whose options (a pooling, an activation, an epsilon) no weight shows: so the program itself
    is hashed, in the text in which it is given to the compiler. For that it is traced, and neither compiled nor run.
    """
    digest = hashlib.sha256()
    told = (_VERSION, jax.__version__, jax.default_backend(), name, layer, str(pooling))
    for text in (*told, _text(program, *_hashable(params, sample))):
        _add(digest, text.encode())
    _add_tree(digest, params)
    if isinstance(rows.x, ExampleStream):
        _add_stream(digest, rows.x)
    else:
        _add_tree(digest, rows.x)
    return digest.hexdigest()


Digest = Any
"""A hash of hashlib, which has no name for their type."""
_Hashable = tuple[Any, tuple[jax.ShapeDtypeStruct, ...]]


def _hashable(params: Params, sample: Any) -> tuple[_Hashable, _Hashable]:
    def specs(tree: Any) -> _Hashable:
        leaves, treedef = jax.tree.flatten(tree)
        return treedef, tuple(jax.ShapeDtypeStruct(np.shape(leaf), jax.numpy.result_type(leaf)) for leaf in leaves)

    return specs(params), specs(sample)


@functools.lru_cache(maxsize=64)
def _text(program: Any, params: _Hashable, sample: _Hashable) -> str:
    """The program for two examples, as text; the constants in it are written out."""
    trees = (jax.tree.unflatten(treedef, leaves) for treedef, leaves in (params, sample))
    return program.lower(*trees).as_text()


def _add(digest: Digest, data: Any) -> None:
    """With its length before it, so that no two lists of parts are the same bytes."""
    view = memoryview(data).cast("B")
    digest.update(len(view).to_bytes(8, "little"))
    digest.update(view)


def _add_tree(digest: Digest, tree: Any) -> None:
    for name, leaf in named_leaves(tree).items():
        array = np.ascontiguousarray(storable(leaf))
        _add(digest, f"{name} {array.dtype} {array.shape}".encode())
        _add(digest, array.reshape(-1).view(np.uint8))


def _add_stream(digest: Digest, stream: ExampleStream) -> None:
    """The files of a stream where it is known what is made of them, else the examples themselves."""
    source = stream.source
    parts = [getattr(source, "preprocessor", None), stream.transform]
    known = all(part is None or dataclasses.is_dataclass(part) for part in parts)
    files = getattr(source, "files", None)
    if files is None or not known:
        _add_examples(digest, stream)
        return
    _add(digest, f"{type(source).__qualname__} {parts} {stream.x} {stream.y} {stream.classes}".encode())
    chosen = range(len(files)) if stream.subset is None else stream.subset.tolist()
    labels = getattr(source, "labels", None)
    for i in chosen:
        state = files[i].stat()
        label = "" if labels is None else labels[i]
        _add(digest, f"{files[i].absolute()} {state.st_size} {state.st_mtime_ns} {label}".encode())


def _add_examples(digest: Digest, stream: ExampleStream) -> None:
    with in_turn(stream, _CHUNK) as batches:
        for batch in batches:
            _add_tree(digest, batch._asdict())
