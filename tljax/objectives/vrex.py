"""V-REx: equal risks in all training domains."""

from collections.abc import Sequence

import jax.numpy as jnp

from tljax.objectives.describe import describe
from tljax.objectives.domains import DomainError
from tljax.objectives.risks import annealed, domain_names, risks_of
from tljax.objectives.term import Metrics, Scene, Term, stateless
from tljax.types import Array


def risk_extrapolation(risks: Array, *, penalty: float | Array = 3.0) -> Array:
    """The mean of the risks `[D]` of D domains, and `penalty` times their variance, a scalar.

    ``m + penalty mean_d (r_d - m)^2``, m the mean.

    Raises:
        DomainError: risks of another shape.

    Reference: Krueger et al. 2021, arXiv:2003.00688.

    >>> import jax.numpy as jnp
    >>> print(risk_extrapolation(jnp.array([1.0, 3.0]), penalty=10))
    12.0
    """
    if jnp.ndim(risks) != 1:
        raise DomainError(f"risk_extrapolation needs one risk for each domain, [D]; found {list(jnp.shape(risks))}")
    return jnp.mean(risks) + penalty * jnp.var(risks)


def vrex(streams: Sequence[str], *, penalty: float = 3.0, anneal: int = 500) -> Term:
    """V-REx: the cross-entropy in the domains `streams`, each labelled, and its variance from one to the other.

    It takes the place of `cross_entropy`. The domains go through the model as one batch. `penalty` weighs the variance
    from step `anneal` on, and 1 before; TLlib's is 3, DomainBed's 10. Logs `vrex`, `vrex/variance` and the
    cross-entropy of each domain, `art/cross_entropy`.

    Raises:
        DomainError: fewer than two domains, or one named twice.

    Reference: Krueger et al. 2021, arXiv:2003.00688.

    >>> print(vrex(("art", "photo"), penalty=10))
    vrex(('art', 'photo'), penalty=10)
    """
    streams = domain_names(streams, "vrex")
    text = describe(vrex, repr(streams), penalty=penalty, anneal=anneal)

    def value(scene: Scene) -> tuple[Array, Metrics]:
        risks, metrics = risks_of(scene, streams, text)
        loss = risk_extrapolation(risks, penalty=annealed(penalty, anneal, scene.step, risks.dtype))
        return loss, {"vrex": loss, "vrex/variance": jnp.var(risks), **metrics}

    return stateless(value, text, *streams, joint=streams)
