"""Whether a model is as sure as it is right, from all logits at once: what does not stream."""

from typing import Any, Literal

import numpy as np

from tljax.evaluation.metrics import MetricError

Bins = Literal["width", "mass"]


def calibration_error(logits: Any, labels: Any, *, bins: int = 15, equal: Bins = "width") -> float:
    """The expected calibration error, ``sum_b n_b / N |accuracy_b - confidence_b|``, of logits `[N, C]`.

    The confidence is the largest probability of the softmax. Bins of equal width are ``(b / bins, (b + 1) / bins]``, as
    in `classification`, whose `ece` streams. Bins of equal mass hold as many examples each, sorted by confidence (ties
    in the order they come; the first bins hold one more where it does not come out even): with few examples their
    estimate is biased less, for none has only a handful. Both are biased upwards by about ``sqrt(bins / N)``: name N.

    NaN where a logit is. Worked out in float64 on the host.

    After a temperature, which must be fitted on other examples, it is ``calibration_error(logits / temperature, ...)``
    with that of `tl.probes.temperature` on the validation split.

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


def _checked(logits: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    z, y = np.asarray(logits, np.float64), np.asarray(labels)
    if z.ndim != 2 or not len(z) or y.shape != z.shape[:1] or not np.issubdtype(y.dtype, np.integer):
        raise MetricError(
            f"calibration needs logits [N, C] and integer labels [N], found {z.shape} and {y.shape} {y.dtype}"
        )
    if y.min() < 0 or y.max() >= z.shape[1]:
        raise MetricError(f"the labels run from {y.min()} to {y.max()}, but there are {z.shape[1]} columns of logits")
    return z, y.astype(np.int32)
