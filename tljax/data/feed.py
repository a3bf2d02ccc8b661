"""Batches made ahead of their use: worker processes read and decode, a thread puts their batches on the device.

Step number `s` of a stream is a pure function of `s`: worker `w` of `W` makes every `W`-th batch, and the batches come
in order, so neither the number of workers nor a new start changes what is seen.
"""

import dataclasses
import gc
import multiprocessing
import os
import queue
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np

from tljax.data.error import DataError
from tljax.data.order import batch_indices
from tljax.data.streaming import ExampleStream
from tljax.types import Batch

AHEAD = 2
"""Batches that lie ready: on the device, and in each worker."""
_POLL_SECONDS = 0.2


class Shuffled(NamedTuple):
    """The order of training: epoch after epoch, each a permutation of its own."""

    seed: int
    batch_size: int
    size: int

    def __call__(self, step: int, /) -> np.ndarray:
        """The positions of the examples of a step, `[B]`."""
        return np.asarray(batch_indices(self.seed, step, self.batch_size, self.size, np))


class InTurn(NamedTuple):
    """The order of evaluation: from first to last, in batches of one size, and again from the start."""

    batch_size: int
    size: int

    @property
    def batches(self) -> int:
        """Batches in one pass."""
        return -(-self.size // self.batch_size)

    def __call__(self, step: int) -> np.ndarray:
        """The positions of batch number `step`; those of the last batch of a pass may be fewer."""
        first = step % self.batches * self.batch_size
        return np.arange(first, min(first + self.batch_size, self.size))


class Part(NamedTuple):
    """Some places of the batches of an order: what one of several processes reads.

    >>> Part(InTurn(4, 6), np.array([2, 3]))(0).tolist(), Part(InTurn(4, 6), np.array([2, 3]))(1).tolist()
    ([2, 3], [])
    """

    order: Any
    rows: np.ndarray
    """Rising."""

    def __call__(self, step: int) -> np.ndarray:
        """The positions of those examples of a batch that stand at these places, as far as it has them."""
        positions = self.order(step)
        return positions[self.rows[self.rows < len(positions)]]


class Feed:
    """The batches of several streams, step by step: `with Feed(...) as feed: batches = feed.take()`.

    Args:
      streams: by name.
      orders: of each stream, which examples make up a step.
      first, last: the steps, `last` not included.
      put: what is done with each batch ahead of its use, such as bringing it to the device.

    >>> from tljax.data import stream
    >>> numbers = stream([(np.float32([i]), i) for i in range(5)], name="numbers")
    >>> with Feed({"train": numbers}, {"train": InTurn(2, 5)}, 0, 3) as feed:
    ...     [feed.take()["train"].y.tolist() for _ in range(3)]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        streams: Mapping[str, ExampleStream],
        orders: Mapping[str, Any],
        first: int,
        last: int,
        put: Callable[[Any], Any] = lambda batches: batches,
    ):
        for name, stream in streams.items():
            _check_workers(stream, f"the stream {name!r}")
        self._work = [_Work(stream, orders[name]) for name, stream in streams.items()]
        self._names, self._steps, self._put = tuple(streams), range(first, last), put
        self._queue: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="tljax-feed", daemon=True)

    def __enter__(self) -> "Feed":
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def ready(self) -> bool:
        """Whether `take` will return at once."""
        return not self._queue.empty()

    def take(self) -> dict[str, Batch]:
        """The batches of the next step, by stream. Raises the `DataError` of an example that could not be read."""
        batches, error = self._queue.get()
        if error is not None:
            self.close()
            raise _told(error)
        return batches

    def close(self) -> None:
        """End the workers, and wait for their end."""
        self._stop.set()
        self._thread.join()
        if any(work.stream.workers for work in self._work):
            gc.collect()  # grain's cycles hold the last shared array, which Python would call leaked when it ends

    def _fill(self) -> None:
        made: list[Iterator[Batch]] = []
        try:
            made = [_batches(work, self._steps) for work in self._work]
            for _ in self._steps:
                self._offer(self._put(dict(zip(self._names, map(next, made)))), None)
                if self._stop.is_set():
                    break
        except BaseException as error:  # told where the batches are taken
            self._offer(None, error)
        finally:
            for batches in made:
                batches.close()  # type: ignore[attr-defined]  # ends the workers

    def _offer(self, batches: Any, error: BaseException | None) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put((batches, error), timeout=_POLL_SECONDS)
            except queue.Full:
                continue
        return None


@contextmanager
def in_turn(stream: ExampleStream, batch_size: int) -> Iterator[Iterator[Batch]]:
    """All examples of `stream` once, in batches of one size; the last is filled up with examples of weight 0.

    >>> from tljax.data import stream
    >>> with in_turn(stream([(np.float32([i]), i) for i in range(3)]), 2) as batches:
    ...     [(batch.y.tolist(), batch.weight.tolist()) for batch in batches]
    [([0, 1], [1.0, 1.0]), ([2, 0], [1.0, 0.0])]
    """
    order = InTurn(min(batch_size, len(stream)), len(stream))
    with Feed({"data": stream}, {"data": order}, 0, order.batches) as feed:
        yield (filled(feed.take()["data"], order.batch_size) for _ in range(order.batches))


def filled(batch: Batch, size: int) -> Batch:
    """`batch` with zeros up to `size` examples, and weights that say so.

    >>> filled(Batch(np.ones((1, 2)), np.array([3])), 2).weight.tolist()
    [1.0, 0.0]
    """
    rows = len(jax.tree.leaves(batch)[0])
    x, y = jax.tree.map(
        lambda a: np.concatenate([a, np.zeros((size - rows, *a.shape[1:]), a.dtype)]), (batch.x, batch.y)
    )
    return Batch(x, y, (np.arange(size) < rows).astype(np.float32))


@dataclasses.dataclass(frozen=True)
class _Work:
    """What a worker does: the leaves of the batch of a step. Sent to the workers."""

    stream: ExampleStream
    order: Any
    """Which examples make up a step: `order(step) -> positions`."""

    def __call__(self, step: int) -> list[np.ndarray]:
        return jax.tree.leaves(self.stream.examples(self.order(int(step))))


def _batches(work: _Work, steps: range) -> Iterator[Batch]:
    """The batches of `steps`, made here or by worker processes."""
    if not work.stream.workers:
        for step in steps:
            yield work.stream.examples(work.order(step))
        return
    structure = jax.tree.structure(work.stream.example(0))
    made = iter(_with_workers(work, steps))
    try:
        for leaves in made:
            # Copies: the workers' memory is given back at once, and nothing is left of it when the interpreter ends.
            yield jax.tree.unflatten(structure, [np.array(leaf) for leaf in leaves])
    finally:
        made.close()


def _with_workers(work: _Work, steps: range) -> Any:
    """The leaves of the batches of `steps`, by grain's worker processes."""
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():  # grain reads flags of its own; outside of absl's app.run nobody parses them
        flags.FLAGS.mark_as_parsed()
    workers = work.stream.workers
    made = grain.MapDataset.range(steps.start, steps.stop).map(work)
    one_by_one = made.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    options = grain.experimental.DatasetOptions(min_shm_size=_shared_from(work, steps.start, workers))
    return grain.experimental.WithOptionsIterDataset(one_by_one, options).mp_prefetch(
        grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=AHEAD), worker_init_fn=_start_worker
    )


def _shared_from(work: _Work, step: int, workers: int) -> int:
    """From what size on arrays go through shared memory: never where it is too small, as in many containers.

    What does not fit there would kill the worker.
    """
    examples, one = len(work.order(step)), work.stream.example(0)
    needed = workers * (AHEAD + 2) * examples * sum(leaf.nbytes for leaf in jax.tree.leaves(one))
    folder = "/dev/shm"
    scarce = os.path.isdir(folder) and shutil.disk_usage(folder).free < 2 * needed
    return 2**62 if scarce else 1 << 16


def _start_worker(index: int, count: int) -> None:
    """Run in each worker: it decodes on the host, ends with its parent, and leaves being interrupted to it."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell sends them to all, and the parent still wants to save
        signal.signal(number, signal.SIG_IGN)
    jax.config.update("jax_platforms", "cpu")  # the accelerator is the parent's
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _check_workers(stream: ExampleStream, what: str) -> None:
    if not stream.workers:
        return
    try:
        import grain  # noqa: F401
    except ImportError as error:
        raise DataError(f"{what} has worker processes, which are grain's: pip install 'tljax[data]'") from error
    if multiprocessing.current_process().daemon:
        raise DataError(
            f"{what}: a worker process cannot start workers. A script that streams must do its work under "
            'if __name__ == "__main__":, since its worker processes import it'
        )


def _told(error: BaseException) -> BaseException:
    """The error of a worker, as one of the data."""
    if isinstance(error, DataError):
        return DataError(str(error))  # without grain's notes
    if isinstance(error, RuntimeError) and "terminated unexpectedly" in str(error):
        return DataError(
            "a worker process ended unexpectedly; what it wrote above says why. A script that streams must do its work "
            'under if __name__ == "__main__":, since its worker processes import it'
        )
    if "pickle" in f"{type(error).__name__} {error}".lower():
        return DataError(f"the source cannot be sent to worker processes ({error}); write workers=0")
    return error
