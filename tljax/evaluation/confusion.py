"""Metrics of classes: one of many, or each on its own."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tljax.evaluation import sums as running
from tljax.evaluation.metrics import (
    Found,
    Metric,
    MetricError,
    merge_counts,
    ratio,
    real_examples,
    total,
)
from tljax.evaluation.rates import rates
from tljax.evaluation.sums import Sum
from tljax.objectives.mean import widened
from tljax.types import Array


class ClassSums(NamedTuple):
    """What `classification` counts."""

    confusion: Array
    """`[C, C]` int: true class by answered class."""
    lost: Array
    """`[C]` int: examples whose logits give no answer, by true class."""
    outside: Array
    """Examples whose label is no class, int."""
    top: Array
    """How often the true class was among the k first, for every k, int."""
    nll: Sum
    brier: Sum
    bin_count: Array
    """`[bins]` int: answers by confidence."""
    bin_right: Array
    bin_confidence: Sum


def classification(num_classes: int, *, top_k: Sequence[int] = (5,), bins: int = 15) -> Metric:
    """The metrics of choosing one class of C, from logits `[B, C]` and labels `[B]` int.

    * `accuracy`; `top_{k}` for every k below C, where equal logits rank by class number;
    * `confusion` `[C, C]`, true class by answered class, and `support` `[C]`;
    * `class_`, `macro_`, `micro_` and `weighted_` `precision`, `recall`, `f1`: see `rates`;
    * `balanced_accuracy`: the mean recall of the classes present; `worst_recall`, its `worst_class` and how many
      examples that has, `worst_support`;
    * `nll`: mean of ``-log p_y``, nats; `brier`: mean of ``sum_c (p_c - [c = y])^2``;
    * `ece`: ``sum_b n_b / N |accuracy_b - confidence_b|`` over `bins` equal bins ``(lo, hi]`` of the largest p. It is
      biased upwards by about ``sqrt(bins / N)``; for bins of equal mass see `calibration_error`;
    * `count` of examples, and `invalid` ones: no finite logits, or a label outside 0..C-1.

    Equal arguments give the same object, so that what is compiled for it is found again.

    Reference: Guo et al. 2017, arXiv:1706.04599 (ECE); Brier 1950.

    >>> metric = classification(num_classes=3)
    >>> logits, labels = jnp.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [9.0, 9.0, 9.0]]), jnp.array([0, 2, 0])
    >>> found = metric.compute(metric.update(metric.init(), logits, labels, jnp.array([1.0, 1.0, 0.0])))
    >>> print(found["accuracy"], found["worst_class"], found["count"])
    0.5 2 2
    """
    if num_classes < 1 or bins < 1 or any(k < 1 for k in top_k):
        raise MetricError(
            f"classification() needs num_classes, bins and every k of at least 1; "
            f"found num_classes={num_classes}, bins={bins}, top_k={tuple(top_k)}"
        )
    return _classification(num_classes, tuple(sorted(k for k in set(top_k) if k < num_classes)), bins)


@functools.cache
def _classification(classes: int, top_k: tuple[int, ...], bins: int) -> Metric:
    def init() -> ClassSums:
        def counts(*shape: int) -> Array:
            return jnp.zeros(shape, jnp.int32)

        return ClassSums(
            counts(classes, classes),
            counts(classes),
            counts(),
            counts(len(top_k)),
            running.zero(),
            running.zero(),
            counts(bins),
            counts(bins),
            running.zero((bins,)),
        )

    def update(sums: ClassSums, logits: Array, labels: Array, weight: Array | None = None) -> ClassSums:
        return _count_classes(sums, logits, labels, weight, top_k)

    def compute(sums: ClassSums) -> Found:
        return _class_metrics(sums) | {
            f"top_{k}": ratio(hits, _class_count(sums), jnp.nan) for k, hits in zip(top_k, sums.top)
        }

    return Metric(init, update, compute, merge_counts)


def _count_classes(
    sums: ClassSums, logits: Array, labels: Array, weight: Array | None, top_k: tuple[int, ...]
) -> ClassSums:
    logits, labels = _checked_classes(logits, labels, len(sums.lost))
    real = real_examples(len(labels), weight)
    inside = (labels >= 0) & (labels < logits.shape[1])
    finite = jnp.isfinite(jax.nn.logsumexp(logits, axis=-1))
    valid = real & inside & finite
    once = valid.astype(jnp.int32)
    true = jnp.where(inside, labels, 0)
    answer = jnp.argmax(logits, axis=-1).astype(true.dtype)
    log_p = jax.nn.log_softmax(jnp.where(finite[:, None], logits, 0))
    p = jnp.exp(log_p)
    confidence = jnp.max(p, axis=-1)
    bin_of = _bin(confidence, len(sums.bin_count))
    nll = -jnp.take_along_axis(log_p, true[:, None], axis=-1)[:, 0]
    brier = jnp.sum(jnp.square(p - jax.nn.one_hot(true, logits.shape[1], dtype=p.dtype)), axis=-1)
    rank = _rank(logits, true)
    return ClassSums(
        confusion=sums.confusion.at[true, answer].add(once),
        lost=sums.lost.at[true].add((real & inside & ~finite).astype(jnp.int32)),
        outside=sums.outside + total(real & ~inside),
        top=sums.top + jnp.array([total(valid & (rank < k)) for k in top_k], jnp.int32),
        nll=running.add(sums.nll, jnp.sum(jnp.where(valid, nll, 0))),
        brier=running.add(sums.brier, jnp.sum(jnp.where(valid, brier, 0))),
        bin_count=sums.bin_count.at[bin_of].add(once),
        bin_right=sums.bin_right.at[bin_of].add(once * (answer == true).astype(jnp.int32)),
        bin_confidence=running.add(
            sums.bin_confidence,
            jnp.zeros(len(sums.bin_count), confidence.dtype).at[bin_of].add(jnp.where(valid, confidence, 0)),
        ),
    )


def _checked_classes(logits: Array, labels: Array, classes: int) -> tuple[Array, Array]:
    logits, labels = widened(logits), jnp.asarray(labels)
    if (
        logits.ndim != 2
        or logits.shape != (labels.shape[0] if labels.ndim else 0, classes)
        or labels.ndim != 1
        or not jnp.issubdtype(labels.dtype, jnp.integer)
    ):
        raise MetricError(
            f"classification({classes}) needs logits [B, {classes}] and integer labels [B]; found logits "
            f"{logits.shape} and labels {labels.shape} {labels.dtype}; for soft labels write jnp.argmax(labels, -1)"
        )
    return logits, labels.astype(jnp.int32)


def _rank(logits: Array, true: Array) -> Array:
    """How many classes stand before the true one, `[B]`."""
    own = jnp.take_along_axis(logits, true[:, None], axis=-1)
    earlier = jnp.arange(logits.shape[1], dtype=true.dtype)[None] < true[:, None]
    return total((logits > own) | ((logits == own) & earlier), axis=-1)


def _bin(confidence: Array, bins: int) -> Array:
    """The number of the bin ``(lo, hi]`` each confidence falls in, `[B]`."""
    inner_edges = jnp.linspace(0, 1, bins + 1, dtype=confidence.dtype)[1:-1]
    return total(confidence[:, None] > inner_edges[None], axis=-1)


def _class_count(sums: ClassSums) -> Array:
    return total(sums.confusion) + total(sums.lost) + sums.outside


def _class_metrics(sums: ClassSums) -> Found:
    right = jnp.diagonal(sums.confusion)
    support = total(sums.confusion, axis=1) + sums.lost
    count = _class_count(sums)
    invalid = total(sums.lost) + sums.outside
    found = rates(right, total(sums.confusion, axis=0), support)
    gaps = jnp.abs(sums.bin_right.astype(jnp.float32) - running.value(sums.bin_confidence))
    losses = {"nll": running.value(sums.nll), "brier": running.value(sums.brier), "ece": jnp.sum(gaps)}
    return (
        {"count": count, "invalid": invalid, "accuracy": ratio(jnp.sum(right), count, jnp.nan)}
        | {"balanced_accuracy": ratio(jnp.sum(found["class_recall"]), total(support > 0), jnp.nan)}
        | found
        | {name: jnp.where(invalid > 0, jnp.nan, ratio(s, count, jnp.nan)) for name, s in losses.items()}
        | {"confusion": sums.confusion}
    )


class LabelSums(NamedTuple):
    """What `multilabel` counts; all int but the loss."""

    examples: Array
    invalid: Array
    exact: Array
    """Examples with all C answers right."""
    right: Array
    """`[C]`: answered yes and true."""
    answered: Array
    support: Array
    lost: Array
    """`[C]`: true, in an example whose logits give no answer."""
    nll: Sum


def multilabel(num_classes: int, *, threshold: float = 0.5) -> Metric:
    """The metrics of C yes-or-no questions, from logits `[B, C]` and labels `[B, C]` (or `[B]` where C is 1).

    The answer is yes where the sigmoid of the logit is above `threshold`.

    * `accuracy`: right answers among all; `exact_match`: examples with all C right;
    * `class_`, `macro_`, `micro_` and `weighted_` `precision`, `recall`, `f1`, `worst_recall`, `worst_class`,
      `worst_support`: see `rates`; `support` `[C]`;
    * `nll`: mean binary cross-entropy, nats; `count`, and `invalid`: examples with a logit that is NaN or infinite.

    >>> metric = multilabel(num_classes=2)
    >>> found = metric.compute(metric.update(metric.init(), jnp.array([[1.0, -1.0]]), jnp.array([[1, 1]])))
    >>> print(found["accuracy"], found["exact_match"], found["class_recall"])
    0.5 0.0 [1. 0.]
    """
    if num_classes < 1 or not 0 < threshold < 1:
        raise MetricError(
            f"multilabel() needs num_classes >= 1 and 0 < threshold < 1, found {num_classes} and {threshold}"
        )
    return _multilabel(num_classes, float(threshold))


@functools.cache
def _multilabel(classes: int, threshold: float) -> Metric:
    cut = math.log(threshold / (1 - threshold))

    def init() -> LabelSums:
        def counts(*shape: int) -> Array:
            return jnp.zeros(shape, jnp.int32)

        c = classes
        return LabelSums(counts(), counts(), counts(), counts(c), counts(c), counts(c), counts(c), running.zero())

    def update(sums: LabelSums, logits: Array, labels: Array, weight: Array | None = None) -> LabelSums:
        logits, true = _checked_labels(logits, labels, classes)
        real = real_examples(len(true), weight)
        finite = jnp.all(jnp.isfinite(logits), axis=-1)
        valid = real & finite
        yes = logits > cut
        logits = jnp.where(finite[:, None], logits, 0)
        nll = jnp.mean(-jax.nn.log_sigmoid(jnp.where(true, logits, -logits)), axis=-1)
        return LabelSums(
            examples=sums.examples + total(real),
            invalid=sums.invalid + total(real & ~finite),
            exact=sums.exact + total(valid & jnp.all(yes == true, axis=-1)),
            right=sums.right + total(valid[:, None] & yes & true, axis=0),
            answered=sums.answered + total(valid[:, None] & yes, axis=0),
            support=sums.support + total(valid[:, None] & true, axis=0),
            lost=sums.lost + total((real & ~finite)[:, None] & true, axis=0),
            nll=running.add(sums.nll, jnp.sum(jnp.where(valid, nll, 0))),
        )

    return Metric(init, update, _label_metrics, merge_counts)


def _checked_labels(logits: Array, labels: Array, classes: int) -> tuple[Array, Array]:
    logits, labels = widened(logits), jnp.asarray(labels)
    if labels.ndim == 1 and classes == 1:
        labels = labels[:, None]
    if labels.ndim != 2 or logits.shape != labels.shape or logits.shape[1] != classes:
        raise MetricError(
            f"multilabel({classes}) needs logits and labels [B, {classes}] (labels [B] where C is 1), "
            f"found logits {logits.shape} and labels {labels.shape}"
        )
    return logits, labels.astype(jnp.float32) > 0.5


def _label_metrics(sums: LabelSums) -> Found:
    valid = sums.examples - sums.invalid
    right_answers = valid - sums.answered - sums.support + 2 * sums.right  # both yes, or both no
    nll = ratio(running.value(sums.nll), sums.examples, jnp.nan)
    return {
        "count": sums.examples,
        "invalid": sums.invalid,
        "accuracy": jnp.mean(ratio(right_answers, sums.examples, jnp.nan)),
        "exact_match": ratio(sums.exact, sums.examples, jnp.nan),
        "nll": jnp.where(sums.invalid > 0, jnp.nan, nll),
    } | rates(sums.right, sums.answered, sums.support + sums.lost)
