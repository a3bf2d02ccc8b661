"""The models by name, for command lines and configurations."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tljax.models.bert import bert
from tljax.models.bert_names import example as _sentence
from tljax.models.convnext import convnext
from tljax.models.imagenet_resnet import imagenet_resnet
from tljax.models.lenet import lenet
from tljax.models.mlp import mlp
from tljax.models.mobilenet import mobilenet_v1
from tljax.models.resnet import resnet
from tljax.models.vit import vit
from tljax.models.wide_resnet import wide_resnet
from tljax.models.wrapping import ModelError
from tljax.tree import nearest
from tljax.types import Model


class Entry(NamedTuple):
    """A model of the catalogue."""

    constructor: Callable[..., Model]
    """Takes `num_classes` and keyword options."""
    summary: str
    """What it is, in a line."""
    published: int | None = None
    """The published number of parameters, statistics not counted, with the constructor's number of classes and inputs
    like `example`."""
    example: Any = None
    """A batch of inputs as published, of which only shapes and dtypes matter; None if any will do."""
    headless: bool = False
    """Whether the published number does not count the head."""


def _images(size: int, channels: int = 3) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)


def _imagenet(variant: str, **options: Any) -> Callable[..., Model]:
    return partial(vit, variant, num_classes=1000, **options)


def _deit(variant: str) -> Callable[..., Model]:
    return _imagenet(variant, distillation=True, pool="cls+distillation")


def _dinov2(variant: str, **options: Any) -> Callable[..., Model]:
    return _imagenet(variant, layer_scale=1.0, mask_token=True, pool="cls+mean", **options)


def _clip(variant: str, projection: int) -> Callable[..., Model]:
    return _imagenet(variant, pre_norm=True, act="quick_gelu", epsilon=1e-5, projection=projection)


def _text(variant: str, summary: str, published: int, **options: Any) -> Entry:
    return Entry(partial(bert, variant, **options), f"{summary}, and a head", published, _sentence(), headless=True)


def _tower(variant: str, projection: int, summary: str, published: int) -> Entry:
    return Entry(
        _clip(variant, projection), f"CLIP's image tower, {summary}, and a head", published, _images(224), True
    )


CATALOG = {
    "mlp": Entry(mlp, "multilayer perceptron; options hidden, activation, norm, dropout"),
    "lenet": Entry(lenet, "two convolutions and a dense layer, for images of 8 to 32 pixels", 648_226, _images(28, 1)),
    "resnet8": Entry(partial(resnet, 8), "the smallest CIFAR ResNet, 0.08 M parameters", None, _images(32)),
    "resnet20": Entry(partial(resnet, 20), "CIFAR ResNet, 0.27 M parameters", 269_722, _images(32)),
    "resnet32": Entry(partial(resnet, 32), "CIFAR ResNet, 0.46 M parameters", 464_154, _images(32)),
    "resnet44": Entry(partial(resnet, 44), "CIFAR ResNet, 0.66 M parameters", 658_586, _images(32)),
    "resnet56": Entry(partial(resnet, 56), "CIFAR ResNet, 0.85 M parameters", 853_018, _images(32)),
    "resnet110": Entry(partial(resnet, 110), "CIFAR ResNet, 1.7 M parameters", 1_727_962, _images(32)),
    "wide-resnet16-4": Entry(
        partial(wide_resnet, 16, widen=4), "CIFAR wide ResNet, 2.7 M parameters", 2_748_890, _images(32)
    ),
    "wide-resnet28-10": Entry(
        partial(wide_resnet, 28, widen=10), "CIFAR wide ResNet, 36 M parameters", 36_479_194, _images(32)
    ),
    "resnet18": Entry(partial(imagenet_resnet, 18), "ImageNet ResNet, 12 M parameters", 11_689_512, _images(224)),
    "resnet34": Entry(partial(imagenet_resnet, 34), "ImageNet ResNet, 22 M parameters", 21_797_672, _images(224)),
    "resnet50": Entry(partial(imagenet_resnet, 50), "ImageNet ResNet, 26 M parameters", 25_557_032, _images(224)),
    "resnet101": Entry(partial(imagenet_resnet, 101), "ImageNet ResNet, 45 M parameters", 44_549_160, _images(224)),
    "resnet152": Entry(partial(imagenet_resnet, 152), "ImageNet ResNet, 60 M parameters", 60_192_808, _images(224)),
    "mobilenet-v1-0.25": Entry(partial(mobilenet_v1, 0.25), "MobileNetV1, 0.47 M parameters", 470_072, _images(224)),
    "mobilenet-v1-1": Entry(partial(mobilenet_v1, 1.0), "MobileNetV1, 4.2 M parameters", 4_231_976, _images(224)),
    "convnext-tiny": Entry(partial(convnext, "tiny"), "ConvNeXt, 29 M parameters", 28_589_128, _images(224)),
    "convnext-small": Entry(partial(convnext, "small"), "ConvNeXt, 50 M parameters", 50_223_688, _images(224)),
    "convnext-base": Entry(partial(convnext, "base"), "ConvNeXt, 89 M parameters", 88_591_464, _images(224)),
    "convnext-large": Entry(partial(convnext, "large"), "ConvNeXt, 198 M parameters", 197_767_336, _images(224)),
    "vit-ti": Entry(
        partial(vit, "ti"),
        "vision transformer, width 192, 12 blocks, 5.4 M parameters; options patch, pool, depth ...",
    ),
    "vit-s": Entry(partial(vit, "s"), "vision transformer, width 384, 12 blocks, 21 M parameters"),
    "vit-b": Entry(partial(vit, "b"), "vision transformer, width 768, 12 blocks, 85 M parameters"),
    "vit-ti16": Entry(_imagenet("ti16"), "ImageNet ViT and DeiT, 5.7 M parameters", 5_717_416, _images(224)),
    "vit-s16": Entry(_imagenet("s16"), "ImageNet ViT and DeiT, 22 M parameters", 22_050_664, _images(224)),
    "vit-b16": Entry(_imagenet("b16"), "ImageNet ViT and DeiT, 87 M parameters", 86_567_656, _images(224)),
    "vit-b32": Entry(_imagenet("b32"), "ImageNet ViT, 88 M parameters", 88_224_232, _images(224)),
    "vit-l16": Entry(_imagenet("l16"), "ImageNet ViT, 304 M parameters", 304_326_632, _images(224)),
    "deit-ti16": Entry(_deit("ti16"), "distilled DeiT, 5.9 M parameters", 5_910_800, _images(224)),
    "deit-s16": Entry(_deit("s16"), "distilled DeiT, 22 M parameters", 22_436_432, _images(224)),
    "deit-b16": Entry(_deit("b16"), "distilled DeiT, 87 M parameters", 87_338_192, _images(224)),
    "dinov2-s14": Entry(_dinov2("s14"), "DINOv2 with a classifier, 23 M parameters", 22_825_576, _images(518)),
    "dinov2-b14": Entry(_dinov2("b14"), "DINOv2 with a classifier, 88 M parameters", 88_117_480, _images(518)),
    "dinov2-l14": Entry(_dinov2("l14"), "DINOv2 with a classifier, 306 M parameters", 306_417_640, _images(518)),
    "dinov2-g14": Entry(
        _dinov2("g14", gated=True, act="silu", hidden=4096),
        "DINOv2 giant with SwiGLU, 1.1 G parameters, and a head",
        1_136_480_768,
        _images(518),
        headless=True,
    ),
    "clip-b32": _tower("b32", 512, "88 M parameters", 87_849_216),
    "clip-b16": _tower("b16", 512, "86 M parameters", 86_192_640),
    "clip-l14": _tower("l14", 768, "304 M parameters", 303_966_208),
    "bert-tiny": _text("tiny", "BERT of 2 blocks, 4.4 M parameters", 4_385_920),
    "bert-base": _text("base", "BERT, 109 M parameters", 109_482_240),
    "bert-large": _text("large", "BERT of 24 blocks, 335 M parameters", 335_141_888),
    "roberta-base": _text("roberta-base", "RoBERTa, 125 M parameters", 124_645_632),
    "roberta-large": _text("roberta-large", "RoBERTa of 24 blocks, 355 M parameters", 355_359_744),
    "distilbert": _text("distilbert", "DistilBERT of 6 blocks, 66 M parameters", 66_362_880, pool="cls"),
    "minilm-l6": _text("minilm-l6", "MiniLM of 6 blocks, a sentence encoder, 23 M parameters", 22_713_216),
    "minilm-l12": _text("minilm-l12", "MiniLM of 12 blocks, a sentence encoder, 33 M parameters", 33_360_000),
}
"""Every model that `build` knows, by name."""


def build(name: str, num_classes: int, **options: Any) -> Model:
    """The model called `name` in `CATALOG`, with the options of its constructor.

    Raises `ModelError` for an unknown name or option, with the nearest names and all of them.

    >>> build("resnet20", num_classes=5, width=8).name
    'resnet20'
    >>> build("resnet21", num_classes=5)
    Traceback (most recent call last):
    tljax.models.wrapping.ModelError: no model is called 'resnet21'; the nearest are resnet...; there are mlp, ...
    """
    if name not in CATALOG:
        raise ModelError(
            f"no model is called {name!r}; the nearest are {', '.join(nearest(name, CATALOG)) or 'none'}; "
            f"there are {', '.join(CATALOG)}"
        )
    constructor = CATALOG[name].constructor
    known = [option for option in inspect.signature(constructor).parameters if option != "num_classes"]
    for option in options:
        if option not in known:
            raise ModelError(f"{name} has no option {option!r}; it has {', '.join(known)}")
    return constructor(num_classes=num_classes, **options)
