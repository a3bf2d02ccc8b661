"""One pass over the data, spread over all devices; the second time, none."""

import collections
import os
import pathlib
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tljax.checkpoints import CheckpointError
from tljax.evaluation.progress import Tell, progress_bar
from tljax.features import cache as disk
from tljax.features.fingerprint import fingerprint
from tljax.features.inputs import Examples, FeatureError, examples
from tljax.features.layers import POOLINGS, Pooling, forward, layer_called, traced
from tljax.types import Model, Params

_IN_FLIGHT = 2
"""Batches that the devices work on before the first of them is waited for."""


class Features(NamedTuple):
    """What a model makes of a data set, in the memory of the host; from the cache, mapped from the file, read-only."""

    features: np.ndarray
    """`[N, D]` float32, or float64 of a model that computes so."""
    logits: np.ndarray | None
    """`[N, C]`; None where `layer` lies inside the model."""
    labels: np.ndarray | None
    """`[N, ...]`, as the data have them; names have become numbers, in the order of `classes`. None without labels."""
    classes: tuple[str, ...]
    """The names of the classes; () where the data have none."""
    fingerprint: str | None
    """What the cache knows these features by; None without a cache."""


def extract(
    model: Model,
    params: Params,
    data: Any,
    *,
    layer: str = "features",
    pooling: Pooling | None = None,
    batch_size: int = 256,
    cache: str | os.PathLike[str] | None = None,
    progress: bool | str = True,
) -> Features:
    """The features of all of `data`, in evaluation mode; with `cache` computed once and then read from disk.

    The batches are spread over all local devices, with a copy of the parameters on each; parameters that already lie
    on several devices stay as they are.

    Args:
      data: arrays `x` `[N, ...]` or ``(x, y)``, an object with `x`, `y` and perhaps `classes`, or a stream
        (`tl.data.stream`). Inputs must be as the model wants them: preprocessed.
      layer: "features", "logits", or a layer inside by name or by a glob that selects one: ``"backbone/block_03"``
        (`layers` lists them). Of a layer that is called several times the last output counts.
      pooling: how the output `[B, ..., D]` of a layer inside becomes `[B, D]`: "mean" (the default), "max", "cls" or
        "flatten"; of texts only the tokens count that ``x["mask"]`` says are no padding.
      batch_size: examples that go through the model at once, rounded up to a multiple of the devices.
      cache: a folder. The file in it is found by the model's computation and weights, the layer, the pooling and the
        examples, so that a change of any of them makes a new one; labels do not count. A stream of image files is
        known by their names, sizes and times; any other stream is read once more to know its content.
      progress: whether to show progress; a string is its title.

    Warns, and computes, where a file of the cache is damaged; warns where it cannot be written.

    Raises:
      FeatureError: no examples, inputs that the model cannot take, an unknown layer, a pooling that does not suit.

    >>> from tljax.models.mlp import mlp
    >>> model, x = mlp((5,), num_classes=3), np.ones((4, 2), np.float32)
    >>> params = model.init(jax.random.key(0), x)
    >>> found = extract(model, params, (x, ["cat", "dog", "cat", "cat"]), progress=False)
    >>> found.features.shape, found.logits.shape, found.labels.tolist(), found.classes
    ((4, 5), (4, 3), [0, 1, 0, 0], ('cat', 'dog'))
    """
    if pooling is not None and pooling not in POOLINGS:
        raise FeatureError(f"pooling={pooling!r}; expected one of {', '.join(map(repr, POOLINGS))}, or None")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise FeatureError(f"batch_size={batch_size!r}; expected a whole number, 1 or more")
    rows = examples(data)
    sample = rows.sample()
    traced(model, params, sample)
    layer = layer_called(layer, model, params, sample)
    program = forward(model.apply, layer, pooling)
    folder = None if cache is None else disk.usable(pathlib.Path(cache))
    key = None if folder is None else fingerprint(program, model.name, layer, pooling, params, rows, sample)
    found = None if folder is None or key is None else _read(folder, key, rows.size)
    if found is None:
        title = progress if isinstance(progress, str) else f"features of {model.name}"
        found = _run(program, params, rows, batch_size, title, bool(progress))
        if folder is not None and key is not None:
            _write(folder, key, found)
    labels = found.get("labels") if rows.streamed else rows.y
    return Features(found["features"], found.get("logits"), labels, rows.classes, key)


def _read(folder: pathlib.Path, key: str, size: int) -> dict[str, np.ndarray] | None:
    try:
        return disk.read(folder, key, size)
    except CheckpointError as error:
        warnings.warn(f"{error}. The features are computed anew", stacklevel=3)
        return None


def _write(folder: pathlib.Path, key: str, found: dict[str, np.ndarray]) -> None:
    try:
        disk.write(folder, key, found)
    except CheckpointError as error:
        warnings.warn(f"{error}. The features are not kept for the next time", stacklevel=3)


def _run(
    program: Callable[[Params, Any], Any], params: Params, rows: Examples, batch_size: int, title: str, show: bool
) -> dict[str, np.ndarray]:
    """The features, and logits and a stream's labels where there are any, `[N, ...]` each."""
    params, put, devices = _placed(params)
    size = -(-min(batch_size, rows.size) // devices) * devices
    pending: collections.deque[tuple[Any, Any]] = collections.deque()
    filler = _Filler(rows.size, -(-rows.size // size))
    with progress_bar(title, filler.batches, show=show) as tell, rows.batches(size) as batches:
        for batch in batches:
            pending.append((program(params, put(batch.x)), batch.y))
            if len(pending) > _IN_FLIGHT:
                filler.add(*pending.popleft(), tell)
        while pending:
            filler.add(*pending.popleft(), tell)
    return filler.arrays


class _Filler:
    """Arrays that fill up batch by batch."""

    def __init__(self, size: int, batches: int):
        self.arrays: dict[str, np.ndarray] = {}
        self.batches = batches
        self._size, self._done, self._step, self._start = size, 0, 0, time.perf_counter()

    def add(self, outputs: tuple[Any, Any], labels: Any, tell: Tell) -> None:
        """Wait for the outputs of the next batch, keep them, and tell how far it is."""
        parts = dict(zip(("features", "logits", "labels"), (*outputs, labels)))
        rows = min(self._size - self._done, len(parts["features"]))
        for name, part in parts.items():
            if part is None:
                continue
            if name not in self.arrays:
                self.arrays[name] = np.empty((self._size, *part.shape[1:]), part.dtype)
            self.arrays[name][self._done : self._done + rows] = np.asarray(part)[:rows]
        self._done, self._step = self._done + rows, self._step + 1
        tell(self._step, self._done / (time.perf_counter() - self._start), {})


def _placed(params: Params) -> tuple[Params, Callable[[Any], Any], int]:
    """The parameters on every device, how to bring a batch there, and how many parts a batch has."""
    devices = jax.local_devices()
    spread = any(len(leaf.devices()) > 1 for leaf in jax.tree.leaves(params) if isinstance(leaf, jax.Array))
    if len(devices) == 1 or spread:
        return params, lambda x: x, 1
    mesh = Mesh(np.array(devices), ("data",))
    everywhere, parts = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    return jax.device_put(params, everywhere), lambda x: jax.device_put(x, parts), len(devices)
