"""A model's metrics, and its outputs, over a whole set of examples, in batches of one size."""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax.data import ExampleStream, in_turn
from tljax.evaluation.confusion import classification, multilabel
from tljax.evaluation.metrics import Found, Metric, Sums
from tljax.evaluation.residuals import regression
from tljax.evaluation.table import Evaluation
from tljax.types import Array, Batch, Model, Output, Params, TljaxError


class EvaluationError(TljaxError):
    """Data that cannot be evaluated."""


def evaluate(
    model: Model, params: Params, data: Any, *, batch_size: int = 256, metrics: Metric | None = None
) -> Evaluation:
    """The metrics of `model` with `params` on `data`, in evaluation mode.

    The last batch is padded, so one compiled program serves data of any length; it is kept for the next call with the
    same model and metric.

    Args:
        data: arrays ``(x, y)``, an object with `x`, `y` and perhaps `weight` and `classes` (names for the table), or a
            stream (`tl.data.stream`).
        batch_size: how many examples go through the model at once; the result does not depend on it.
        metrics: what to measure; several through `combine`. By default `classification` for labels `[B]` int,
            `multilabel` for int or bool `[B, C]`, `regression` for floats.

    Raises:
        EvaluationError: no examples, labels missing or outside 0..C-1, axes that do not match.

    >>> from tljax.types import Model, Output
    >>> model = Model(init=lambda key, x: {"scale": jnp.ones(())}, apply=lambda p, x, **_: Output(p["scale"] * x, x))
    >>> x, y = jnp.eye(3)[jnp.array([0, 1, 2, 2])], jnp.array([0, 1, 2, 1])
    >>> found = evaluate(model, {"scale": jnp.float32(2.0)}, (x, y), batch_size=3)
    >>> found["accuracy"], found["confusion"].tolist()
    (0.75, [[1, 0, 0], [0, 1, 1], [0, 0, 1]])
    """
    streamed = isinstance(data, ExampleStream)
    batch, classes = _unpack(data.sample() if streamed else data)
    _size(batch, batch_size)
    width = outputs_of(model, params, batch.x)
    metric = metrics or _default(batch.y, width)
    if metrics is None:
        _check_labels(batch, width)
    program = _program(model.apply, metric)
    sums = program.init()
    with _parts(data if streamed else batch, batch_size) as parts:
        for part in parts:
            sums = program.update(sums, params, part)
    classes = data.classes if streamed else classes
    found = {name: _plain(value) for name, value in jax.device_get(program.compute(sums)).items()}
    return Evaluation(found, classes)


def predict(model: Model, params: Params, x: Any, *, batch_size: int = 256) -> Output:
    """The logits `[N, C]` and the features `[N, D]` of all of `x`, in evaluation mode.

    `x` is arrays `[N, ...]`, or a stream (`tl.data.stream`; of unlabelled examples with `y=None`). Only the outputs are
    held in memory.

    Raises:
        EvaluationError: no examples, or leaves of `x` of different lengths.

    >>> from tljax.types import Model, Output
    >>> model = Model(init=lambda key, x: {}, apply=lambda p, x, **_: Output(-x, 2 * x))
    >>> predict(model, {}, jnp.arange(5.0)[:, None], batch_size=2).features.ravel().tolist()
    [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    forward, outputs = _forward(model.apply), []
    with _parts(x if isinstance(x, ExampleStream) else Batch(jax.tree.map(jnp.asarray, x)), batch_size) as parts:
        for part in parts:
            output = forward(params, part.x)
            real = np.asarray(part.weight) > 0
            outputs.append([np.asarray(leaf)[real] for leaf in (output.logits, output.features)])
    logits, features = (jnp.asarray(np.concatenate(leaves)) for leaves in zip(*outputs))
    return Output(logits, features)


class _Program(NamedTuple):
    init: Callable[[], Sums]
    update: Callable[[Sums, Params, Batch], Sums]
    compute: Callable[[Sums], Found]


@functools.lru_cache(maxsize=64)
def _program(apply: Callable[..., Output], metric: Metric) -> _Program:
    def update(sums: Sums, params: Params, batch: Batch) -> Sums:
        return metric.update(sums, apply(params, batch.x, train=False).logits, batch.y, batch.weight)

    return _Program(jax.jit(metric.init), jax.jit(update, donate_argnums=0), jax.jit(metric.compute))


@functools.lru_cache(maxsize=64)
def _forward(apply: Callable[..., Output]) -> Callable[[Params, Any], Output]:
    return jax.jit(lambda params, x: apply(params, x, train=False))


def _parts(data: Batch | ExampleStream, batch_size: int) -> AbstractContextManager[Iterator[Batch]]:
    """All examples once, in batches of one size; raises where there are none, or the axes do not match."""
    if isinstance(data, ExampleStream):
        _size(data.examples([0]), batch_size)
        return in_turn(data, batch_size)
    return nullcontext(_batches(data, _size(data, batch_size), batch_size))


def _batches(data: Batch, size: int, batch_size: int) -> Iterator[Batch]:
    """All examples once, in batches of `batch_size`, with weight 0 on what fills up the last.

    The last batch is moved back to end with the data, its first rows then being those already seen: no padded copy of
    the whole data is made.
    """
    if size < batch_size:
        data = jax.tree.map(lambda a: jnp.pad(a, ((0, batch_size - size),) + ((0, 0),) * (a.ndim - 1)), data)
    last = max(size - batch_size, 0)
    for first in range(0, size, batch_size):
        yield _take(data, min(first, last), first, size, batch_size)


@functools.partial(jax.jit, static_argnums=4)
def _take(data: Batch, start: Array, first: Array, size: Array, batch_size: int) -> Batch:
    """`batch_size` rows from `start`, weighted 0 unless they lie in ``first..size-1``."""
    x, y, weight, _ = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, batch_size), data)
    rows = start + jnp.arange(batch_size)
    real = ((rows >= first) & (rows < size)).astype(jnp.float32)
    return Batch(x, y, real if weight is None else real * weight.astype(jnp.float32))


def _unpack(data: Any) -> tuple[Batch, tuple[str, ...]]:
    if hasattr(data, "x") and hasattr(data, "y"):
        parts = data.x, data.y, getattr(data, "weight", None)
        classes = getattr(data, "classes", None)
    elif isinstance(data, tuple | list) and len(data) == 2:
        parts, classes = (*data, None), None
    else:
        raise EvaluationError(f"data must be (x, y) or an object with .x and .y, found {type(data).__name__}")
    if parts[1] is None:
        raise EvaluationError("data has no labels, found y=None; for outputs without metrics call predict()")
    rows = [np.asarray(part) if isinstance(part, list) else part for part in parts]  # a list is rows, not a tree
    return Batch(*jax.tree.map(jnp.asarray, rows)), tuple(str(name) for name in classes or ())


def _size(data: Batch, batch_size: int) -> int:
    sizes = {leaf.shape[0] if leaf.ndim else None for leaf in jax.tree.leaves(data)}
    if len(sizes) != 1 or None in sizes:
        shapes = ", ".join(str(leaf.shape) for leaf in jax.tree.leaves(data))
        raise EvaluationError(f"x and y need the same number of examples on their first axis, found shapes {shapes}")
    size = sizes.pop()
    if not size or batch_size < 1:
        raise EvaluationError(
            f"evaluation needs examples and a batch size of at least 1, found {size} and {batch_size}"
        )
    return size


def outputs_of(model: Model, params: Params, x: Any, whose: str = "", error: type[TljaxError] = EvaluationError) -> int:
    """How many outputs the model has for inputs like `x`, without running it.

    Args:
        whose: what the message of a failure says after the shapes.
        error: what is raised where the model cannot take such inputs.

    >>> model = Model(init=lambda key, x: {}, apply=lambda p, x, **_: Output(x[:, :2], x))
    >>> outputs_of(model, {}, jnp.ones((5, 3)))
    2
    """
    sample = jax.tree.map(lambda a: jax.ShapeDtypeStruct((2, *a.shape[1:]), a.dtype), x)
    try:
        return jax.eval_shape(lambda p, x: model.apply(p, x, train=False), params, sample).logits.shape[-1]
    except TljaxError:
        raise
    except Exception as found:  # whatever a model's own code raises when the shapes do not fit
        shapes = ", ".join(shape_text(leaf) for leaf in jax.tree.leaves(x))
        raise error(f"{model.name} with these parameters cannot take inputs {shapes}{whose}: {found}") from found


def shape_text(array: Any) -> str:
    """The type of an array of examples, whatever their number.

    >>> shape_text(jnp.ones((5, 3)))
    'float32[N, 3]'
    """
    return f"{array.dtype}[{', '.join(['N', *map(str, array.shape[1:])])}]"


def _default(labels: Array, width: int) -> Metric:
    if jnp.issubdtype(labels.dtype, jnp.floating):
        return regression(width)
    return classification(width) if labels.ndim == 1 and width > 1 else multilabel(width)


def _check_labels(batch: Batch, width: int) -> None:
    labels = batch.y
    if jnp.issubdtype(labels.dtype, jnp.floating) or labels.dtype == bool:
        return
    top = width - 1 if labels.ndim == 1 and width > 1 else 1
    labels = np.asarray(labels) if batch.weight is None else np.asarray(labels)[np.asarray(batch.weight) > 0]
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if low < 0 or high > top:
        raise EvaluationError(
            f"the labels run from {low} to {high}, but with the model's {width} outputs they must lie in 0 to {top}: "
            "map them to the model's classes, or give the model a head with one output a class"
        )


def _plain(value: Any) -> Any:
    """A Python number for a scalar; arrays as they are."""
    return value.item() if np.ndim(value) == 0 else np.asarray(value)
