"""Metrics of order: the area under the ROC curve."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tljax.evaluation.metrics import Found, Metric, MetricError, ratio, real_examples, total
from tljax.objectives.mean import widened
from tljax.types import Array


class Scores(NamedTuple):
    """The scores of all examples so far: an exact area needs them all."""

    score: Array
    """`[capacity, C]`"""
    true: Array
    """`[capacity, C]` bool"""
    examples: Array
    """How many there were, int; more than the capacity cannot be held."""
    invalid: Array


def auroc(num_classes: int, *, capacity: int) -> Metric:
    """The exact area under the ROC curve, of each class against the rest; ties count half.

    With labels `[B]` int each class is scored by the log of its softmax probability (of two classes, by the
    difference of their logits); with labels `[B, C]`, and with `[B]` where C is 1, by its logit. `class_auroc` `[C]`
    is NaN for a class without examples or without counterexamples; `auroc` is the mean over the others, for two
    classes the usual binary area.

    An exact area needs all scores at once, so the metric holds `capacity` examples (5 C bytes each). If more come, or
    one with logits that are not finite, the result is NaN rather than an area of part of the examples.

    ``AUROC_c = mean over pairs (i of class c, j not) of [s_i > s_j] + 1/2 [s_i = s_j]``

    Reference: Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747.

    >>> metric = auroc(num_classes=2, capacity=4)
    >>> logits, labels = jnp.array([[0.0, 0.1], [0.0, 0.4], [0.0, 0.35], [0.0, 0.8]]), jnp.array([0, 0, 1, 1])
    >>> print(metric.compute(metric.update(metric.init(), logits, labels))["auroc"])
    0.75
    """
    if num_classes < 1 or capacity < 1:
        raise MetricError(f"auroc() needs num_classes and capacity >= 1, found {num_classes} and {capacity}")
    return _auroc(num_classes, capacity)


@functools.cache
def _auroc(classes: int, capacity: int) -> Metric:
    def init() -> Scores:
        none = jnp.zeros((), jnp.int32)
        return Scores(jnp.zeros((capacity, classes), jnp.float32), jnp.zeros((capacity, classes), bool), none, none)

    def update(sums: Scores, logits: Array, labels: Array, weight: Array | None = None) -> Scores:
        score, true, inside = _scored(widened(logits), jnp.asarray(labels), classes)
        real = real_examples(len(score), weight)
        bad = real & ~(inside & ~jnp.any(jnp.isnan(score), axis=-1))
        return _store(sums._replace(invalid=sums.invalid + total(bad)), score, true, real)

    def merge(a: Scores, b: Scores) -> Scores:
        held = jnp.arange(capacity, dtype=jnp.int32) < b.examples
        joined = _store(a, b.score, b.true, held)
        return joined._replace(examples=a.examples + b.examples, invalid=a.invalid + b.invalid)

    return Metric(init, update, _compute, merge)


def _store(sums: Scores, score: Array, true: Array, real: Array) -> Scores:
    """The real rows written behind those held; what is beyond the capacity is dropped, but counted."""
    place = sums.examples + jnp.cumsum(real, dtype=jnp.int32) - 1
    place = jnp.where(real, place, len(sums.score))
    return sums._replace(
        score=sums.score.at[place].set(score, mode="drop"),
        true=sums.true.at[place].set(true, mode="drop"),
        examples=sums.examples + total(real),
    )


def _scored(logits: Array, labels: Array, classes: int) -> tuple[Array, Array, Array]:
    """Scores `[B, C]`, truth `[B, C]`, and which labels are classes `[B]`."""
    if classes == 1 and labels.ndim == 1:
        labels = labels[:, None]
    if logits.ndim != 2 or logits.shape[1] != classes or labels.shape not in (logits.shape, logits.shape[:1]):
        raise MetricError(
            f"auroc({classes}) needs logits [B, {classes}] and labels [B] or [B, {classes}], "
            f"found logits {logits.shape} and labels {labels.shape}"
        )
    if labels.ndim == 2:
        return logits.astype(jnp.float32), labels.astype(jnp.float32) > 0.5, jnp.ones(len(labels), bool)
    logits, labels = logits.astype(jnp.float32), labels.astype(jnp.int32)
    inside = (labels >= 0) & (labels < classes)
    true = labels[:, None] == jnp.arange(classes, dtype=labels.dtype)[None]
    return logits - logits[:, ::-1] if classes == 2 else jax.nn.log_softmax(logits), true, inside


def _compute(sums: Scores) -> Found:
    held = jnp.arange(len(sums.score), dtype=jnp.int32) < sums.examples
    areas = jax.lax.map(lambda column: _area(column[0], column[1], held), (sums.score.T, sums.true.T))
    defined = ~jnp.isnan(areas)
    mean = ratio(jnp.sum(jnp.where(defined, areas, 0)), total(defined), jnp.nan)
    whole = (sums.examples <= len(sums.score)) & (sums.invalid == 0)
    return {
        "auroc": jnp.where(whole, mean, jnp.nan),
        "class_auroc": jnp.where(whole, areas, jnp.nan),
    }


def _area(score: Array, true: Array, held: Array) -> Array:
    """The area of one class from scores `[N]`: for each of its examples, the share of the others ranked below."""
    own, other = held & true, held & ~true
    others = total(other)
    below = jnp.sort(jnp.where(other, score, jnp.inf))
    less = jnp.searchsorted(below, score, side="left")
    # Rows that are no counterexamples were sorted to the end as inf, where a score of inf would tie with them.
    not_more = jnp.minimum(jnp.searchsorted(below, score, side="right"), others)
    beaten = ratio(less, 2 * others) + ratio(not_more, 2 * others)
    found = ratio(jnp.sum(jnp.where(own, beaten, 0)), total(own), jnp.nan)
    return jnp.where(others > 0, found, jnp.nan)
