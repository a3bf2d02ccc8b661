"""What a term reads from a scene: one stream's outputs and its labels."""

from collections.abc import Collection, Iterable

from tljax.objectives.term import MAIN, SOURCE, Scene
from tljax.types import Array, Batch, Output, TljaxError


class StreamError(TljaxError):
    """A term reads a stream, or labels, that the step does not have."""


class LabelError(TljaxError):
    """Labels whose shape or type does not fit the logits or the loss."""


def output_of(scene: Scene, stream: str, term: str) -> Output:
    """The model's outputs for `stream`; `term` is named in the error.

    The main stream, "train", is called "source" where there are several domains.

    Raises `StreamError` where the step has no such stream.

    >>> scene = Scene({"source": Output(1, 2)}, {"source": Batch(0)}, {}, print, 0, None)
    >>> output_of(scene, "train", "mine()")
    Output(logits=1, features=2, stats=None)
    >>> output_of(scene, "target", "mine()")
    Traceback (most recent call last):
    tljax.objectives.stream.StreamError: mine() reads the stream 'target'; this step has: 'source'. Feed a stream of ...
    """
    return scene.outputs[name_of(scene, stream, term)]


def labelled(scene: Scene, stream: str, term: str) -> tuple[Array, Batch]:
    """The logits `[B, C]` and the labelled batch of `stream`; `term` is named in the error.

    Raises `StreamError` where the step has no such stream, or it has no labels.

    >>> scene = Scene({"source": Output(1, 2)}, {"source": Batch(0, 3)}, {}, print, 0, None)
    >>> logits, batch = labelled(scene, "source", "mine()")
    >>> logits, batch.y
    (1, 3)
    """
    name = name_of(scene, stream, term)
    batch = scene.batches[name]
    if batch.y is None:
        raise StreamError(f"{term} needs labels, but the stream {name!r} has none: found Batch(y=None)")
    return scene.outputs[name].logits, batch


def name_of(scene: Scene, stream: str, term: str) -> str:
    """The name by which the step knows `stream`: the labelled one may be called "source" or "train".

    Raises `StreamError` where the step has no such stream.

    >>> name_of(Scene({"source": Output(1, 2)}, {"source": Batch(0)}, {}, print, 0, None), "train", "mine()")
    'source'
    """
    name = called(stream, scene.outputs)
    if name in scene.outputs and name in scene.batches:
        return name
    known = ", ".join(repr(name) for name in scene.outputs) or "none"
    raise StreamError(
        f"{term} reads the stream {stream!r}; this step has: {known}. "
        f"Feed a stream of that name, or give the term stream=... with one of these names."
    )


def called(name: str, names: Collection[str]) -> str:
    """By which of `names` the stream `name` goes there: the labelled stream is called "train" or "source".

    >>> called("train", ["source", "target"]), called("source", ["train"]), called("target", ["train"])
    ('source', 'train', 'target')
    """
    other = {MAIN: SOURCE, SOURCE: MAIN}.get(name, name)
    return other if other in names and name not in names else name


def in_order(streams: Iterable[str]) -> list[str]:
    """The names in the order that numbers them for the draws: the labelled stream has one place, whatever it is called.

    >>> in_order(["train", "target"]), in_order(["target", "source"])
    (['train', 'target'], ['source', 'target'])
    """
    return sorted(streams, key=lambda name: SOURCE if name == MAIN else name)


def prefix(stream: str) -> str:
    """What stands before a metric's name: nothing for the main stream, so that names stay short.

    >>> prefix("train") + "accuracy", prefix("target") + "accuracy"
    ('accuracy', 'target/accuracy')
    """
    return "" if stream == "train" else f"{stream}/"
