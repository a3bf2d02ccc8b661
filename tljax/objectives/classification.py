"""Losses for classes: one of many (softmax), or each on its own (sigmoid).

The plural functions give one loss per example `[B]`; the terms take their mean over the real examples.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from tljax.objectives.describe import describe
from tljax.objectives.mean import ratio_of_sums, weighted_mean, widened
from tljax.objectives.stream import LabelError, labelled, prefix
from tljax.objectives.term import Metrics, Scene, Term, stateless
from tljax.types import Array

Weights = Sequence[float] | Array


def cross_entropy_losses(
    logits: Array, labels: Array, *, label_smoothing: float = 0.0, class_weights: Weights | None = None
) -> Array:
    """Softmax cross-entropy per example, `[B]`.

    ``loss_i = - sum_c w_c t_ic log softmax(logits_i)_c`` with targets ``t = (1 - e) labels + e / C``, where
    integer labels stand for one-hot rows.

    Args:
        logits: `[B, C]`, C >= 2.
        labels: classes `[B]` int in 0..C-1, or soft labels `[B, C]` float. An integer outside gives NaN.
        label_smoothing: e, in 0..1.
        class_weights: `[C]`, or None for all ones.

    Raises:
        LabelError: shapes or types that do not fit.

    Reference: Szegedy et al. 2016, arXiv:1512.00567 (label smoothing).

    >>> import jax.numpy as jnp
    >>> print(cross_entropy_losses(jnp.zeros((2, 4)), jnp.array([0, 3])).round(4))
    [1.3863 1.3863]
    """
    _check_smoothing(label_smoothing)
    logits, labels = widened(logits), jnp.asarray(labels)
    hard = _check_classes(logits, labels)
    weights = _class_weights(class_weights, logits, "class_weights")
    if not hard:
        targets = optax.smooth_labels(labels.astype(logits.dtype), label_smoothing)
        return optax.safe_softmax_cross_entropy(logits, targets * weights)
    classes = logits.shape[-1]
    inside = (labels >= 0) & (labels < classes)
    safe = jnp.where(inside, labels, 0)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, safe)
    if class_weights is not None:
        losses = losses * jnp.take(weights[0], safe)
    if isinstance(label_smoothing, jax.core.Tracer) or label_smoothing:
        even = optax.safe_softmax_cross_entropy(logits, jnp.broadcast_to(weights / classes, logits.shape))
        losses = (1 - label_smoothing) * losses + label_smoothing * even
    # A label outside must not train some other class in silence: -1 would index the last one.
    return jnp.where(inside, losses, jnp.nan)


def cross_entropy(*, label_smoothing: float = 0.0, class_weights: Weights | None = None, stream: str = "train") -> Term:
    """Softmax cross-entropy with the labels of `stream`: classes `[B]`, or soft labels `[B, C]`.

    The mean is that of torch's ``CrossEntropyLoss(weight=, label_smoothing=)``: with integer labels the sum
    is divided by the weights of the true classes, with soft labels by the number of examples. Logs
    `cross_entropy` and `accuracy`.

    >>> print(cross_entropy(label_smoothing=0.1, class_weights=[1.0, 2.0]))
    cross_entropy(label_smoothing=0.1, class_weights=[1, 2])
    """
    _check_smoothing(label_smoothing)
    text = describe(cross_entropy, label_smoothing=label_smoothing, class_weights=class_weights, stream=stream)

    def value(scene: Scene) -> tuple[Array, Metrics]:
        logits, batch = labelled(scene, stream, text)
        labels = jnp.asarray(batch.y)
        losses = cross_entropy_losses(logits, labels, label_smoothing=label_smoothing, class_weights=class_weights)
        true, under = labels, jnp.ones_like(losses)
        if labels.ndim == 2:
            true = jnp.argmax(labels, axis=-1)
        elif class_weights is not None:
            under = jnp.take(_class_weights(class_weights, widened(logits), "class_weights")[0], labels, mode="clip")
        loss = ratio_of_sums(losses, under, batch.weight)
        guess = jnp.argmax(logits, axis=-1)  # int64 under x64, whatever the labels are
        hits = (guess == true.astype(guess.dtype)).astype(losses.dtype)
        return loss, _metrics(stream, "cross_entropy", loss, _shown(hits, losses), batch.weight)

    return stateless(value, text, stream)


def binary_cross_entropy_losses(
    logits: Array,
    labels: Array,
    *,
    class_weights: Weights | None = None,
    positive_weights: Weights | None = None,
) -> Array:
    """Sigmoid cross-entropy per example, `[B]`: the mean over the C independent yes-or-no questions.

    ``loss_i = - mean_c w_c [p_c y_ic log s(z_ic) + (1 - y_ic) log(1 - s(z_ic))]``, as torch's
    ``BCEWithLogitsLoss(weight=w, pos_weight=p)``.

    Args:
        logits: z, `[B, C]`.
        labels: y, `[B, C]` in 0..1 (bool, int or float); `[B]` will do where C is 1.
        class_weights: w, `[C]`.
        positive_weights: p, `[C]`: what a yes counts against a no; for a rare class, (number of no) / (number
            of yes).

    Raises:
        LabelError: shapes that do not fit.

    >>> import jax.numpy as jnp
    >>> logits, labels = jnp.zeros((2, 1)), jnp.array([1, 0])
    >>> print(binary_cross_entropy_losses(logits, labels, positive_weights=[2.0]).round(4))
    [1.3863 0.6931]
    """
    logits = widened(logits)
    labels = _binary_labels(logits, labels)
    weights = _class_weights(class_weights, logits, "class_weights")
    positive = _class_weights(positive_weights, logits, "positive_weights")
    # The two halves apart: optax's loss has no weight for the positive one.
    losses = -positive * labels * jax.nn.log_sigmoid(logits) - (1 - labels) * jax.nn.log_sigmoid(-logits)
    return jnp.mean(weights * losses, axis=-1)


def binary_cross_entropy(
    *, class_weights: Weights | None = None, positive_weights: Weights | None = None, stream: str = "train"
) -> Term:
    """Sigmoid cross-entropy with the labels of `stream`: `[B, C]` in 0..1, or `[B]` for one logit.

    Logs `binary_cross_entropy` and `accuracy`, the share of right answers among all `B * C`.

    >>> print(binary_cross_entropy(positive_weights=[9.0]))
    binary_cross_entropy(positive_weights=[9])
    """
    text = describe(binary_cross_entropy, class_weights=class_weights, positive_weights=positive_weights, stream=stream)

    def value(scene: Scene) -> tuple[Array, Metrics]:
        logits, batch = labelled(scene, stream, text)
        losses = binary_cross_entropy_losses(
            logits, batch.y, class_weights=class_weights, positive_weights=positive_weights
        )
        loss = weighted_mean(losses, batch.weight)
        right = (logits > 0) == (_binary_labels(widened(logits), batch.y) > 0.5)
        hits = jnp.mean(right.astype(losses.dtype), axis=-1)
        return loss, _metrics(stream, "binary_cross_entropy", loss, _shown(hits, losses), batch.weight)

    return stateless(value, text, stream)


def _check_smoothing(label_smoothing: float) -> None:
    if not isinstance(label_smoothing, jax.core.Tracer) and not 0 <= label_smoothing <= 1:
        raise LabelError(f"label_smoothing must lie in 0..1, found {label_smoothing}")


def _metrics(stream: str, name: str, loss: Array, hits: Array, weight: Array | None) -> Metrics:
    at = prefix(stream)
    return {f"{at}{name}": loss, f"{at}accuracy": weighted_mean(hits, weight)}


def _shown(hits: Array, losses: Array) -> Array:
    """Whether each answer was right; NaN where the loss is, since a comparison takes NaN for some answer."""
    return jnp.where(jnp.isnan(losses), jnp.nan, hits)


def _class_weights(weights: Weights | None, logits: Array, name: str) -> Array:
    """`[1, C]`, so that it multiplies `[B, C]`."""
    if weights is None:
        return jnp.ones((1, logits.shape[-1]), logits.dtype)
    weights = jnp.asarray(weights, logits.dtype)
    if weights.shape != logits.shape[-1:]:
        raise LabelError(f"{name} must be one number for each of {logits.shape[-1]} classes, found {weights.shape}")
    return weights[None]


def _check_classes(logits: Array, labels: Array) -> bool:
    """Whether the labels are hard; raises where they do not fit."""
    found = f"logits {logits.shape} and labels {labels.shape} {labels.dtype}"
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise LabelError(
            f"cross-entropy needs logits [B, C] with C >= 2, found {found}; one logit: binary_cross_entropy()"
        )
    if labels.shape == logits.shape:
        if not jnp.issubdtype(labels.dtype, jnp.floating):
            raise LabelError(
                f"soft labels are floats, found {found}; write labels.astype('float32') if every row is a "
                "distribution, and binary_cross_entropy() if a row may hold several classes"
            )
        return False
    if labels.shape == logits.shape[:1] and jnp.issubdtype(labels.dtype, jnp.integer):
        return True
    hint = "; write labels[:, 0]" if labels.shape == (logits.shape[0], 1) else ""
    raise LabelError(f"cross-entropy needs integer labels [B] or soft labels [B, C], found {found}{hint}")


def _binary_labels(logits: Array, labels: Array) -> Array:
    """The labels as floats in the shape of the logits."""
    labels = jnp.asarray(labels)
    if labels.ndim == 1 and logits.ndim == 2 and logits.shape[1] == 1:
        labels = labels[:, None]
    if logits.ndim != 2 or labels.shape != logits.shape:
        raise LabelError(
            "binary cross-entropy needs logits [B, C] and labels [B, C] (or [B] where C is 1), "
            f"found logits {logits.shape} and labels {labels.shape}"
        )
    return labels.astype(logits.dtype)
