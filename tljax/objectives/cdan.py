"""CDAN: features from which, together with what is predicted, no network can tell the domain."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tljax.objectives.checks import fitting
from tljax.objectives.describe import describe
from tljax.objectives.discriminator import (
    adversarial_metrics,
    discriminator_of,
    domain_losses,
    domains_of,
    joined_weight,
    tell_apart,
)
from tljax.objectives.mean import ratio_of_sums, weighted_mean, widened
from tljax.objectives.reversal import reversed_gradient
from tljax.objectives.schedules import schedule_of, warm_up
from tljax.objectives.stream import output_of
from tljax.objectives.term import Metrics, Owned, Scene, Schedule, Term
from tljax.types import Array, Key, Model, Output, TljaxError


class MapError(TljaxError):
    """A randomised map of a dimension that is none."""


def multilinear_map(features: Array, probabilities: Array) -> Array:
    """The products of every feature with every probability, `[B, C * D]`: ``h[c D + j] = p_c f_j``.

    Args:
        features: `[B, D]`.
        probabilities: `[B, C]`. In CDAN no gradient goes through them.

    Raises:
        LabelError: arrays of other shapes.

    Reference: Long et al. 2018, arXiv:1705.10667.

    >>> import jax.numpy as jnp
    >>> print(multilinear_map(jnp.array([[1.0, 2.0]]), jnp.array([[0.25, 0.75]])))
    [[0.25 0.5  0.75 1.5 ]]
    """
    fitting("multilinear_map", features=(features, "B D"), probabilities=(probabilities, "B K"))
    return (probabilities[:, :, None] * features[:, None, :]).reshape(features.shape[0], -1)


def randomized_map(features: Array, probabilities: Array, maps: tuple[Array, Array]) -> Array:
    """Random products that stand for those of `multilinear_map`, `[B, K]`: ``(f R_f) (p R_p) / sqrt(K)``.

    Inner products of two rows are, in the mean over the maps, those of the multilinear map.

    Args:
        features: `[B, D]`.
        probabilities: `[B, C]`.
        maps: R_f `[D, K]` and R_p `[C, K]`, drawn once from a standard normal distribution.

    Raises:
        LabelError: features or probabilities of other shapes.

    Reference: Long et al. 2018, arXiv:1705.10667.

    >>> import jax.numpy as jnp
    >>> maps = jnp.ones((2, 4)), jnp.ones((2, 4))
    >>> print(randomized_map(jnp.array([[1.0, 2.0]]), jnp.array([[0.25, 0.75]]), maps))
    [[1.5 1.5 1.5 1.5]]
    """
    fitting("randomized_map", features=(features, "B D"), probabilities=(probabilities, "B K"))
    left, right = (jnp.matmul(x, r, precision="highest") for x, r in zip((features, probabilities), maps))
    return left * right / math.sqrt(maps[0].shape[1])


def entropy_weights(probabilities: Array, weight: Array | None = None) -> Array:
    """More weight for what is predicted with certainty, `[B]`: ``1 + exp(-H_i)``, scaled to the mean 1.

    ``H_i = - sum_c p_ic log(p_ic + 1e-5)``. Give the rows of both domains together.

    Args:
        probabilities: `[B, C]`.
        weight: `[B]`; 0 marks padding, which the mean leaves out.

    Reference: Long et al. 2018, arXiv:1705.10667.

    >>> import jax.numpy as jnp
    >>> [round(w, 3) for w in entropy_weights(jnp.array([[1.0, 0.0], [0.5, 0.5]])).tolist()]
    [1.143, 0.857]
    """
    p = widened(probabilities)
    certain = 1 + jnp.exp(jnp.sum(p * jnp.log(p + 1e-5), axis=-1))
    mean = ratio_of_sums(certain, jnp.ones_like(certain), weight)
    return certain / jnp.where(mean > 0, mean, 1)


def conditional_adversarial(
    source: Array, target: Array, *, probabilities: Array | None = None, weight: Array | None = None
) -> Array:
    """The mean of a discriminator's cross-entropies over the examples of both domains together.

    ``mean_i w_i CE_i``, w the `entropy_weights` of the `probabilities`, or ones.

    Args:
        source: the discriminator's logits `[N]` for examples of the source, which should be above 0.
        target: `[M]`, which should be below.
        probabilities: `[N + M, C]`, what the model predicts: for CDAN+E. No gradient goes through them.
        weight: `[N + M]`, 0 for padding.

    Raises:
        LabelError: arrays of other shapes.

    Reference: Long et al. 2018, arXiv:1705.10667.

    >>> import jax.numpy as jnp
    >>> print(conditional_adversarial(jnp.zeros(4), jnp.zeros(2)).round(4))
    0.6931
    """
    losses = jnp.concatenate(domain_losses(source, target))
    if probabilities is not None:
        fitting("conditional_adversarial", logits=(losses, "B"), probabilities=(probabilities, "B C"))
        losses = losses * jax.lax.stop_gradient(entropy_weights(probabilities, weight)).astype(losses.dtype)
    return weighted_mean(losses, weight)


def cdan(
    *,
    entropy: bool = False,
    randomized: int | None = None,
    discriminator: nn.Module | Model | None = None,
    strength: float | Schedule | None = None,
    source: str = "source",
    target: str = "target",
) -> Term:
    """CDAN: as `dann`, but the discriminator reads features and predictions together.

    ``mean over both domains of w_i CE(D(R(h_i)), d_i)``, ``h = p x f``: p the softmax of the logits, through which
    no gradient goes, and R the reversed gradient. The term owns D. Both domains go through the model, and through
    D, as one batch. Logs `cdan` and `domain_accuracy`.

    Args:
        entropy: CDAN+E, with `entropy_weights` over both domains together; else all w are 1.
        randomized: K, the width of a `randomized_map` in the place of the multilinear one, which is `C * D` wide:
            where C * D is beyond some 4,000. The maps are drawn once and kept in the term's state.
        discriminator: D, from `[B, C * D]` or `[B, K]` to `[B, 1]`; by default `Discriminator()`.
        strength: of the reversed gradient, a number or a schedule; by default `warm_up()`.
        source: the stream of the labelled domain; its labels are not read here.
        target: the stream of the other.

    Raises:
        MapError: `randomized` is no whole number above 0.
        NetworkError: D is no network, or gives something other than `[B, 1]`.
        StreamError: the step has no such streams.

    Reference: Long et al. 2018, arXiv:1705.10667.

    >>> print(cdan(entropy=True, randomized=1024))
    cdan(entropy=True, randomized=1024)
    """
    text = describe(
        cdan, entropy=entropy, randomized=randomized, discriminator=discriminator, strength=strength,
        source=source, target=target,
    )  # fmt: skip
    if randomized is not None and (type(randomized) is not int or randomized < 1):
        raise MapError(f"cdan: randomized is the width of the map, a whole number above 0; found {randomized!r}")
    told, rising = discriminator_of(discriminator, text), schedule_of(strength, warm_up(), text)

    def init(key: Key, scene: Scene) -> Owned:
        output = output_of(scene, source, text)
        maps = _maps(key, output, randomized)
        owned = told.init(jax.random.fold_in(key, 2), jax.eval_shape(_conditioned, output, maps)[0])
        return Owned(owned.params, {"discriminator": owned.state, "maps": maps})

    def apply(owned: Owned, scene: Scene) -> tuple[Array, Any, Metrics]:
        outputs, weights = domains_of(scene, source, target, text)
        maps, now = owned.state["maps"], rising(scene.step)
        inputs, p = zip(*(_conditioned(output, maps) for output in outputs))
        inputs = reversed_gradient(inputs[0], now), reversed_gradient(inputs[1], now)
        own = owned._replace(state=owned.state["discriminator"])
        logits, state = tell_apart(told, own, inputs, key=scene.key)
        value = conditional_adversarial(
            *logits, probabilities=jnp.concatenate(p) if entropy else None, weight=joined_weight(logits, weights)
        )
        return value, {"discriminator": state, "maps": maps}, adversarial_metrics("cdan", value, logits, weights)

    strength_of = ((f"the strength of {text}", rising),)
    return Term(apply, init, text, (source, target), joint=(source, target), schedules=strength_of)


def _maps(key: Key, output: Output, width: int | None) -> tuple[Array, ...]:
    """The random maps of features and of probabilities; none for the multilinear map."""
    if width is None:
        return ()
    f, p = jax.eval_shape(lambda output: (widened(output.features), widened(output.logits)), output)
    return tuple(
        jax.random.normal(jax.random.fold_in(key, i), (x.shape[1], width), x.dtype) for i, x in enumerate((f, p))
    )


def _conditioned(output: Output, maps: tuple[Array, ...]) -> tuple[Array, Array]:
    """What the discriminator reads, and the probabilities in it, without their gradient."""
    p = jax.nn.softmax(jax.lax.stop_gradient(widened(output.logits)))
    f = widened(output.features)
    return (randomized_map(f, p, (maps[0], maps[1])) if maps else multilinear_map(f, p)), p
