"""Labelled arrays of any accepted form, checked and put on the device."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tljax.data import ExampleStream
from tljax.objectives import Term
from tljax.objectives.stream import called
from tljax.objectives.term import MAIN, SOURCE
from tljax.training.program import Fed, Stream
from tljax.types import Batch, TljaxError

_STACK_ELEMENTS = 1 << 26
"""Up to this size the subsets of a stack are padded to all examples, so that other subsets need no new program."""


class FitError(TljaxError):
    """Arguments of `fit` that do not go together."""


def streams_of(train: Any, objective: Term, views: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The training examples of every stream that `objective` reads, a `Stream` of each; raises `FitError`.

    Of data that are read when needed it is an `ExampleStream`, as given. In the place of views stand the streams that
    they show.

    >>> from tljax.objectives import cross_entropy
    >>> streams = streams_of((np.zeros((4, 2)), np.array([0, 1, 1, 0])), cross_entropy())
    >>> {name: (stream.x.shape, int(stream.size)) for name, stream in streams.items()}
    {'train': ((4, 2), 4)}
    """
    if train is None:
        raise FitError("fit needs training data: train=(x, y)")
    if not objective.streams:
        raise FitError(f"the objective {objective} reads no data; add a term that does, such as cross_entropy()")
    views = dict(views or {})
    named = dict(train) if isinstance(train, Mapping) else {objective.streams[0]: train}
    for view in views:
        if view in named or view not in objective.streams:
            why = "train has a stream of that name" if view in named else f"the objective {objective} does not read it"
            raise FitError(f"views: there can be no view {view!r}, for {why}")
    read = dict.fromkeys(called(views.get(name, name), named) for name in objective.streams)
    missing = [name for name in read if name not in named]
    if missing:
        raise FitError(_missing(objective, views, named, read, missing))
    for group in objective.views:
        if len({called(views.get(name, name), named) for name in group}) > 1:
            raise FitError(_apart(objective, group))
    return {name: _stream(name, named[name]) for name in read}


def by_stream(given: Mapping[str, Any], streams: Iterable[str], option: str) -> dict[str, Any]:
    """What `option` gives for streams, by the names that they have here; raises `FitError` for one that is not there.

    >>> by_stream({"train": 8, "target": 4}, ["source", "target"], "batch_size")
    {'source': 8, 'target': 4}
    """
    known = list(streams)
    found = {called(name, known): value for name, value in given.items()}
    if len(found) < len(given):
        raise FitError(f"{option}: 'source' and 'train' are two names of one stream; give one of them")
    unknown = sorted(found.keys() - set(known))
    if unknown:
        raise FitError(f"{option}: there is no stream {unknown[0]!r}; there are {', '.join(map(repr, known))}")
    return found


def _missing(objective: Term, views: Mapping[str, str], named: Any, read: Any, missing: list[str]) -> str:
    """What to say of streams that nobody gave: data are missing, or a word on whose examples they show."""
    shown = "".join(f", where {view!r} is a view of {stream!r}" for view, stream in views.items())
    unread = next((name for name in named if name not in read), "unlabelled")
    shows = dict.fromkeys((name for name in missing if name not in (MAIN, SOURCE, "target")), unread)
    hint = f", or say that they show the examples of another, as views={shows}" if shows else ""
    return (
        f"the objective {objective} reads the streams {', '.join(map(repr, objective.streams))}{shown}; train has "
        f"{', '.join(map(repr, named))}: give a dict with a pair (x, y) for each, also for "
        f"{', '.join(map(repr, missing))}{hint}"
    )


def _apart(objective: Term, group: tuple[str, ...]) -> str:
    """What to say of streams of their own in the place of views."""
    names, shown = " and ".join(map(repr, group)), dict.fromkeys(group, "unlabelled")
    return (
        f"the objective {objective} compares {names} example by example; in train they are streams of their own, each "
        f"drawn in its own order: give their examples as one stream, 'unlabelled', and views={shown}; augment= says "
        "how they differ. Of views that are stored, x may be a dict of both, of which augment= takes one"
    )


def looked_at(stream: Stream | ExampleStream) -> tuple[Any, Any]:
    """Inputs and labels to tell shapes and kinds by: all that are in memory, a sample of those that are streamed.

    >>> from tljax.data import stream
    >>> looked_at(stream([(np.zeros(3), 1)]))[1].tolist()
    [1]
    """
    found = stream.sample() if isinstance(stream, ExampleStream) else stream
    x, y = jax.tree.map(jnp.asarray, (found.x, found.y))
    return x, y


def place_of(stream: Stream | ExampleStream, batch_size: int) -> Stream | Fed:
    """The stream as an argument of a program; of what will be fed it is a batch of zeros.

    >>> from tljax.data import stream
    >>> place_of(stream([(np.zeros(3), 1)]), 4).x.shape
    (4, 3)
    """
    if isinstance(stream, Stream):
        return stream
    one = stream.example(0)
    return Fed(*jax.tree.map(lambda a: jnp.zeros((batch_size, *a.shape), a.dtype), (one.x, one.y)))


def _stream(name: str, data: Any) -> Stream | ExampleStream:
    if isinstance(data, ExampleStream):
        return data
    x, y = labelled(data, f"the training data ({name})")
    n = len(jax.tree.leaves(x)[0])
    x, y = jax.tree.map(jnp.asarray, (x, y))
    return Stream(x, y, jnp.arange(n, dtype=jnp.int32), jnp.int32(n))


def labelled(data: Any, what: str) -> tuple[Any, Any]:
    """`(x, y)` of any accepted form of labelled arrays, in the dtypes JAX will keep; y may be None.

    Raises `FitError` on lengths that differ, no examples, what is no number, NaN, infinity, or integers that are cut,
    and on weights.

    >>> x, y = labelled(([[1.0, 2.0]], np.array([3])), "the data")
    >>> x.dtype, y.dtype
    (dtype('float32'), dtype('int32'))
    """
    if hasattr(data, "x") and hasattr(data, "y"):
        x, y = data.x, data.y
        if getattr(data, "weight", None) is not None:
            raise FitError(
                f"{what} have weights, which are not read: leave out the examples of weight 0, and for classes that "
                "count more give the loss class_weights=[...]"
            )
    elif isinstance(data, tuple | list) and len(data) == 2:
        x, y = data
    else:
        indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__")
        hint = "; of a source with len() and an index make a stream: tl.data.stream(source)" if indexed else ""
        raise FitError(f"{what} should be a pair (x, y) or have .x and .y; found {type(data).__name__}{hint}")
    x = jax.tree.map(lambda a: _array(a, f"{what}: the inputs"), x, is_leaf=_is_list)
    y = jax.tree.map(lambda a: _array(a, f"{what}: the labels"), y, is_leaf=_is_list)
    lengths = sorted({len(leaf) for leaf in jax.tree.leaves((x, y))})
    if len(lengths) != 1 or lengths == [0] or not jax.tree.leaves(x):
        raise FitError(f"{what} needs inputs, at least one, and as many labels; found lengths {lengths}")
    return x, y


def _is_list(node: Any) -> bool:
    """Nested lists are arrays here, as they are for NumPy."""
    return isinstance(node, list)


def _array(value: Any, what: str) -> Any:
    try:
        array = value if isinstance(value, jax.Array) else np.asarray(value)
    except ValueError as error:  # lists of different lengths
        raise FitError(f"{what} are no rectangular array: {error}") from error
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
        raise FitError(f"{what} must be numbers; found dtype {array.dtype}")
    if array.ndim == 0:
        raise FitError(f"{what} must be arrays with the examples on the first axis; found a single number")
    kept = jax.dtypes.canonicalize_dtype(array.dtype)
    if jnp.issubdtype(kept, jnp.integer) and kept != array.dtype and array.size:
        low, high = np.iinfo(kept).min, np.iinfo(kept).max
        if array.min() < low or array.max() > high:
            raise FitError(f"{what} hold {array.min()} to {array.max()}, which do not fit into {kept}")
    with np.errstate(over="ignore"):  # told below
        array = array.astype(kept, copy=False)
    _check_finite(array, what)
    return array


def _check_finite(array: Any, what: str) -> None:
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        return
    host = np.asarray(array)
    with np.errstate(all="ignore"):
        # One pass without a temporary: NaN and infinity never sum to a finite number, and float32s do not overflow.
        if np.isfinite(np.sum(host, dtype=np.result_type(host.dtype, np.float64))):
            return
        bad = np.argwhere(~np.isfinite(host))
    if len(bad):
        first = [int(i) for i in bad[0]]
        raise FitError(
            f"{what} have {len(bad)} values that are NaN or infinite in {host.dtype}, the first at {first}; "
            "leave those examples out, or fill in the values"
        )


def own_subsets(streams: Mapping[str, Stream], subsets: Any, count: int) -> dict[str, Stream]:
    """`streams` with the indices that each of `count` runs may draw from.

    `subsets`: a sequence of index arrays, one for each run; where there are several streams, a dict of such sequences,
    in which absent streams are used whole. Raises `FitError`.

    >>> from tljax.objectives import cross_entropy
    >>> streams = streams_of((np.zeros((4, 2)), np.array([0, 1, 1, 0])), cross_entropy())
    >>> stream = own_subsets(streams, [[0, 1], [3]], 2)["train"]
    >>> stream.subset.tolist(), stream.size.tolist()
    ([[0, 1, 0, 0], [3, 0, 0, 0]], [2, 1])
    """
    if subsets is None:
        subsets = {}
    elif not isinstance(subsets, Mapping):
        if len(streams) > 1:
            raise FitError(f"subsets: there are {len(streams)} streams; write subsets={{{min(streams)!r}: [...]}}")
        subsets = dict.fromkeys(streams, subsets)
    subsets = by_stream(subsets, streams, "subsets")
    return {name: _own_subset(name, stream, subsets.get(name), count) for name, stream in streams.items()}


def _own_subset(name: str, stream: Stream, subsets: Sequence[Any] | None, count: int) -> Stream:
    n = int(stream.size)
    given = [np.arange(n)] * count if subsets is None else [np.asarray(indices) for indices in subsets]
    if len(given) != count:
        raise FitError(f"subsets: there are {count} runs and {len(given)} subsets of {name!r}")
    for run, indices in enumerate(given):
        if indices.ndim != 1 or not indices.size or indices.dtype.kind not in "iu":
            raise FitError(
                f"subset {run} of {name!r} should be a list of indices, at least one; found {indices.dtype} "
                f"of shape {indices.shape}"
            )
        if indices.min() < 0 or indices.max() >= n:
            raise FitError(
                f"subset {run} of {name!r} has indices {indices.min()} to {indices.max()}; there are {n} examples"
            )
    sizes = [len(indices) for indices in given]
    width = max(n, *sizes) if count * n <= _STACK_ELEMENTS else max(sizes)
    padded = np.zeros((count, width), np.int32)
    for row, indices in zip(padded, given):
        row[: len(indices)] = indices
    return stream._replace(subset=jnp.asarray(padded), size=jnp.asarray(sizes, jnp.int32))


def padded(valid: Any, most: int = 512) -> Batch | None:
    """Validation data as `[batches, B, ...]` with weight 0 on the padding; None for None. Raises `FitError`.

    Of a stream it is a sample.

    >>> batch = padded((np.zeros((5, 2)), np.arange(5)), most=3)
    >>> batch.x.shape, batch.weight.tolist()
    ((2, 3, 2), [[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    """
    if valid is None:
        return None
    x, y = labelled(valid.sample() if isinstance(valid, ExampleStream) else valid, "the validation data")
    if y is None:
        raise FitError("the validation data need labels: they choose the best step")
    return cut(x, y, most)


def cut(x: Any, y: Any = None, most: int = 512) -> Batch:
    """Examples as `[batches, B, ...]`, B of `most` at most, with weight 0 on the padding; of labels None, None.

    >>> cut(np.zeros((5, 2)), most=3).weight.tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]
    """
    n = len(jax.tree.leaves(x)[0])
    batches = -(-n // most)
    size = -(-n // batches)  # as even as can be, so that little of the work is padding

    def part(a: Any) -> jax.Array:
        a = np.asarray(a)
        padding = np.zeros((batches * size - n, *a.shape[1:]), a.dtype)
        return jnp.asarray(np.concatenate([a, padding]).reshape(batches, size, *a.shape[1:]))

    return Batch(jax.tree.map(part, x), jax.tree.map(part, y), part(np.ones(n, np.float32)))
