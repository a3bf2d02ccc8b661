"""CORAL: features whose covariances agree."""

from typing import Literal

import jax.numpy as jnp

from tljax.objectives.describe import describe
from tljax.objectives.domains import DomainError, compared
from tljax.objectives.stream import output_of
from tljax.objectives.term import Metrics, Scene, Term, stateless
from tljax.types import Array

Form = Literal["covariance", "moments"]


def correlation_alignment(source: Array, target: Array, *, form: Form = "covariance") -> Array:
    """How far the second moments of two batches are apart, a scalar.

    Two losses are published under this name; C are the covariances, divided by ``N - 1``, m the means:

    - "covariance", the paper's: ``|C_s - C_t|_F^2 / (4 D^2)``
    - "moments", that of DomainBed and TLlib: ``mean (m_s - m_t)^2 + mean (C_s - C_t)^2``, four times as large in the
      covariances, and with the means besides

    Args:
        source: features `[N, D]`.
        target: features `[M, D]`.
        form: which of the two.

    Raises:
        DomainError: shapes that do not fit, fewer than two rows, or a form that is none.

    Reference: Sun and Saenko 2016, arXiv:1607.01719; Gulrajani and Lopez-Paz 2020, arXiv:2007.01434.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> print(correlation_alignment(x, 2 * x), correlation_alignment(x, x + 1, form="moments"))
    0.5 1.0
    """
    _check_form(form, "correlation_alignment")
    source, target = compared(source, target, "correlation_alignment")
    mean_s, mean_t = (jnp.mean(x, axis=0, keepdims=True) for x in (source, target))
    gap = jnp.mean(jnp.square(_covariance(source - mean_s) - _covariance(target - mean_t)))
    return gap / 4 if form == "covariance" else gap + jnp.mean(jnp.square(mean_s - mean_t))


def coral(
    *,
    form: Form = "covariance",
    on: Literal["features", "logits"] = "features",
    source: str = "source",
    target: str = "target",
) -> Term:
    """Deep CORAL: the covariances of `source` and `target` agree (`correlation_alignment`).

    The domains go through the model as one batch. The paper aligns the last layer, ``on="logits"``; the libraries
    align the features, as is the default. Logs `coral`.

    Raises:
        DomainError: an option that is none.

    Reference: Sun and Saenko 2016, arXiv:1607.01719.

    >>> print(coral(), coral(form="moments"))
    coral() coral(form='moments')
    """
    _check_form(form, "coral")
    if on not in ("features", "logits"):
        raise DomainError(f"coral: on={on!r}; expected 'features' or 'logits'")
    text = describe(coral, form=form, on=on, source=source, target=target)

    def value(scene: Scene) -> tuple[Array, Metrics]:
        s, t = (getattr(output_of(scene, stream, text), on) for stream in (source, target))
        loss = correlation_alignment(s, t, form=form)
        return loss, {"coral": loss}

    return stateless(value, text, source, target, joint=(source, target))


def _check_form(form: str, of: str) -> None:
    if form not in ("covariance", "moments"):
        raise DomainError(f"{of}: form={form!r}; expected 'covariance' or 'moments'")


def _covariance(centred: Array) -> Array:
    return jnp.matmul(centred.T, centred, precision="highest") / (len(centred) - 1)
