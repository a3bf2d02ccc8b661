"""Ridge regression as a score: what a linear head predicts of examples that it was fitted without."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from tljax import probes
from tljax.scores.inputs import ScoreError, floats, labelled
from tljax.scores.logme import columns

Measure = Literal["accuracy", "likelihood", "r2"]


def ridge(
    features: Any,
    labels: Any,
    *,
    measure: Measure | None = None,
    regression: bool = False,
    strengths: Any = None,
) -> float:
    """How well a ridge regression on the features predicts each example from all others; higher is better.

    The strength is the one with the least squared leave-one-out error (`tljax.probes.ridge`). Copies of an example
    among the others make the score too good.

    Args:
        features: `[N, D]`.
        labels: classes `[N]`; with `regression` targets `[N]` or `[N, K]`.
        measure: of classes "accuracy" (the default), or "likelihood": the mean log-probability of the right class, in
            nats, at most 0, under the temperature that suits the left-out logits best. Of targets "r2":
            ``1 - sum (t - left out)^2 / sum (t - mean t)^2``, averaged over the columns that vary; at most 1.
        regression: whether `labels` are numbers to predict.
        strengths: the lambdas to try, positive; by default 13 around the size of the features.

    Raises `ScoreError` as `labelled` says, for targets none of which varies, and for a measure that does not suit.

    Reference: Allen 1974, The relationship between variable selection and data augmentation and a method for
    prediction; as a head on features Zhai et al. 2019, arXiv:1910.04867.

    >>> ridge([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0], [0.9, 0.0]], ["a", "a", "b", "b"])
    1.0
    >>> round(ridge([[0.0], [1.0], [2.0], [3.0]], [0.0, 2.0, 4.0, 6.1], regression=True), 3)
    0.999
    """
    allowed = ("r2",) if regression else ("accuracy", "likelihood")
    if measure is not None and measure not in allowed:
        raise ScoreError(f"measure is one of {', '.join(map(repr, allowed))} here; found {measure!r}")
    if regression:
        x, t = floats(features, "features"), columns(labels)
        if len(t) != len(x):
            raise ScoreError(f"features of {len(x)} examples need as many targets; found {len(t)}")
        t = t.astype(x.dtype)
        spread = jnp.sum((t - jnp.mean(t, axis=0, keepdims=True)) ** 2, axis=0)
        if not bool(jnp.any(spread > 0)):
            raise ScoreError(f"none of the targets varies over the {len(x)} examples: there is nothing to predict")
        missed = jnp.sum((t - _left_out(x, t, strengths)) ** 2, axis=0)
        return float(jnp.mean(1 - missed[spread > 0] / spread[spread > 0]))
    data = labelled(features, labels)
    logits = _left_out(data.x, data.y, strengths)
    if measure == "likelihood":
        logits = logits / probes.temperature(logits, data.y).astype(logits.dtype)
        return float(jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), data.y[:, None], axis=1)))
    return float(jnp.mean((jnp.argmax(logits, axis=1).astype(data.y.dtype) == data.y).astype(data.x.dtype)))


def _left_out(x: Any, y: Any, strengths: Any) -> Any:
    try:
        return probes.ridge(x, y, strengths=strengths).loo
    except probes.ProbeError as error:
        raise ScoreError(str(error)) from error
