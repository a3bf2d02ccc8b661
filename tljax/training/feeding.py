"""The feeds of a run whose data are streamed, and what such data are known by."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np

from tljax.checkpoints.checksum import checksum
from tljax.data import ExampleStream, Feed, InTurn, Part, Shuffled, filled, fold_seed
from tljax.objectives.stream import in_order
from tljax.processes import several
from tljax.training.agreement import Peers
from tljax.training.placement import Placement
from tljax.training.program import Fed
from tljax.types import Batch


class PeerFeed(Feed):
    """A feed of one of several processes, which goes on after an error with zeros, until all processes know of it: for
    the others wait for what this one computes with them."""

    def __init__(self, peers: Peers, zeros: Callable[[], dict[str, Any]], *rest: Any):
        super().__init__(*rest)
        self._peers, self._zeros, self._failed = peers, zeros, False

    def ready(self) -> bool:
        """As its parent's."""
        return self._failed or super().ready()

    def take(self) -> dict[str, Any]:
        """As its parent's, but the error is kept for `Peers.agree`."""
        if not self._failed:
            try:
                return super().take()
            except Exception as error:
                self._failed = True
                self._peers.keep(error)
        return self._zeros()


class Feeds(NamedTuple):
    """Where a run's batches come from, as far as they are streamed."""

    train: Feed | None = None
    exam: Feed | None = None
    """The validation data, again and again."""
    exam_batches: int = 0
    """Batches in one pass over them."""


@dataclasses.dataclass(frozen=True)
class Share:
    """What this process reads of every batch, and how the parts of all become one on the devices."""

    placement: Placement | None
    sizes: Mapping[str, int]
    """By stream, examples of a batch on all devices together."""

    def feed(
        self, streams: Mapping[str, ExampleStream], orders: Mapping[str, Any], steps: range, make: Callable[..., Any],
        peers: Peers,
    ) -> Feed:  # fmt: skip
        """The feed of batches that went through `make(batch, put)`."""

        def put(batches: dict[str, Batch]) -> dict[str, Any]:
            return {name: make(batch, functools.partial(self._put, name)) for name, batch in batches.items()}

        if not several():
            return Feed(streams, orders, steps.start, steps.stop, put)
        parts = {name: Part(order, self._rows(name)) for name, order in orders.items()}

        def zeros() -> dict[str, Any]:
            none = np.zeros(0, np.int32)
            return put({name: filled(s.examples(none), len(self._rows(name))) for name, s in streams.items()})

        return PeerFeed(peers, zeros, streams, parts, steps.start, steps.stop, put)

    def _rows(self, name: str) -> np.ndarray:
        assert self.placement is not None  # with several processes there is a mesh
        return self.placement.rows(self.sizes[name])

    def _put(self, name: str, tree: Any) -> Any:
        if self.placement is None:
            return jax.device_put(tree)
        if not several():
            return self.placement.divided(tree)
        return self.placement.assembled(tree, self._rows(name), self.sizes[name])


@contextmanager
def open_feeds(
    fed: Mapping[str, ExampleStream], valid: Any, *, seed: Any, batch_sizes: Mapping[str, int], steps: range,
    exams: int, placement: Placement | None, peers: Peers,
) -> Iterator[Feeds]:  # fmt: skip
    """The feeds of the streamed training data `fed`, from the first of `steps` on, and of `valid` if it is a stream.

    `batch_sizes` has all training data, streamed or not. The order is the one that the program draws for arrays in
    memory: stream number `i` (`in_order`) has the seed `fold_seed(seed, i)`. Worker processes end with the block.
    `placement`: of a run on a mesh, whose devices get each their own examples; of several processes each reads those of
    its own devices.
    """
    number = {name: i for i, name in enumerate(in_order(batch_sizes))}
    orders = {
        name: Shuffled(int(fold_seed(seed, number[name], np)), batch_sizes[name], len(stream))
        for name, stream in fed.items()
    }
    with ExitStack() as stack:
        feeds = Feeds()
        if fed and steps:
            feed = Share(placement, batch_sizes).feed(fed, orders, steps, lambda b, put: Fed(*put((b.x, b.y))), peers)
            feeds = feeds._replace(train=stack.enter_context(feed))
        if isinstance(valid, ExampleStream) and exams:
            order = exam_order(valid, max(batch_sizes.values()))
            parts = 1 if placement is None else placement.examples
            whole = -(-order.batch_size // parts) * parts
            here = len(placement.rows(whole)) if placement is not None and several() else whole
            feed = Share(placement, {"valid": whole}).feed(
                {"valid": valid}, {"valid": order}, range(exams * order.batches),
                lambda batch, put: put(filled(batch, here)), peers,
            )  # fmt: skip
            feeds = feeds._replace(exam=stack.enter_context(feed), exam_batches=order.batches)
        yield feeds


def exam_order(valid: ExampleStream, most: int) -> InTurn:
    """How validation data are streamed: in batches of at most `most`, as even as can be.

    >>> from tljax.data import stream
    >>> exam_order(stream([(0.0, 0)] * 10), 8)
    InTurn(batch_size=5, size=10)
    """
    return InTurn(-(-len(valid) // -(-len(valid) // most)), len(valid))


def known_by(data: ExampleStream) -> bytes:
    """What tells streamed data apart: their length, their subset, and a sample of the examples.

    Data that differ elsewhere only are taken for the same.

    >>> from tljax.data import stream
    >>> numbers = [(float(i), i % 2) for i in range(100)]
    >>> known_by(stream(numbers)) == known_by(stream(list(numbers))) != known_by(stream(numbers[:-1]))
    True
    """
    return checksum([np.int32(len(data)), data.subset, data.sample()]).tobytes()
