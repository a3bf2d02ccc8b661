"""Knowledge distillation: the student answers as a teacher does."""

from typing import Any

import jax
import jax.numpy as jnp

from tljax.objectives.checks import above_zero, fitting
from tljax.objectives.describe import describe
from tljax.objectives.entropy import log_probabilities, tempered
from tljax.objectives.mean import weighted_mean, widened
from tljax.objectives.stream import LabelError, name_of, output_of, prefix
from tljax.objectives.term import Metrics, Owned, Scene, Term
from tljax.types import Array, Key, Model, Params


def distillation_losses(
    logits: Array, teacher_logits: Array, *, temperature: float = 3.0, rescaled: bool = False
) -> Array:
    """The divergence of the student from the teacher per example, `[B]`.

    ``KL(p || q) = sum_c p_c (log p_c - log q_c)`` with ``p = softmax(teacher_logits / T)`` and
    ``q = softmax(logits / T)``. It is 0 where both agree.

    Args:
        logits: the student's, `[B, C]`.
        teacher_logits: `[B, C]`. Gradients flow to them too: stop them where the teacher is fixed.
        temperature: T, above 0.
        rescaled: times T^2, as the paper has it, so that the size of the gradient does not depend on T. Without it,
            as in the authors' later code and in learning without forgetting, the gradient falls as 1 / T^2.

    Raises:
        LabelError: shapes that do not fit, or a temperature that is not above 0.

    Reference: Hinton et al. 2015, arXiv:1503.02531.

    >>> print(distillation_losses(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 0.0]])).round(4))
    [0.1109]
    """
    above_zero("distillation", temperature=temperature)
    fitting("distillation", logits=(logits, "B C"), teacher_logits=(teacher_logits, "B C"))
    student, teacher = widened(logits), widened(teacher_logits)
    log_p = log_probabilities(tempered(teacher.astype(student.dtype), temperature))
    log_q = log_probabilities(tempered(student, temperature))
    losses = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
    return losses * temperature**2 if rescaled else losses


def distillation(
    teacher: Model,
    teacher_params: Params,
    *,
    temperature: float = 3.0,
    rescaled: bool = False,
    stream: str = "train",
) -> Term:
    """Knowledge distillation from a frozen `teacher`, which sees the same inputs, augmented as they are.

    The mean of `distillation_losses` over the batch; no labels are read. The teacher, of any architecture with the
    same classes, runs in evaluation mode. The term owns one copy of its parameters, which is saved with the run: a
    resumed run has the same teacher. Logs `distillation`.

    >>> from tljax.models import mlp
    >>> teacher = mlp((8,), num_classes=2)
    >>> print(distillation(teacher, teacher.init(jax.random.key(0), jnp.ones((1, 3))), temperature=2.0))
    distillation(mlp, params, temperature=2.0)
    """
    given = {"temperature": temperature, "rescaled": rescaled, "stream": stream}
    text = describe(distillation, teacher.name, "params", **given)
    above_zero(text, temperature=temperature)

    def init(key: Key, scene: Scene) -> Owned:
        del key
        student = output_of(scene, stream, text).logits.shape
        x = scene.batches[name_of(scene, stream, text)].x
        found = jax.eval_shape(lambda p, x: teacher.apply(p, x).logits, teacher_params, x)
        if found.shape != student:
            raise LabelError(
                f"{text}: the teacher gives logits {list(found.shape)} and the student {list(student)}; "
                "they must have the same classes in the same order"
            )
        # A copy, since a training step that donates its state must not delete the caller's arrays.
        return Owned(state=jax.tree.map(jnp.array, teacher_params))

    def apply(owned: Owned, scene: Scene) -> tuple[Array, Any, Metrics]:
        batch = scene.batches[name_of(scene, stream, text)]
        target = jax.lax.stop_gradient(teacher.apply(owned.state, batch.x).logits)
        logits = output_of(scene, stream, text).logits
        losses = distillation_losses(logits, target, temperature=temperature, rescaled=rescaled)
        loss = weighted_mean(losses, batch.weight)
        return loss, owned.state, {f"{prefix(stream)}distillation": loss}

    return Term(apply, init, text, streams=(stream,))
