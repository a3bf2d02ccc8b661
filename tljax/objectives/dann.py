"""DANN: features from which no network can tell the domain."""

from typing import Any

import flax.linen as nn

from tljax.objectives.describe import describe
from tljax.objectives.discriminator import (
    adversarial_metrics,
    discriminator_of,
    domain_losses,
    domains_of,
    tell_apart,
)
from tljax.objectives.mean import weighted_mean
from tljax.objectives.reversal import reversed_gradient
from tljax.objectives.schedules import schedule_of, warm_up
from tljax.objectives.stream import output_of
from tljax.objectives.term import Metrics, Owned, Scene, Schedule, Term
from tljax.types import Array, Key, Model


def domain_adversarial(
    source: Array, target: Array, *, source_weight: Array | None = None, target_weight: Array | None = None
) -> Array:
    """How badly a discriminator tells two domains apart: the mean of its cross-entropies on both.

    ``1/2 [mean_i log(1 + exp(-d_i)) + mean_j log(1 + exp(d_j))]``

    Args:
        source: the discriminator's logits d `[N]` for examples of the source, which should be above 0.
        target: `[M]`, which should be below.
        source_weight: weights `[N]` of the examples, 0 for padding.
        target_weight: `[M]`.

    Raises:
        LabelError: logits of another shape, as `[N, 1]`.

    Reference: Ganin et al. 2016, arXiv:1505.07818.

    >>> import jax.numpy as jnp
    >>> print(domain_adversarial(jnp.zeros(4), jnp.zeros(2)).round(4))
    0.6931
    """
    losses = domain_losses(source, target)
    return 0.5 * (weighted_mean(losses[0], source_weight) + weighted_mean(losses[1], target_weight))


def dann(
    *,
    discriminator: nn.Module | Model | None = None,
    strength: float | Schedule | None = None,
    source: str = "source",
    target: str = "target",
) -> Term:
    """DANN: a discriminator learns to tell the domains by the features, through a reversed gradient that makes the
    features learn the contrary.

    ``1/2 [CE(D(R(f_s)), 1) + CE(D(R(f_t)), 0)]``, R the identity whose gradient is multiplied by -`strength`. The
    term owns D; one update trains D and the model. Both domains go through the model, and through D, as one batch.
    Logs `dann` and `domain_accuracy`.

    Args:
        discriminator: D, a Flax module or a model from features `[B, D]` to one logit `[B, 1]`; by default
            `Discriminator()`.
        strength: a number or a schedule; by default `warm_up()`, and the paper's is
            ``warm_up(alpha=10, steps=total)``.
        source: the stream of the labelled domain; its labels are not read here.
        target: the stream of the other.

    Raises:
        ScheduleError: a `strength` that is neither a number, 0 or more, nor a schedule.
        NetworkError: D is no network, or gives something other than `[B, 1]`.
        StreamError: the step has no such streams.

    Reference: Ganin et al. 2016, arXiv:1505.07818.

    >>> from tljax.objectives import cross_entropy
    >>> print(cross_entropy() + 0.3 * dann(strength=warm_up(alpha=10, steps=5000)))
    cross_entropy() + 0.3 * dann(strength=warm_up(alpha=10, steps=5000))
    """
    text = describe(dann, discriminator=discriminator, strength=strength, source=source, target=target)
    told, rising = discriminator_of(discriminator, text), schedule_of(strength, warm_up(), text)

    def init(key: Key, scene: Scene) -> Owned:
        return told.init(key, output_of(scene, source, text).features)

    def apply(owned: Owned, scene: Scene) -> tuple[Array, Any, Metrics]:
        outputs, weights = domains_of(scene, source, target, text)
        now = rising(scene.step)
        features = reversed_gradient(outputs[0].features, now), reversed_gradient(outputs[1].features, now)
        logits, state = tell_apart(told, owned, features, key=scene.key)
        value = domain_adversarial(*logits, source_weight=weights[0], target_weight=weights[1])
        return value, state, adversarial_metrics("dann", value, logits, weights)

    strength_of = ((f"the strength of {text}", rising),)
    return Term(apply, init, text, (source, target), joint=(source, target), schedules=strength_of)
