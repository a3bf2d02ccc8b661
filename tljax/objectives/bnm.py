"""BNM: predictions that are sure and of many classes, by the nuclear norm of their matrix."""

import jax
import jax.numpy as jnp

from tljax.objectives.checks import fitting
from tljax.objectives.describe import describe
from tljax.objectives.mean import widened
from tljax.objectives.stream import output_of
from tljax.objectives.term import Metrics, Scene, Term, stateless
from tljax.types import Array


def batch_nuclear_norm(logits: Array) -> Array:
    """The nuclear norm of the predictions per example, ``|softmax(logits)|_* / B``: large where sure and varied.

    From ``sqrt(1 / (B C))`` to ``sqrt(min(B, C) / B)``. Singular values of 0, and equal ones, have finite gradients:
    the smallest subgradient. The authors' scripts take the mean of the singular values, ``|softmax(logits)|_* / min(B,
    C)``: with more classes than examples that is the same, with fewer it is ``B / C`` times this.

    Args:
        logits: `[B, C]`.

    Raises:
        LabelError: logits of another shape.

    Reference: Cui et al. 2020, arXiv:2003.12237.

    >>> import jax.numpy as jnp
    >>> print(batch_nuclear_norm(1e3 * jnp.eye(4)).round(4), batch_nuclear_norm(jnp.zeros((4, 4))).round(4))
    1.0 0.25
    """
    fitting("batch_nuclear_norm", logits=(logits, "B C"))
    logits = widened(logits)
    values = jnp.linalg.svd(jax.nn.softmax(logits), compute_uv=False)
    # Directions of no length at all: their slope would be an accident of rounding.
    floor = max(logits.shape) * jnp.finfo(values.dtype).eps * values[:1]
    return jnp.sum(jnp.where(values > floor, values, 0)) / len(logits)


def bnm(*, stream: str = "target") -> Term:
    """BNM: the predictions for `stream` are sure and of many classes: minus their `batch_nuclear_norm`.

    Logs `bnm`, the value that is minimised.

    Reference: Cui et al. 2020, arXiv:2003.12237.

    >>> print(bnm())
    bnm()
    """
    text = describe(bnm, stream=stream)

    def value(scene: Scene) -> tuple[Array, Metrics]:
        loss = -batch_nuclear_norm(output_of(scene, stream, text).logits)
        return loss, {"bnm": loss}

    return stateless(value, text, stream)
