"""Metrics of numbers: how far predictions are from their targets."""

import functools
from typing import NamedTuple

import jax.numpy as jnp

from tljax.evaluation import sums as running
from tljax.evaluation.metrics import Found, Metric, MetricError, ratio, real_examples, total
from tljax.evaluation.sums import Sum
from tljax.objectives.regression import aligned
from tljax.types import Array


class ResidualSums(NamedTuple):
    """What `regression` sums; each `[K]` but the counts."""

    examples: Array
    invalid: Array
    absolute: Sum
    squared: Sum
    shift: Array
    """The mean of the first batch's targets; the moments below are of ``target - shift``."""
    mean: Array
    spread: Array
    """The sum of squared deviations from the mean."""


def regression(outputs: int = 1) -> Metric:
    """The errors of predictions `[B, K]` against targets `[B, K]`, or `[B]` where K is 1.

    * `mae`: mean absolute error; `rmse`: root of the mean squared error;
      `r2`: ``1 - sum (target - prediction)^2 / sum (target - mean)^2``; each the mean over the K outputs. A constant
      target has r2 1 if predicted exactly and 0 if not; of fewer than two examples r2 is NaN;
    * `output_mae`, `output_rmse`, `output_r2` `[K]`, where K > 1;
    * `count`, and `invalid`: examples with NaN or inf, which make NaN of all the others.

    Batches' means and deviations are merged by Chan's formula around a shift, for a sum of squares in float32 loses
    everything when the mean is far from 0.

    Reference: Chan, Golub, LeVeque 1983, doi:10.1080/00031305.1983.10483115.

    >>> metric = regression()
    >>> predictions, targets = jnp.array([[1.0], [2.0], [4.0]]), jnp.array([1.0, 2.0, 3.0])
    >>> found = metric.compute(metric.update(metric.init(), predictions, targets))
    >>> print({k: round(float(found[k]), 3) for k in ("mae", "rmse", "r2")})
    {'mae': 0.333, 'rmse': 0.577, 'r2': 0.5}
    """
    if outputs < 1:
        raise MetricError(f"regression() needs at least one output, found {outputs}")
    return _regression(outputs)


@functools.cache
def _regression(outputs: int) -> Metric:
    def init() -> ResidualSums:
        none, zeros = jnp.zeros((), jnp.int32), jnp.zeros(outputs, jnp.float32)
        return ResidualSums(none, none, running.zero((outputs,)), running.zero((outputs,)), zeros, zeros, zeros)

    def update(sums: ResidualSums, logits: Array, labels: Array, weight: Array | None = None) -> ResidualSums:
        if logits.ndim != 2 or logits.shape[1] != outputs:
            raise MetricError(f"regression({outputs}) needs predictions [B, {outputs}], found {logits.shape}")
        return _merge(sums, _residuals(*aligned(logits, labels), weight))

    return Metric(init, update, _compute, _merge)


def _residuals(predictions: Array, targets: Array, weight: Array | None) -> ResidualSums:
    """The sums of one batch."""
    predictions, targets = predictions.astype(jnp.float32), targets.astype(jnp.float32)
    real = real_examples(len(targets), weight)
    finite = jnp.all(jnp.isfinite(predictions) & jnp.isfinite(targets), axis=-1)
    valid = (real & finite)[:, None]
    count = total(real & finite)
    error = jnp.where(valid, predictions - targets, 0)
    targets = jnp.where(valid, targets, 0)
    shift = ratio(jnp.sum(targets, axis=0), count)
    centred = jnp.where(valid, targets - shift[None], 0)
    # The shift is a rounded mean: what is left of it must not be lost.
    mean = ratio(jnp.sum(centred, axis=0), count)
    spread = jnp.sum(jnp.where(valid, jnp.square(centred - mean[None]), 0), axis=0)
    zero = running.zero(mean.shape)
    absolute = running.add(zero, jnp.sum(jnp.abs(error), axis=0))
    squared = running.add(zero, jnp.sum(jnp.square(error), axis=0))
    return ResidualSums(count, total(real & ~finite), absolute, squared, shift, mean, spread)


def _merge(a: ResidualSums, b: ResidualSums) -> ResidualSums:
    count = a.examples + b.examples
    shift = jnp.where(a.examples > 0, a.shift, b.shift)
    delta = jnp.where(a.examples > 0, (b.shift - shift) + b.mean - a.mean, b.mean)
    delta = jnp.where(b.examples > 0, delta, 0)
    share = ratio(b.examples, count)
    between = jnp.square(delta) * a.examples.astype(jnp.float32) * share
    return ResidualSums(
        count,
        a.invalid + b.invalid,
        running.join(a.absolute, b.absolute),
        running.join(a.squared, b.squared),
        shift,
        a.mean + delta * share,
        a.spread + b.spread + between,
    )


def _compute(sums: ResidualSums) -> Found:
    squared = running.value(sums.squared)
    r2 = 1 - ratio(squared, sums.spread)
    r2 = jnp.where(sums.spread > 0, r2, jnp.where(squared > 0, 0.0, 1.0))
    each = {
        "mae": ratio(running.value(sums.absolute), sums.examples, jnp.nan),
        "rmse": jnp.sqrt(ratio(squared, sums.examples, jnp.nan)),
        "r2": jnp.where(sums.examples > 1, r2, jnp.nan),
    }
    each = {name: jnp.where(sums.invalid > 0, jnp.nan, value) for name, value in each.items()}
    found = {"count": sums.examples + sums.invalid, "invalid": sums.invalid}
    found |= {name: jnp.mean(value) for name, value in each.items()}
    if len(squared) > 1:
        found |= {f"output_{name}": value for name, value in each.items()}
    return found
