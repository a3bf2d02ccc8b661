"""IRM: one head that is the best in every training domain at once."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from tljax.objectives.classification import cross_entropy_losses
from tljax.objectives.describe import describe
from tljax.objectives.domains import DomainError
from tljax.objectives.mean import weighted_mean, widened
from tljax.objectives.risks import annealed, domain_names, risks_of
from tljax.objectives.stream import labelled
from tljax.objectives.term import Metrics, Scene, Term, stateless
from tljax.types import Array

Form = Literal["product", "square"]


def irm_penalty(logits: Array, labels: Array, weight: Array | None = None, *, form: Form = "product") -> Array:
    """How much a domain's cross-entropy would gain if the logits were scaled, a scalar.

    With ``g(rows) = d/ds mean cross_entropy(s logits, labels)`` at s = 1, of some of the rows:

    - "product": ``g(even rows) g(odd rows)``, counted without padding, which has no bias and may be below 0: what the
      authors' code, DomainBed and TLlib take
    - "square": ``g(all rows)^2``, as the paper writes it; never below 0

    Args:
        logits: `[B, C]`, with B at least 2 for the product. A class of logit -inf is one that is not there.
        labels: classes `[B]`.
        weight: of the examples, `[B]`, 0 for padding; None for all ones.
        form: which of the two.

    Raises:
        DomainError: a form that is none, or a batch of one for the product.

    Reference: Arjovsky et al. 2019, arXiv:1907.02893, section 3.2 and appendix D.

    >>> import jax.numpy as jnp
    >>> logits, labels = jnp.array([[2.0, 0.0], [2.0, 0.0]]), jnp.array([0, 1])
    >>> print(irm_penalty(logits, labels).round(4), irm_penalty(logits, labels, form="square").round(4))
    -0.42 0.58
    """
    _check_form(form)
    logits = widened(logits)
    if form == "product" and len(logits) < 2:
        raise DomainError("irm: the product is of the even and the odd rows; found a batch of one in a domain")

    weight = jnp.ones(len(logits), logits.dtype) if weight is None else jnp.asarray(weight)
    real = weight > 0
    # What does not count must not reach the product with the scale: 0 times NaN, or infinity, is NaN.
    counted = jnp.where(real[:, None], jnp.maximum(logits, -1e30), 0)

    def slope(weight: Array) -> Array:
        def risk(scale: Array) -> Array:
            return weighted_mean(cross_entropy_losses(scale * counted, labels), weight)

        return jax.grad(risk)(jnp.ones((), logits.dtype))

    if form == "square":
        return jnp.square(slope(weight))
    odd = jnp.cumsum(real) % 2 == 0
    return slope(jnp.where(odd, 0, weight)) * slope(jnp.where(odd, weight, 0))


def irm(streams: Sequence[str], *, penalty: float = 1.0, anneal: int = 500, form: Form = "product") -> Term:
    """IRM: the cross-entropy in the domains `streams`, each labelled, and the mean of their `irm_penalty`.

    It takes the place of `cross_entropy`. The domains go through the model as one batch. `penalty` weighs the second
    part from step `anneal` on, and 1 before, so with TLlib's 1 nothing changes then; DomainBed's is 100. Logs `irm`,
    `irm/penalty` and the cross-entropy of each domain, `art/cross_entropy`.

    Raises:
        DomainError: fewer than two domains, one named twice, or a form that is none.

    Reference: Arjovsky et al. 2019, arXiv:1907.02893.

    >>> print(irm(("art", "photo"), penalty=100))
    irm(('art', 'photo'), penalty=100)
    """
    streams = domain_names(streams, "irm")
    _check_form(form)
    text = describe(irm, repr(streams), penalty=penalty, anneal=anneal, form=form)

    def value(scene: Scene) -> tuple[Array, Metrics]:
        risks, metrics = risks_of(scene, streams, text)
        pairs = [labelled(scene, stream, text) for stream in streams]
        gaps = [irm_penalty(logits, jnp.asarray(batch.y), batch.weight, form=form) for logits, batch in pairs]
        gap = jnp.mean(jnp.stack(gaps))
        loss = jnp.mean(risks) + annealed(penalty, anneal, scene.step, risks.dtype) * gap
        return loss, {"irm": loss, "irm/penalty": gap, **metrics}

    return stateless(value, text, *streams, joint=streams)


def _check_form(form: str) -> None:
    if form not in ("product", "square"):
        raise DomainError(f"irm: form={form!r}; expected 'product' or 'square'")
