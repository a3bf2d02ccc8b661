"""ADDA: discriminator and features learn against each other, each by a loss of its own; both published forms."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tljax.objectives.checks import not_below_zero
from tljax.objectives.dann import domain_adversarial
from tljax.objectives.describe import describe
from tljax.objectives.discriminator import (
    adversarial_metrics,
    discriminator_of,
    domains_of,
    tell_apart,
)
from tljax.objectives.parameters import StartError
from tljax.objectives.reversal import reversed_gradient
from tljax.objectives.schedules import schedule_of, warm_up
from tljax.objectives.stream import name_of, output_of
from tljax.objectives.term import Metrics, Owned, Scene, Schedule, Term
from tljax.tree import named_leaves
from tljax.types import Array, Key, Model, Params


def adda(
    *,
    weight: float = 0.1,
    discriminator: nn.Module | Model | None = None,
    strength: float | Schedule | None = None,
    source: str = "source",
    target: str = "target",
) -> Term:
    """ADDA with one network for both domains. Add it to `cross_entropy()`. One update moves both players, each by a
    loss of its own:

    - The model lowers the cross-entropy beside this term and ``weight * 1/2 [CE(D(f_s), 0) + CE(D(f_t), 1)]``: the
      discriminator D is to take each domain for the other. D predicts with its running statistics and does not learn
      from this.
    - D lowers ``1/2 [CE(D(f_s), 1) + CE(D(f_t), 0)]``, from which the model does not learn.

    Both losses see the same features. As the players have no parameters in common, this is the same as to update the
    model first and then, by the features that it gave before, D.

    The term owns D. Both domains go through the model, and through D, as one batch. Unlike in `dann`, the features do
    not get the gradient of D's own loss, which vanishes where D is sure. Logs `adda`, `adda_discriminator` and
    `domain_accuracy`. A factor before the term scales D's loss too; `weight` is what balances: 0.1 is published for
    digits, 0.3 from SVHN to MNIST.

    Args:
        weight: of the model's loss.
        discriminator: D, a Flax module or a model from features `[B, D]` to one logit `[B, 1]`; by default
            `Discriminator()`.
        strength: what the gradient from D to the features is multiplied by, a number or a schedule; by default
            `warm_up()`.
        source: the stream of the labelled domain; its labels are not read here.
        target: the stream of the other.

    Raises:
        LabelError: a `weight` below 0.
        ScheduleError: a `strength` that is neither a number, 0 or more, nor a schedule.
        NetworkError: D is no network, or gives something other than `[B, 1]`.
        StreamError: the step has no such streams.

    Reference: Tzeng et al. 2017, arXiv:1702.05464.

    >>> from tljax.objectives import cross_entropy
    >>> print(cross_entropy() + adda(weight=0.3))
    cross_entropy() + adda(weight=0.3)
    """
    text = describe(adda, weight=weight, discriminator=discriminator, strength=strength, source=source, target=target)
    not_below_zero(text, weight=weight)
    told, rising = discriminator_of(discriminator, text), schedule_of(strength, warm_up(), text)

    def init(key: Key, scene: Scene) -> Owned:
        return told.init(key, output_of(scene, source, text).features)

    def apply(owned: Owned, scene: Scene) -> tuple[Array, Any, Metrics]:
        outputs, weights = domains_of(scene, source, target, text)
        # Reversal by a negative number: the gradient keeps its sign, and is scaled.
        back = -rising(scene.step)
        pair = reversed_gradient(outputs[0].features, back), reversed_gradient(outputs[1].features, back)
        still = owned._replace(params=jax.lax.stop_gradient(owned.params))
        (own, other), _ = tell_apart(told, still, pair, key=scene.key, train=False)
        fooled = weight * domain_adversarial(other, own, source_weight=weights[1], target_weight=weights[0])
        logits, state = tell_apart(told, owned, jax.lax.stop_gradient(pair), key=scene.key)
        value = domain_adversarial(*logits, source_weight=weights[0], target_weight=weights[1])
        metrics = adversarial_metrics("adda_discriminator", value, logits, weights)
        return fooled + value, state, metrics | {"adda": fooled}

    strength_of = ((f"the strength of {text}", rising),)
    return Term(apply, init, text, (source, target), joint=(source, target), schedules=strength_of)


def adda_from(
    start: Params,
    *,
    discriminator: nn.Module | Model | None = None,
    strength: float | Schedule | None = None,
    source: str = "source",
    target: str = "target",
) -> Term:
    """ADDA with a network for each domain: that of the source stays as it is, a copy of it learns to give target
    examples the features that the first gives source examples.

    ``1/2 [CE(D(f0_s), 1) + CE(D(R(f_t)), 0)]``: f0 are the features by the parameters `start`, without dropout and with
    running statistics, and R the identity whose gradient is multiplied by -`strength`. The term owns D and a copy of
    `start`. Logs `adda` and `domain_accuracy`.

    It stands alone, without a cross-entropy, and the plan freezes the head, which both networks share::

        trained = fit(model, params, cross_entropy(), train=(x, y), ...).params
        domains = {"source": (x, None), "target": (t, None)}
        fit(model, trained, adda_from(trained), plan(freeze("head/**")), train=domains, ...)

    In training a model with batch normalisation sees the source too, and its running statistics mix both domains.
    ``freeze("**/batch_stats/**")`` in the plan keeps those of `start`, and normalises with them.

    Args:
        start: the parameters as trained on the source.
        discriminator: D, a Flax module or a model from features `[B, D]` to one logit `[B, 1]`; by default
            `Discriminator()`.
        strength: a number or a schedule; by default ``warm_up(high=2.0)``.
        source: the stream of the domain that `start` was trained on.
        target: the stream of the other.

    Raises:
        ScheduleError: a `strength` that is neither a number, 0 or more, nor a schedule.
        NetworkError: D is no network, or gives something other than `[B, 1]`.
        StartError: `start` are not parameters of this model.
        StreamError: the step has no such streams.

    Reference: Tzeng et al. 2017, arXiv:1702.05464.

    >>> print(adda_from({}))
    adda_from(start)
    """
    text = describe(adda_from, "start", discriminator=discriminator, strength=strength, source=source, target=target)
    told, rising = discriminator_of(discriminator, text), schedule_of(strength, warm_up(high=2.0), text)

    def init(key: Key, scene: Scene) -> Owned:
        _check_start(start, scene.params, text)
        owned = told.init(key, output_of(scene, source, text).features)
        return Owned(owned.params, {"discriminator": owned.state, "start": jax.tree.map(jnp.array, start)})

    def apply(owned: Owned, scene: Scene) -> tuple[Array, Any, Metrics]:
        outputs, weights = domains_of(scene, source, target, text)
        first = scene.evaluate(owned.state["start"], scene.batches[name_of(scene, source, text)].x).features
        inputs = first, reversed_gradient(outputs[1].features, rising(scene.step))
        own = owned._replace(state=owned.state["discriminator"])
        logits, state = tell_apart(told, own, inputs, key=scene.key)
        value = domain_adversarial(*logits, source_weight=weights[0], target_weight=weights[1])
        state = {"discriminator": state, "start": owned.state["start"]}
        return value, state, adversarial_metrics("adda", value, logits, weights)

    return Term(apply, init, text, (source, target), schedules=((f"the strength of {text}", rising),))


def _check_start(start: Params, params: Params, text: str) -> None:
    found = {name: jnp.shape(leaf) for name, leaf in named_leaves(start).items()}
    for name, leaf in named_leaves(params).items():
        if found.get(name) != jnp.shape(leaf):
            raise StartError(
                f"{text}: start are no parameters of this model; {name!r} is {list(jnp.shape(leaf))} in "
                f"the model and {list(found[name]) if name in found else 'missing'} in start"
            )
