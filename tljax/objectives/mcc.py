"""MCC: classes that are not confused with each other."""

import jax
import jax.numpy as jnp

from tljax.objectives.describe import describe
from tljax.objectives.entropy import entropies
from tljax.objectives.mean import widened
from tljax.objectives.stream import LabelError, output_of
from tljax.objectives.term import MAIN, SOURCE, Metrics, Scene, Term, stateless
from tljax.types import Array


def minimum_class_confusion(logits: Array, *, temperature: float = 2.5) -> Array:
    """How much the predictions of a batch confuse the classes: 0 where all are sure, at most ``1 - 1/C``.

    ``P = softmax(logits / T)``; ``w_i = B (1 + exp(-H_i)) / sum_j (1 + exp(-H_j))``, H the entropies of the rows of P,
    carries no gradient; ``M = P^T diag(w) P`` with rows divided by their sums; the loss is ``(sum M - trace M) / C``.

    Args:
        logits: `[B, C]`.
        temperature: T, above 0; larger ones let the smaller probabilities count.

    Raises:
        LabelError: logits of another shape, or a temperature that is not above 0.

    Reference: Jin et al. 2020, arXiv:1912.03699.

    >>> import jax.numpy as jnp
    >>> print(minimum_class_confusion(1e3 * jnp.eye(4)), minimum_class_confusion(jnp.zeros((3, 4))))
    0.0 0.75
    """
    logits = widened(logits)
    if logits.ndim != 2 or not temperature > 0:
        raise LabelError(
            f"minimum_class_confusion needs logits [B, C] and a temperature above 0; "
            f"found {list(logits.shape)} and temperature={temperature}"
        )
    p = jax.nn.softmax(logits / temperature)
    sure = 1 + jnp.exp(-entropies(logits / temperature, epsilon=1e-5))
    weights = jax.lax.stop_gradient(len(p) * sure / jnp.sum(sure))
    confusion = jnp.matmul((p * weights[:, None]).T, p, precision="highest")
    rows = jnp.sum(confusion, axis=1, keepdims=True)
    # A class that underflows to probability 0 everywhere confuses nothing.
    confusion = confusion / jnp.where(rows > 0, rows, 1)
    return (jnp.sum(confusion) - jnp.trace(confusion)) / p.shape[1]


def mcc(*, temperature: float = 2.5, stream: str = "target") -> Term:
    """MCC: the predictions for `stream` do not confuse the classes (`minimum_class_confusion`).

    `stream` goes through the model as one batch with the labelled stream. Logs `mcc`.

    Reference: Jin et al. 2020, arXiv:1912.03699.

    >>> print(mcc(temperature=2.0))
    mcc(temperature=2.0)
    """
    text = describe(mcc, temperature=temperature, stream=stream)

    def value(scene: Scene) -> tuple[Array, Metrics]:
        loss = minimum_class_confusion(output_of(scene, stream, text).logits, temperature=temperature)
        return loss, {"mcc": loss}

    return stateless(value, text, stream, joint=(MAIN, SOURCE, stream))
