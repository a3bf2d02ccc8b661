"""ADDA: the discriminator and the features learn in turn, each against the other; both published forms."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tljax.objectives.dann import domain_adversarial
from tljax.objectives.describe import describe
from tljax.objectives.discriminator import (
    adversarial_metrics,
    discriminator_of,
    domains_of,
    tell_apart,
)
from tljax.objectives.parameters import StartError
from tljax.objectives.phase import Phase
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
    joint: bool = True,
    source: str = "source",
    target: str = "target",
) -> Term:
    """ADDA with one network for both domains, and two phases a step. Add it to `cross_entropy()`.

    1. "features": the model lowers the cross-entropy beside this term and ``weight * 1/2 [CE(D(f_s), 0) +
       CE(D(f_t), 1)]``: the discriminator D is to take each domain for the other. D predicts with its running
       statistics and does not learn.
    2. "discriminator": D alone lowers ``1/2 [CE(D(f_s), 1) + CE(D(f_t), 0)]`` on the features of the model as it
       predicts.

    The term owns D. The domains go through the model as one batch, or without `joint` one by one, and through D as
    one. Where the model normalises by batches, one by one means that each domain gets the same mean and variance in
    training, but not when the model predicts, which is what D sees: on digits that gained nothing. Unlike `dann`,
    the features do not get the gradient of D's own loss, which vanishes where D is sure. Logs `adda`,
    `adda_discriminator` and `domain_accuracy`. A factor before the term scales D's loss too; `weight` is what
    balances: 0.1 is published for digits, 0.3 from SVHN to MNIST.

    Args:
        weight: of the first phase's loss.
        discriminator: D, a Flax module or a model from features `[B, D]` to one logit `[B, 1]`; by default
            `Discriminator()`.
        strength: what the gradient from D to the features is multiplied by, a number or a schedule; by default
            `warm_up()`.
        joint: whether both domains go through the model as one batch.
        source: the stream of the labelled domain; its labels are not read here.
        target: the stream of the other.

    Raises:
        ScheduleError: a `strength` that is neither a number nor a schedule.
        NetworkError: D is no network, or gives something other than `[B, 1]`.
        StreamError: the step has no such streams.

    Reference: Tzeng et al. 2017, arXiv:1702.05464.

    >>> from tljax.objectives import cross_entropy
    >>> print(cross_entropy() + adda(weight=0.3))
    cross_entropy() + adda(weight=0.3)
    """
    options = {"discriminator": discriminator, "strength": strength, "joint": joint}
    text = describe(adda, weight=weight, **options, source=source, target=target)
    told, rising = discriminator_of(discriminator, text), schedule_of(strength, warm_up(), text)

    def init(key: Key, scene: Scene) -> Owned:
        return told.init(key, output_of(scene, source, text).features)

    def apply(owned: Owned, scene: Scene) -> tuple[Array, Any, Metrics]:
        outputs, weights = domains_of(scene, source, target, text)
        if scene.phase == "discriminator":
            inputs = [scene.batches[name_of(scene, name, text)].x for name in (source, target)]
            own, other = (jax.lax.stop_gradient(scene.evaluate(scene.params, x).features) for x in inputs)
            logits, state = tell_apart(told, owned, (own, other), key=scene.key)
            value = domain_adversarial(*logits, source_weight=weights[0], target_weight=weights[1])
            return value, state, adversarial_metrics("adda_discriminator", value, logits, weights)
        # Reversal by a negative number: the gradient keeps its sign, and is scaled.
        back = -rising(scene.step)
        pair = reversed_gradient(outputs[0].features, back), reversed_gradient(outputs[1].features, back)
        (own, other), state = tell_apart(told, owned, pair, key=scene.key, train=False)
        value = weight * domain_adversarial(other, own, source_weight=weights[1], target_weight=weights[0])
        return value, state, {"adda": value}

    phases = (Phase("features", owned=False), Phase("discriminator", learns=None, others=False))
    return Term(apply, init, text, (source, target), joint=(source, target) if joint else (), phases=phases)


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
        ScheduleError: a `strength` that is neither a number nor a schedule.
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

    return Term(apply, init, text, (source, target))


def _check_start(start: Params, params: Params, text: str) -> None:
    found = {name: jnp.shape(leaf) for name, leaf in named_leaves(start).items()}
    for name, leaf in named_leaves(params).items():
        if found.get(name) != jnp.shape(leaf):
            raise StartError(
                f"{text}: start are no parameters of this model; {name!r} is {list(jnp.shape(leaf))} in "
                f"the model and {list(found[name]) if name in found else 'missing'} in start"
            )
