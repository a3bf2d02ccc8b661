"""MDD: features on which no second head can agree with the first on the source and differ on the target."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tljax.objectives.checks import above_zero, fitting
from tljax.objectives.describe import describe
from tljax.objectives.discriminator import domains_of
from tljax.objectives.mean import weighted_mean, widened
from tljax.objectives.network import Network, network
from tljax.objectives.reversal import reversed_gradient
from tljax.objectives.schedules import schedule_of, warm_up
from tljax.objectives.stream import output_of
from tljax.objectives.term import Metrics, Owned, Scene, Schedule, Term
from tljax.types import Array, Key, Model

Weights = tuple[Array | None, Array | None]


class MarginHead(nn.Module):
    """MDD's second head: Dense, ReLU, Dropout, Dense to `[B, outputs]`; kernels begin as N(0, 0.01), biases at 0.

    >>> import jax, jax.numpy as jnp
    >>> MarginHead(3).init_with_output(jax.random.key(0), jnp.ones((4, 2)))[0].shape
    (4, 3)
    """

    outputs: int
    hidden: int = 1024
    dropout: float = 0.5

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        x = widened(x)
        small = nn.initializers.normal(0.01)
        x = nn.relu(nn.Dense(self.hidden, kernel_init=small, param_dtype=x.dtype, name="dense")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.outputs, kernel_init=small, param_dtype=x.dtype, name="logits")(x)


def margin_disparity(
    source: Array,
    second_source: Array,
    target: Array,
    second_target: Array,
    *,
    margin: float = 4.0,
    weights: Weights = (None, None),
) -> Array:
    """How much more a second head differs from the first on the target than on the source.

    ``mean_t log(1 - p'_t[k_t]) - margin * mean_s CE(g'_s, k_s)``, k the classes that the first head predicts and p'
    the softmax of the second head's logits g'. The logarithm is of ``min(1 - p' + 1e-6, 1)``, so that its gradient is
    finite.

    Args:
        source: logits `[N, C]` of the first head for the source.
        second_source: g'_s, `[N, C]`, of the second.
        target: `[M, C]`.
        second_target: g'_t, `[M, C]`.
        margin: gamma, the exponential of the margin rho.
        weights: of the examples, `[N]` and `[M]`, 0 for padding.

    Raises:
        LabelError: logits of other shapes.

    Reference: Zhang et al. 2019, arXiv:1904.05801.

    >>> import jax.numpy as jnp
    >>> even = jnp.zeros((2, 2))
    >>> print(margin_disparity(even, even, even, even, margin=2.0).round(4))  # log 1/2 - 2 log 2
    -2.0794
    """
    fitting(
        "margin_disparity", source=(source, "N C"), second_source=(second_source, "N C"), target=(target, "M C"),
        second_target=(second_target, "M C"),
    )  # fmt: skip
    first, second = jnp.argmax(source, axis=-1)[:, None], jnp.argmax(target, axis=-1)[:, None]
    agree = jnp.take_along_axis(jax.nn.log_softmax(widened(second_source)), first, axis=-1)[:, 0]
    # The sum of the other classes, since 1 - p' of a p' near 1 is rounded off.
    p = jax.nn.softmax(widened(second_target))
    others = jnp.sum(jnp.where(jnp.arange(p.shape[1])[None] == second, 0, p), axis=-1)
    differ = jnp.log(jnp.minimum(others + 1e-6, 1))
    return weighted_mean(differ, weights[1]) + margin * weighted_mean(agree, weights[0])


def regression_disparity(
    source: Array,
    second_source: Array,
    target: Array,
    second_target: Array,
    *,
    margin: float = 1.0,
    weights: Weights = (None, None),
) -> Array:
    """`margin_disparity` for predictions of numbers: ``mean_t |y'_t - y_t| - margin * mean_s |y'_s - y_s|``.

    All `[N, K]`; the absolute errors are means over the K numbers as well. The second head is compared with what the
    first predicts, through which no gradient goes.

    Reference: Zhang et al. 2019, arXiv:1904.05801.

    >>> import jax.numpy as jnp
    >>> zero, one = jnp.zeros((2, 1)), jnp.ones((2, 1))
    >>> print(regression_disparity(zero, one, zero, 3 * one))
    2.0
    """

    def gap(first: Array, second: Array) -> Array:
        return jnp.mean(jnp.abs(widened(second) - jax.lax.stop_gradient(widened(first))), axis=-1)

    apart = weighted_mean(gap(target, second_target), weights[1])
    return apart - margin * weighted_mean(gap(source, second_source), weights[0])


def mdd(
    *,
    margin: float = 4.0,
    regression: bool = False,
    head: nn.Module | Model | None = None,
    strength: float | Schedule | None = None,
    source: str = "source",
    target: str = "target",
) -> Term:
    """MDD: a second head learns to agree with the model's on the source and to differ on the target, through a
    reversed gradient that makes the features learn the contrary.

    ``- margin_disparity(g_s, h(R(f_s)), g_t, h(R(f_t)))``: h is the second head, which the term owns, and R the
    identity whose gradient is multiplied by -`strength`. No gradient reaches the model's own head: it learns from the
    cross-entropy beside this term. Both domains go through the model, and through h, as one batch. Logs `mdd`.

    Args:
        margin: gamma; for regression 1 is published.
        regression: `regression_disparity`, for models that predict numbers.
        head: h, a Flax module or a model from features `[B, D]` to `[B, C]`; by default `MarginHead(C)`.
        strength: a number or a schedule; by default ``warm_up(high=0.1)``.
        source: the stream of the labelled domain; its labels are not read here.
        target: the stream of the other.

    Raises:
        LabelError: a `margin` that is not above 0.
        ScheduleError: a `strength` that is neither a number, 0 or more, nor a schedule.
        NetworkError: h is no network, or gives something other than `[B, C]`.
        StreamError: the step has no such streams.

    Reference: Zhang et al. 2019, arXiv:1904.05801.

    >>> from tljax.objectives import cross_entropy
    >>> print(cross_entropy() + mdd(margin=2.0))
    cross_entropy() + mdd(margin=2.0)
    """
    text = describe(
        mdd, margin=margin, regression=regression, head=head, strength=strength, source=source, target=target
    )
    above_zero(text, margin=margin)
    rising = schedule_of(strength, warm_up(high=0.1), text)
    disparity = regression_disparity if regression else margin_disparity

    @functools.cache
    def second(outputs: int) -> Network:
        return network(head, MarginHead(outputs), f"the head of {text}")

    def init(key: Key, scene: Scene) -> Owned:
        output = output_of(scene, source, text)
        return second(output.logits.shape[1]).init(key, output.features)

    def apply(owned: Owned, scene: Scene) -> tuple[Array, Any, Metrics]:
        (first, other), weights = domains_of(scene, source, target, text)
        classes, split = first.logits.shape[1], first.logits.shape[0]
        features = reversed_gradient(jnp.concatenate([first.features, other.features]), rising(scene.step))
        logits, state = second(classes).run(owned, features, classes, key=scene.key)
        value = -disparity(first.logits, logits[:split], other.logits, logits[split:], margin=margin, weights=weights)
        return value, state, {"mdd": value}

    strength_of = ((f"the strength of {text}", rising),)
    return Term(apply, init, text, (source, target), joint=(source, target), schedules=strength_of)
