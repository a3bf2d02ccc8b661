"""The feeds of a run whose data are streamed, and what such data are known by."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np

from tljax.checkpoints.checksum import checksum
from tljax.data import ExampleStream, Feed, InTurn, Shuffled, filled, fold_seed
from tljax.training.placement import Placement
from tljax.training.program import Fed
from tljax.types import Batch


class Feeds(NamedTuple):
    """Where a run's batches come from, as far as they are streamed."""

    train: Feed | None = None
    exam: Feed | None = None
    """The validation data, again and again."""
    exam_batches: int = 0
    """Batches in one pass over them."""


@contextmanager
def open_feeds(
    fed: Mapping[str, ExampleStream], valid: Any, *, seed: Any, batch_sizes: Mapping[str, int], steps: range,
    exams: int, placement: Placement | None = None,
) -> Iterator[Feeds]:  # fmt: skip
    """The feeds of the streamed training data `fed`, from the first of `steps` on, and of `valid` if it is a stream.

    `batch_sizes` has all training data, streamed or not. The order is the one that the program draws for arrays in
    memory: stream number `i` by name has the seed `fold_seed(seed, i)`. Worker processes end with the block.
    `placement`: of a run on a mesh, whose devices get each their own examples.
    """
    to_device = jax.device_put if placement is None else placement.divided

    def fill(batches: dict[str, Batch]) -> dict[str, Fed]:
        return {name: Fed(*to_device((batch.x, batch.y))) for name, batch in batches.items()}

    number = {name: i for i, name in enumerate(sorted(batch_sizes))}
    orders = {
        name: Shuffled(int(fold_seed(seed, number[name], np)), batch_sizes[name], len(stream))
        for name, stream in fed.items()
    }
    with ExitStack() as stack:
        feeds = Feeds()
        if fed and steps:
            feeds = feeds._replace(train=stack.enter_context(Feed(fed, orders, steps.start, steps.stop, fill)))
        if isinstance(valid, ExampleStream) and exams:
            order = exam_order(valid, max(batch_sizes.values()))
            parts = 1 if placement is None else placement.examples
            whole = -(-order.batch_size // parts) * parts

            def put(batches: dict[str, Batch]) -> dict[str, Batch]:
                return {name: to_device(filled(batch, whole)) for name, batch in batches.items()}

            feed = Feed({"valid": valid}, {"valid": order}, 0, exams * order.batches, put)
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
