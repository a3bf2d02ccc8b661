"""Predictions that are sure of each example, and not of one class for all."""

import jax
import jax.numpy as jnp

from tljax.objectives.checks import fitting, not_below_zero
from tljax.objectives.describe import describe
from tljax.objectives.mean import weighted_mean, widened
from tljax.objectives.stream import name_of
from tljax.objectives.term import Metrics, Scene, Term, stateless
from tljax.types import Array


def log_probabilities(logits: Array) -> Array:
    """The logarithms of each row's softmax, `[B, C]`, -1e30 at the least: so that ``p log p`` is 0, and has a slope,
    where the logit of a class is -inf.

    >>> log_probabilities(jnp.array([[0.0, -jnp.inf]])).tolist()
    [[0.0, -1.0...e+30]]
    """
    return jnp.maximum(jax.nn.log_softmax(widened(logits)), -1e30)


def tempered(logits: Array, temperature: float) -> Array:
    """``(logits - max) / temperature`` of each row, whose softmax is that of ``logits / temperature``.

    The largest is exactly 0: of a quotient that is compiled twice, once divided and once multiplied, the roundings of
    logits beyond 1e9 would differ by more than an exponential can take.

    >>> tempered(jnp.array([[9.0, 1.0, 9.0]]), 2.0).tolist()
    [[0.0, -4.0, 0.0]]
    """
    return (logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))) / temperature


def entropies(logits: Array, *, epsilon: float = 0.0) -> Array:
    """The entropy of each row's softmax in nats, `[B]`: ``-sum_c p_c log(p_c + epsilon)``, from 0 (less `epsilon`) to
    log C.

    Args:
        logits: `[B, C]`.
        epsilon: TLlib's 1e-5, which is there to keep the logarithm finite. Here nothing needs it: the logarithm is
            taken of no probability.

    Raises:
        LabelError: logits of another shape.

    Reference: Grandvalet and Bengio 2005.

    >>> import jax.numpy as jnp
    >>> print(entropies(jnp.array([[0.0, 0.0], [9.0, 0.0]])).round(4))
    [0.6931 0.0012]
    """
    fitting("the entropy", logits=(logits, "B C"))
    logs = log_probabilities(logits)
    p = jnp.exp(logs)
    exact = not isinstance(epsilon, jax.core.Tracer) and epsilon == 0
    return -jnp.sum(p * (logs if exact else jnp.log(p + epsilon)), axis=-1)


def information_loss(logits: Array, weight: Array | None = None, *, diversity: float = 1.0) -> Array:
    """The mean entropy less that of the mean prediction, in nats: ``mean_i H(p_i) - diversity H(mean_i p_i)``.

    With ``diversity=1`` it is minus the mutual information of example and class, from -log C to 0.

    Args:
        logits: `[B, C]`.
        weight: `[B]`, 0 for padding; None for all ones.
        diversity: what the second part counts.

    Raises:
        LabelError: logits of another shape.

    Reference: Liang et al. 2020, arXiv:2002.08546; Hu et al. 2017, arXiv:1702.08720.

    >>> import jax.numpy as jnp
    >>> print(information_loss(1e3 * jnp.eye(4)).round(4), information_loss(jnp.ones((3, 4))).round(4) + 0)
    -1.3863 0.0
    """
    fitting("information_loss", logits=(logits, "B C"))
    logits = widened(logits)
    shares = jnp.ones(len(logits), logits.dtype) if weight is None else jnp.asarray(weight).astype(logits.dtype)
    logs = jnp.where(shares[:, None] > 0, log_probabilities(logits), 0)
    # In logarithms: the mean probability of a class may underflow, and its logarithm would have no slope.
    mean = jax.nn.logsumexp(logs, axis=0, b=shares[:, None])
    return weighted_mean(entropies(logits), weight) - diversity * entropies(mean[None])[0]


def entropy_minimization(*, epsilon: float = 0.0, stream: str = "target") -> Term:
    """The predictions for `stream` are sure: their mean entropy is small (`entropies`).

    Alone it is content with one class for all; see `information_maximization`. Logs
    `entropy_minimization`, the entropy.

    Reference: Grandvalet and Bengio 2005.

    >>> print(0.1 * entropy_minimization())
    0.1 * entropy_minimization()
    """
    text = describe(entropy_minimization, epsilon=epsilon, stream=stream)

    def value(scene: Scene) -> tuple[Array, Metrics]:
        name = name_of(scene, stream, text)
        losses = entropies(scene.outputs[name].logits, epsilon=epsilon)
        loss = weighted_mean(losses, scene.batches[name].weight)
        return loss, {"entropy_minimization": loss}

    return stateless(value, text, stream)


def information_maximization(*, diversity: float = 1.0, stream: str = "target") -> Term:
    """The predictions for `stream` are sure of each example and spread over the classes (`information_loss`).

    Logs `information_maximization`, the value that is minimised. `LabelError` for a `diversity` below 0.

    Reference: Liang et al. 2020, arXiv:2002.08546.

    >>> print(information_maximization())
    information_maximization()
    """
    text = describe(information_maximization, diversity=diversity, stream=stream)
    not_below_zero(text, diversity=diversity)

    def value(scene: Scene) -> tuple[Array, Metrics]:
        name = name_of(scene, stream, text)
        loss = information_loss(scene.outputs[name].logits, scene.batches[name].weight, diversity=diversity)
        return loss, {"information_maximization": loss}

    return stateless(value, text, stream)
