"""MCC: classes that are not confused with each other."""

import jax
import jax.numpy as jnp

from tljax.objectives.checks import above_zero, fitting
from tljax.objectives.describe import describe
from tljax.objectives.entropy import entropies, log_probabilities, tempered
from tljax.objectives.mean import widened
from tljax.objectives.stream import output_of
from tljax.objectives.term import MAIN, SOURCE, Metrics, Scene, Term, stateless
from tljax.types import Array


def minimum_class_confusion(logits: Array, *, temperature: float = 2.5) -> Array:
    """How much the predictions of a batch confuse the classes: from 0, all predicted and with certainty, to 1 - 1/C.

    ``P = softmax(logits / T)``; ``w_i = B (1 + exp(-H_i)) / sum_j (1 + exp(-H_j))``, H the entropies of the rows of P
    (with the ``epsilon=1e-5`` of the authors' code), carries no gradient; ``M = P^T diag(w) P`` with rows divided by
    their sums; the loss is ``(sum M - trace M) / C``, 1/C for each class that no example comes near.

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
    fitting("minimum_class_confusion", logits=(logits, "B C"))
    above_zero("minimum_class_confusion", temperature=temperature)
    logits = tempered(widened(logits), temperature)
    logs = log_probabilities(logits)
    weights = jax.lax.stop_gradient(jnp.log1p(jnp.exp(-entropies(logits, epsilon=1e-5))))
    # Row i of M sums to sum_b w_b p_bi: divided by that, its diagonal is the mean of p_i with shares w_b p_bi. The
    # shares of a class, a softmax over the batch, stay exact where all of its probabilities are too small for floats.
    shares = jax.nn.softmax(logs + weights[:, None], axis=0)
    return 1 - jnp.sum(shares * jnp.exp(logs)) / logits.shape[1]


def mcc(*, temperature: float = 2.5, source: str = MAIN, stream: str = "target") -> Term:
    """MCC: the predictions for `stream` do not confuse the classes (`minimum_class_confusion`).

    `stream` goes through the model as one batch with `source`, the labelled stream, which is not read. Logs `mcc`.

    Raises:
        LabelError: a temperature that is not above 0.

    Reference: Jin et al. 2020, arXiv:1912.03699.

    >>> print(mcc(temperature=2.0))
    mcc(temperature=2.0)
    """
    text = describe(mcc, temperature=temperature, source=source, stream=stream)
    above_zero(text, temperature=temperature)

    def value(scene: Scene) -> tuple[Array, Metrics]:
        loss = minimum_class_confusion(output_of(scene, stream, text).logits, temperature=temperature)
        return loss, {"mcc": loss}

    return stateless(value, text, stream, joint=(source, stream) if source != MAIN else (MAIN, SOURCE, stream))
