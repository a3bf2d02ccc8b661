"""Whether a model is as sure as it is right, from all logits at once: what does not stream."""

from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from tljax.evaluation.metrics import MetricError
from tljax.probes import temperature

Bins = Literal["width", "mass"]


def calibration_error(logits: Any, labels: Any, *, bins: int = 15, equal: Bins = "width") -> float:
    """The expected calibration error, ``sum_b n_b / N |accuracy_b - confidence_b|``, of logits `[N, C]`.

    The confidence is the largest probability of the softmax. Bins of equal width are ``(b / bins, (b + 1) / bins]``, as
    in `classification`, whose `ece` streams. Bins of equal mass hold as many examples each, sorted by confidence (ties
    in the order they come; the first bins hold one more where it does not come out even): with few examples their
    estimate is biased less, for none has only a handful. Both are biased upwards by about ``sqrt(bins / N)``: name N.

    NaN where a logit is. Worked out in float64 on the host.

    Args:
        logits: `[N, C]`; of probabilities give the logarithms.
        labels: classes `[N]` int.
        bins: how many.
        equal: `"width"` or `"mass"`.

    Raises:
        MetricError: shapes that do not fit, no examples, labels outside 0..C-1, or options that make no sense.

    Reference: Guo et al. 2017, arXiv:1706.04599; Nixon et al. 2019, arXiv:1904.01685 (equal mass).

    >>> logits = np.log([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
    >>> [round(calibration_error(logits, [0, 1, 0, 1], bins=2, equal=equal), 3) for equal in ("width", "mass")]
    [0.0, 0.35]
    """
    z, y = _checked(logits, labels)
    if bins < 1 or equal not in ("width", "mass"):
        raise MetricError(
            f"calibration_error() needs bins >= 1 and equal 'width' or 'mass', found {bins} and {equal!r}"
        )
    if not np.isfinite(z).all():
        return float("nan")
    p = np.exp(z - z.max(1, keepdims=True))
    confidence, right = p.max(1) / p.sum(1), z.argmax(1) == y
    if equal == "mass":
        parts = np.array_split(np.argsort(confidence, kind="stable"), bins)
    else:
        which = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence, side="left")
        parts = [np.flatnonzero(which == b) for b in range(bins)]
    gaps = [len(part) * abs(right[part].mean() - confidence[part].mean()) for part in parts if len(part)]
    return float(sum(gaps) / len(y))


class Tempered(NamedTuple):
    """Logits on a scale that held-out labels like best."""

    logits: np.ndarray
    """`[N, C]`: divided by the temperature."""
    temperature: float
    """Above 1 where the model was too sure."""


def tempered(logits: Any, held_out: Any, labels: Any) -> Tempered:
    """`logits` `[N, C]` divided by the temperature under which `labels` of other examples are likeliest.

    The temperature changes no answer, only how sure it is. It must be fitted on examples that neither the model was
    trained on nor the result is told of: the validation split, not the test split. See `tl.probes.temperature`.

    Args:
        logits: `[N, C]`, what is scaled.
        held_out: `[M, C]`, the logits of the held-out examples.
        labels: their classes `[M]` int.

    Raises:
        MetricError: shapes that do not fit, no examples, or labels outside 0..C-1.

    Reference: Guo et al. 2017, arXiv:1706.04599.

    >>> sure = np.array([[8.0, 0.0]] * 4)
    >>> round(tempered(sure, sure, [0, 0, 0, 1]).temperature, 2)  # 3 of 4 right: no reason to be so sure
    9.44
    """
    z, y = _checked(held_out, labels)
    given = np.asarray(logits, np.float32)
    if given.ndim != 2 or given.shape[1] != z.shape[1]:
        raise MetricError(f"tempered() needs logits [N, {z.shape[1]}] as the held-out ones, found {given.shape}")
    if not np.isfinite(z).all():
        return Tempered(np.full_like(given, np.nan), float("nan"))
    found = float(temperature(jnp.asarray(z, jnp.float32), y))
    return Tempered(given / np.float32(found), found)


def _checked(logits: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    z, y = np.asarray(logits, np.float64), np.asarray(labels)
    if z.ndim != 2 or not len(z) or y.shape != z.shape[:1] or not np.issubdtype(y.dtype, np.integer):
        raise MetricError(
            f"calibration needs logits [N, C] and integer labels [N], found {z.shape} and {y.shape} {y.dtype}"
        )
    if y.min() < 0 or y.max() >= z.shape[1]:
        raise MetricError(f"the labels run from {y.min()} to {y.max()}, but there are {z.shape[1]} columns of logits")
    return z, y.astype(np.int32)
