"""A metric is four pure functions over a pytree of sums, so that it streams, shards and jits.

    sums = metric.init()
    for batch in batches:
        sums = metric.update(sums, logits, batch.y, batch.weight)
    found = metric.compute(sums)

Counts are integers, so they stay exact beyond the 2^24 of float32. Shards are counted apart and merged.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tljax.evaluation import sums as running
from tljax.types import Array, TljaxError

Sums = Any
Found = dict[str, Array]


class MetricError(TljaxError):
    """Logits or labels that do not fit the metric, or options that make none."""


class Metric(NamedTuple):
    """What is counted of a model's answers.

    An example whose weight is 0 is padding and is not counted; any other counts once, whatever its weight. An
    example whose logits are not numbers counts as answered wrongly, is reported under `invalid`, and makes NaN of
    the losses.
    """

    init: Callable[[], Sums]
    """`init() -> sums` of nothing."""
    update: Callable[..., Sums]
    """`update(sums, logits [B, C], labels, weight [B] or None) -> sums`; jits."""
    compute: Callable[[Sums], Found]
    """`compute(sums)` -> numbers and arrays by name; jits."""
    merge: Callable[[Sums, Sums], Sums]
    """`merge(a, b)`: the sums of both sets of examples."""


def combine(*metrics: Metric) -> Metric:
    """Several metrics of the same logits and labels as one.

    Raises:
        MetricError: from `compute`, when two of them give different things one name.

    >>> from tljax.evaluation import auroc, classification
    >>> both = combine(classification(num_classes=2), auroc(num_classes=2, capacity=100))
    >>> logits, labels = jnp.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [3.0, 0.0]]), jnp.array([0, 1, 1, 0])
    >>> found = both.compute(both.update(both.init(), logits, labels))
    >>> print(found["accuracy"], found["auroc"])
    0.75 1.0
    """
    if not metrics:
        raise MetricError("combine() needs at least one metric, for example combine(classification(num_classes=10))")

    def update(sums: Sums, logits: Array, labels: Array, weight: Array | None = None) -> Sums:
        return tuple(m.update(s, logits, labels, weight) for m, s in zip(metrics, sums, strict=True))

    def compute(sums: Sums) -> Found:
        found: Found = {}
        for metric, own in zip(metrics, sums, strict=True):
            more = metric.compute(own)
            twice = sorted(found.keys() & more.keys() - {"count", "invalid"})
            if twice:
                raise MetricError(f"two of the combined metrics report {', '.join(twice)}: give only one of them")
            found |= more
        return found

    def merge(a: Sums, b: Sums) -> Sums:
        return tuple(m.merge(x, y) for m, x, y in zip(metrics, a, b, strict=True))

    return Metric(lambda: tuple(m.init() for m in metrics), update, compute, merge)


def merge_counts(a: Sums, b: Sums) -> Sums:
    """The leaf by leaf sum of two pytrees of counts and `Sum`s.

    >>> print(merge_counts({"right": jnp.int32(3)}, {"right": jnp.int32(4)}))
    {'right': Array(7, dtype=int32)}
    """

    def is_sum(node: Any) -> bool:
        return isinstance(node, running.Sum)

    return jax.tree.map(lambda x, y: running.join(x, y) if is_sum(x) else x + y, a, b, is_leaf=is_sum)


def real_examples(count: int, weight: Array | None) -> Array:
    """Which of the examples are no padding, `[B]` bool.

    >>> print(real_examples(3, jnp.array([1.0, 1.0, 0.0])))
    [ True  True False]
    """
    if weight is None:
        return jnp.ones(count, bool)
    weight = jnp.asarray(weight)
    if weight.shape != (count,):
        raise MetricError(f"weight must be [B] like the {count} examples, found {weight.shape}")
    return weight > 0


def total(mask: Array, axis: int | None = None) -> Array:
    """How many are true, or the sum of counts, int32.

    >>> print(total(jnp.array([True, False, True])))
    2
    """
    return jnp.sum(mask, axis=axis, dtype=jnp.int32)


def ratio(over: Array, under: Array, otherwise: float = 0.0) -> Array:
    """`over / under` in float32, and `otherwise` where `under` is 0.

    >>> print(ratio(jnp.array([1, 0]), jnp.array([4, 0])))
    [0.25 0.  ]
    """
    over, under = jnp.asarray(over, jnp.float32), jnp.asarray(under, jnp.float32)
    return jnp.where(under != 0, over / jnp.where(under != 0, under, 1), otherwise)
