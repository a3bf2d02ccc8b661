"""Mean teacher: the model agrees with the average of what it was."""

from typing import Any

import jax
import jax.numpy as jnp

from tljax.objectives.checks import fitting
from tljax.objectives.describe import describe
from tljax.objectives.fixmatch import confident
from tljax.objectives.mean import weighted_mean, widened
from tljax.objectives.stream import LabelError, name_of
from tljax.objectives.term import Metrics, Owned, Scene, Term
from tljax.tree import map_named
from tljax.types import Array, Key, Params, is_state


def consistency_losses(logits: Array, others: Array) -> Array:
    """How far the predictions of two passes are apart, `[B]`: ``sum_c (softmax(logits)_c - softmax(others)_c)^2``.

    The sum over the classes, as TLlib takes it; the published code of mean teachers takes the mean, so that a weight
    from there is C times as large.

    Args:
        logits: `[B, C]`.
        others: `[B, C]`. Gradients flow to both.

    Raises:
        LabelError: shapes that differ.

    Reference: Laine and Aila 2017, arXiv:1610.02242.

    >>> import jax.numpy as jnp
    >>> print(consistency_losses(jnp.array([[99.0, 0.0]]), jnp.array([[0.0, 99.0]])))
    [2.]
    """
    fitting("consistency", logits=(logits, "B C"), others=(others, "B C"))
    p, q = jax.nn.softmax(widened(logits)), jax.nn.softmax(widened(others))
    return jnp.sum(jnp.square(p - q), axis=-1)


def mean_teacher(*, decay: float = 0.999, threshold: float = 0.0, weak: str = "weak", strong: str = "strong") -> Term:
    """Mean teacher: the model's predictions for `strong` are those of a slow copy of it for `weak`.

    The mean over the batch of `consistency_losses`. The copy, the teacher, moves towards the model in each step by
    ``1 - min(decay, 1 - 1/t)``, t = 1, 2, ...; running statistics are the model's own. It predicts without dropout and
    is carried in the term's state. The two streams show the same examples (``fit(views=...)``), and both go through the
    model, so that its running statistics see both; or they are one:
    ``mean_teacher(weak="unlabelled", strong="unlabelled")``. The weight usually rises at first:
    ``ramp_up(steps=4000) * mean_teacher()``. TLlib takes the sum over the batch and not the mean.

    With a `threshold` an example counts only where the teacher's largest probability exceeds it, which takes the place
    of the rise where the streams are of another domain: self-ensembling, ``3 * mean_teacher(decay=0.99,
    threshold=0.8)`` in TLlib. Logs `mean_teacher`, `mean_teacher/agreement`, how often both name the same class, and
    with a threshold `mean_teacher/confident`, the share of the examples that count.

    Raises:
        LabelError: `decay` or `threshold` outside 0..1.

    Reference: Tarvainen and Valpola 2017, arXiv:1703.01780; French et al. 2018, arXiv:1706.05208.

    >>> print(mean_teacher(decay=0.99))
    mean_teacher(decay=0.99)
    """
    if not 0 <= decay < 1:
        raise LabelError(f"mean_teacher: decay={decay}; expected a number from 0 to below 1, as 0.999")
    if not 0 <= threshold < 1:
        raise LabelError(f"mean_teacher: threshold={threshold}; expected a probability from 0 to below 1")
    text = describe(mean_teacher, decay=decay, threshold=threshold, weak=weak, strong=strong)

    def init(key: Key, scene: Scene) -> Owned:
        del key
        return Owned(state=jax.tree.map(_wide_copy, scene.params))

    def apply(owned: Owned, scene: Scene) -> tuple[Array, Any, Metrics]:
        name, shown = name_of(scene, strong, text), name_of(scene, weak, text)
        logits, weight = scene.outputs[name].logits, scene.batches[name].weight
        teacher = jax.lax.stop_gradient(followed(owned.state, scene.params, scene.step, decay, scene.micro))
        narrow = jax.tree.map(lambda slow, now: slow.astype(now.dtype), teacher, scene.params)
        told = jax.lax.stop_gradient(scene.evaluate(narrow, scene.batches[shown].x).logits)
        losses = consistency_losses(logits, told)
        metrics = {"agreement": jnp.argmax(logits, axis=-1) == jnp.argmax(told, axis=-1)}
        if threshold:
            metrics["confident"] = confident(told, threshold=threshold)
            losses = jnp.where(metrics["confident"], losses, 0)
        loss = weighted_mean(losses, weight)
        shares = {f"mean_teacher/{n}": weighted_mean(v.astype(loss.dtype), weight) for n, v in metrics.items()}
        return loss, teacher, {"mean_teacher": loss, **shares}

    return Term(apply, init, text, (strong, weak) if weak != strong else (strong,), views=((strong, weak),))


def followed(slow: Params, now: Params, step: Array, decay: float, micro: Array | int = 0) -> Params:
    """`slow` after one move towards `now`: ``a slow + (1 - a) now``, ``a = min(decay, 1 - 1 / (step + 1))``.

    It moves once in a step, at `micro` 0. What is no floating number, and running statistics, are as in
    `now`.

    >>> slow, now = {"w": jnp.zeros(2)}, {"w": jnp.ones(2)}
    >>> followed(slow, now, jnp.int32(0), 0.9)["w"].tolist(), followed(slow, now, jnp.int32(1), 0.9)["w"].tolist()
    ([1.0, 1.0], [0.5, 0.5])
    """

    def share(dtype: Any) -> Array:
        least = jnp.maximum(jnp.asarray(1 - decay, dtype), 1 / (step.astype(dtype) + 1))
        return jnp.where(jnp.asarray(micro) == 0, least, 0)

    def move(name: str, old: Array, new: Array) -> Array:
        wide = new.astype(old.dtype)
        if is_state(name) or not jnp.issubdtype(old.dtype, jnp.floating):
            return wide
        return old + share(old.dtype) * (wide - old)

    return map_named(move, slow, now)


def _wide_copy(a: Array) -> Array:
    """A copy, which a step that donates its state cannot delete; wide, since small moves vanish in half precision."""
    return jnp.array(widened(a) if jnp.issubdtype(a.dtype, jnp.floating) else a)
