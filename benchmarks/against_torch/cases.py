"""The models, the methods, and the data of the benchmark."""

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import tljax as tl


class Case(NamedTuple):
    """A model as both sides get it."""

    build: Callable[[], tl.Model]
    batch: int
    """On CPU."""
    gpu_batch: int
    steps: int
    """Of a block, on CPU: enough to take some tenths of a second."""
    shape: tuple[int, ...] = ()
    """Of an image or a vector; () for sentences of `length` tokens."""
    classes: int = 10
    length: int = 0
    vocab: int = 30522
    channels_last: bool = False
    """What torch is given: the faster layout for convolutions on CPU."""
    methods: tuple[str, ...] = ("full", "head")
    slack: float = 1.0
    """Times the tolerance of losses that have seen a gradient."""


_ALL = ("full", "head", "lora")
_QUIET = {"dropout": 0.0, "attention_dropout": 0.0}


def _image(size: int) -> tuple[int, int, int]:
    return (size, size, 3)


CASES = {
    "net": Case(lambda: tl.models.mlp((20,), 10), 32, 32, 1000, (10,), methods=("full",)),
    "mlp": Case(lambda: tl.models.mlp((512, 512), 10), 128, 128, 40, (784,)),
    "probe": Case(lambda: tl.models.mlp((), 10), 128, 128, 500, (512,), methods=("full",)),
    "resnet18": Case(lambda: tl.models.imagenet_resnet(18, 10), 64, 256, 1, _image(32), channels_last=True),
    "resnet50": Case(lambda: tl.models.imagenet_resnet(50, 10), 4, 128, 1, _image(224), channels_last=True, slack=20),
    "vit-s": Case(lambda: tl.models.vit("s16", 10, epsilon=1e-12), 8, 128, 1, _image(224), methods=_ALL),
    "vit-b": Case(lambda: tl.models.vit("b16", 10, epsilon=1e-12), 2, 64, 1, _image(224), methods=_ALL),
    "minilm": Case(
        lambda: tl.models.bert("minilm-l6", 2, pooler=False, **_QUIET), 16, 128, 1, classes=2, length=128, methods=_ALL
    ),
    "bert-base": Case(lambda: tl.models.bert("base", 2, **_QUIET), 4, 64, 1, classes=2, length=128, methods=_ALL),
}
"""`probe` is a linear head on features that were computed before. ResNet-50 with BatchNorm over four images magnifies
rounding: the second losses of torch's own two layouts differ by 8e-4, the third by 5e-3, the fourth by 2e-2."""


def data(case: Case, name: str, count: int) -> tuple[Any, np.ndarray]:
    """`count` examples of random numbers, with labels that can be learnt a little."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if case.length:
        ids = rng.integers(1000, case.vocab, (count, case.length), dtype=np.int32)
        real = np.arange(case.length)[None] < rng.integers(case.length // 2, case.length + 1, count)[:, None]
        return {"ids": ids, "mask": real.astype(np.int32)}, (ids[:, 1] % case.classes).astype(np.int32)
    x = rng.normal(size=(count, *case.shape)).astype(np.float32)
    flat = x.reshape(count, -1)[:, :512]
    return x, np.argmax(flat @ rng.normal(size=(flat.shape[1], case.classes)), axis=1).astype(np.int32)
