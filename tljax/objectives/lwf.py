"""Learning without forgetting: on new data the old task is answered as before."""

from typing import Any

import jax

from tljax.objectives.checks import above_zero
from tljax.objectives.describe import describe
from tljax.objectives.distillation import distillation_losses
from tljax.objectives.frozen import frozen_copy, head_logits, source_head_copy, with_frozen
from tljax.objectives.mean import weighted_mean
from tljax.objectives.stream import name_of, output_of, prefix
from tljax.objectives.term import Metrics, Owned, Scene, Term
from tljax.types import Array, Key, Params


def lwf(
    start: Params,
    source_head: Params,
    *,
    temperature: float = 3.0,
    learn_head: bool = False,
    stream: str = "train",
) -> Term:
    """Learning without forgetting: the source's head on today's features answers as it did on those of the start.

    ``KL(softmax(y0 / T) || softmax(y / T))``, the mean over the batch without a factor T^2, with
    ``y = h(features)`` and ``y0 = h0(features of the frozen start)``, both for the same augmented inputs; `start` runs
    in evaluation mode. The published code computes y0 once for each image, under one augmentation, and uses it for
    all others. Neither source data nor labels are needed. The published weight is 4. Logs `lwf`.

        source = tl.load_pretrained(path)                  # its head is of the old classes
        model, params, *_ = tl.load_pretrained(path, num_classes=7)
        objective = tl.cross_entropy() + 4.0 * tl.lwf(params, source.params["head"])

    The term owns a copy of `start` without its head, and of the head, so that a resumed run has them.

    Args:
        start: the model's parameters before the first step; what head they have does not matter.
        source_head: h0, ``{"kernel": [D, C0], "bias": [C0]}``; the bias may be missing.
        temperature: T, above 0.
        learn_head: whether h is trained with the model, as in the paper. By default it stays h0, as in the published
            code. The trained head stands in the run's state and not in the result's parameters.
        stream: whose inputs are read.

    Raises:
        LabelError: a temperature that is not above 0.
        StartError: at `init`, a start that is not of this model. HeadError: a head of another width.

    Reference: Li and Hoiem 2016, arXiv:1606.09282.

    >>> head = {"kernel": jax.numpy.ones((8, 3)), "bias": jax.numpy.zeros(3)}
    >>> print(4.0 * lwf({}, head, learn_head=True))
    4.0 * lwf(start, source_head, learn_head=True)
    """
    given = {"temperature": temperature, "learn_head": learn_head, "stream": stream}
    text = describe(lwf, "start", "source_head", **given)
    above_zero(text, temperature=temperature)

    def init(key: Key, scene: Scene) -> Owned:
        del key
        head = source_head_copy(source_head, output_of(scene, stream, text).features, text)
        state = {"start": frozen_copy(start, scene.params, text), "head": head}
        return Owned(source_head_copy(head, head["kernel"].T, text) if learn_head else (), state)

    def apply(owned: Owned, scene: Scene) -> tuple[Array, Any, Metrics]:
        batch, before = scene.batches[name_of(scene, stream, text)], owned.state
        old = scene.evaluate(with_frozen(before["start"], scene.params), batch.x).features
        features = output_of(scene, stream, text).features
        logits = head_logits(owned.params if learn_head else before["head"], features)
        target = jax.lax.stop_gradient(head_logits(before["head"], old))
        loss = weighted_mean(distillation_losses(logits, target, temperature=temperature), batch.weight)
        return loss, before, {f"{prefix(stream)}lwf": loss}

    return Term(apply, init, text, streams=(stream,))
