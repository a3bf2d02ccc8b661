"""What a term reads from a scene: one stream's outputs and its labels."""

from tljax.objectives.term import Scene
from tljax.types import Array, Batch, TljaxError


class StreamError(TljaxError):
    """A term reads a stream, or labels, that the step does not have."""


class LabelError(TljaxError):
    """Labels whose shape or type does not fit the logits or the loss."""


def labelled(scene: Scene, stream: str, term: str) -> tuple[Array, Batch]:
    """The logits `[B, C]` and the labelled batch of `stream`; `term` is named in the error."""
    if stream not in scene.outputs or stream not in scene.batches:
        known = ", ".join(repr(name) for name in scene.outputs) or "none"
        raise StreamError(
            f"{term} reads the stream {stream!r}; this step has: {known}. "
            f"Feed a stream of that name, or give the term stream=... with one of these names."
        )
    batch = scene.batches[stream]
    if batch.y is None:
        raise StreamError(f"{term} needs labels, but the stream {stream!r} has none: found Batch(y=None)")
    return scene.outputs[stream].logits, batch


def prefix(stream: str) -> str:
    """What stands before a metric's name: nothing for the main stream, so that names stay short.

    >>> prefix("train") + "accuracy", prefix("target") + "accuracy"
    ('accuracy', 'target/accuracy')
    """
    return "" if stream == "train" else f"{stream}/"
