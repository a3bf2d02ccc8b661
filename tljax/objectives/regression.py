"""Losses for numbers.

The plural functions give one loss per example `[B]`, the mean over its K outputs; the terms take their mean
over the real examples.
"""

from collections.abc import Callable

import jax.numpy as jnp
import optax

from tljax.objectives.describe import describe
from tljax.objectives.mean import weighted_mean, widened
from tljax.objectives.stream import LabelError, labelled, prefix
from tljax.objectives.term import Metrics, Scene, Term, stateless
from tljax.types import Array


def squared_errors(predictions: Array, targets: Array) -> Array:
    """The mean over K of ``(prediction - target)^2`` per example, `[B]`.

    Args:
        predictions: `[B, K]`.
        targets: `[B, K]`, or `[B]` where K is 1.

    Raises:
        LabelError: shapes that do not fit; `[B]` is never spread over K outputs.

    >>> import jax.numpy as jnp
    >>> print(squared_errors(jnp.array([[1.0], [2.0]]), jnp.array([1.0, 5.0])))
    [0. 9.]
    """
    return jnp.mean(optax.squared_error(*aligned(predictions, targets)), axis=-1)


def absolute_errors(predictions: Array, targets: Array) -> Array:
    """The mean over K of ``|prediction - target|`` per example, `[B]`; arguments as for `squared_errors`.

    >>> import jax.numpy as jnp
    >>> print(absolute_errors(jnp.array([[1.0], [2.0]]), jnp.array([1.0, 5.0])))
    [0. 3.]
    """
    predictions, targets = aligned(predictions, targets)
    return jnp.mean(jnp.abs(predictions - targets), axis=-1)


def huber_losses(predictions: Array, targets: Array, *, delta: float = 1.0) -> Array:
    """The mean over K of Huber's loss per example, `[B]`; arguments as for `squared_errors`.

    ``e^2 / 2`` for ``|e| <= delta``, else ``delta (|e| - delta / 2)``, `e` the error.

    Reference: Huber 1964, doi:10.1214/aoms/1177703732.

    >>> import jax.numpy as jnp
    >>> print(huber_losses(jnp.array([[1.0], [2.0]]), jnp.array([1.5, 5.0])))
    [0.125 2.5  ]
    """
    if not delta > 0:
        raise LabelError(f"huber() needs delta > 0, found {delta}")
    return jnp.mean(optax.huber_loss(*aligned(predictions, targets), delta=delta), axis=-1)


def mse(*, stream: str = "train") -> Term:
    """Mean squared error of the predictions `[B, K]` for `stream`. Logs `mse`.

    >>> print(mse())
    mse()
    """
    return _term(squared_errors, "mse", describe(mse, stream=stream), stream)


def mae(*, stream: str = "train") -> Term:
    """Mean absolute error of the predictions `[B, K]` for `stream`. Logs `mae`.

    >>> print(mae(stream="source"))
    mae(stream='source')
    """
    return _term(absolute_errors, "mae", describe(mae, stream=stream), stream)


def huber(*, delta: float = 1.0, stream: str = "train") -> Term:
    """Huber's loss of the predictions `[B, K]` for `stream`; `delta` in the targets' unit. Logs `huber`.

    >>> print(huber(delta=0.5))
    huber(delta=0.5)
    """

    def losses(predictions: Array, targets: Array) -> Array:
        return huber_losses(predictions, targets, delta=delta)

    return _term(losses, "huber", describe(huber, delta=delta, stream=stream), stream)


def _term(losses: Callable[[Array, Array], Array], name: str, text: str, stream: str) -> Term:
    def value(scene: Scene) -> tuple[Array, Metrics]:
        predictions, batch = labelled(scene, stream, text)
        loss = weighted_mean(losses(predictions, batch.y), batch.weight)
        return loss, {prefix(stream) + name: loss}

    return stateless(value, text, stream)


def aligned(predictions: Array, targets: Array) -> tuple[Array, Array]:
    """Predictions and targets, both `[B, K]` and at least float32.

    >>> import jax.numpy as jnp
    >>> [a.shape for a in aligned(jnp.zeros((3, 1)), jnp.array([1, 2, 3]))]
    [(3, 1), (3, 1)]
    """
    predictions, targets = jnp.asarray(predictions), jnp.asarray(targets)
    if targets.ndim == 1 and predictions.ndim == 2 and predictions.shape[1] == 1:
        targets = targets[:, None]
    if predictions.ndim != 2 or predictions.shape != targets.shape:
        raise LabelError(
            "regression needs predictions [B, K] and targets [B, K] (or [B] where K is 1), "
            f"found predictions {predictions.shape} and targets {targets.shape}"
        )
    predictions = widened(predictions)
    return predictions, targets.astype(predictions.dtype)
