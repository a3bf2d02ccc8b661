"""MobileNetV1 in the files of transformers, and in a smaller form often found in torch."""

from collections.abc import Mapping
from typing import Any

from tljax.checkpoints.keymap import Keymap, Rule, size
from tljax.checkpoints.layers import batch_norm, conv, counters, dense
from tljax.models.family import Found, Shapes, image_example, label_config, labels_in, timm_architecture

_STAGES = (("stage1", 1, range(5)), ("stage2", 0, range(5, 11)), ("stage3", 0, range(11, 13)))
"""In torch: the name of a stage, the place of its first block, and which of ours it holds."""
_TIMM_STAGES = (range(1), range(1, 3), range(3, 5), range(5, 11), range(11, 13))
"""In timm: which of our blocks each stage holds."""
_TIMM = {"act": "relu6", "padding": "even", "epsilon": 1e-5}
_TORCH = _TIMM | {"act": "leaky_relu_0.1"}
_BLOCKS = 13


def keymaps(
    width: float, act: str, padding: str, epsilon: float, min_channels: int, dropout: float, num_classes: int
) -> dict[str, Keymap]:
    """transformers with and without the head, timm, and torch's ``stage1.0.0.weight``."""
    rules = _transformers()
    config = {
        "architectures": ["MobileNetV1ForImageClassification"],
        "model_type": "mobilenet_v1",
        "depth_multiplier": float(width),
        "min_depth": min_channels,
        "hidden_act": act,
        "tf_padding": padding == "same",
        "layer_norm_eps": epsilon,
        "classifier_dropout_prob": float(dropout),
        "num_channels": size("conv_stem.convolution.weight", 1),
    }
    whole = Keymap(rules, counters(rules), config=config | label_config(num_classes))
    base = whole.without_prefix("mobilenet_v1.", config=config | {"architectures": ["MobileNetV1Model"]})
    torch, timm = _torch(), _timm()
    architecture = {"architecture": f"mobilenetv1_{round(100 * width)}", "num_classes": num_classes}
    maps = {
        "torch": Keymap(torch, counters(torch)),
        "timm": Keymap(timm, counters(timm), config=architecture if width in (1.0, 1.25) else None),
    }
    if act == "leaky_relu_0.1":  # transformers has none of this slope
        return maps
    return {"transformers": whole, "transformers-base": base, **maps}


def _transformers() -> tuple[Rule, ...]:
    rules = [
        *conv("backbone/stem/conv", "mobilenet_v1.conv_stem.convolution"),
        *batch_norm("backbone/stem/norm", "mobilenet_v1.conv_stem.normalization"),
        *dense("head", "classifier"),
    ]
    for i in range(_BLOCKS):
        ours, first, second = (
            f"backbone/block_{i:02d}",
            f"mobilenet_v1.layer.{2 * i}",
            f"mobilenet_v1.layer.{2 * i + 1}",
        )
        rules += [
            *conv(f"{ours}/depthwise/conv", f"{first}.convolution"),
            *batch_norm(f"{ours}/depthwise/norm", f"{first}.normalization"),
            *conv(f"{ours}/conv", f"{second}.convolution"),
            *batch_norm(f"{ours}/norm", f"{second}.normalization"),
        ]
    return tuple(rules)


def _torch() -> tuple[Rule, ...]:
    rules = [
        *conv("backbone/stem/conv", "stage1.0.0"),
        *batch_norm("backbone/stem/norm", "stage1.0.1"),
        *dense("head", "fc"),
    ]
    for stage, first, blocks in _STAGES:
        for i in blocks:
            ours, theirs = f"backbone/block_{i:02d}", f"{stage}.{i - blocks.start + first}"
            rules += [
                *conv(f"{ours}/depthwise/conv", f"{theirs}.0"),
                *batch_norm(f"{ours}/depthwise/norm", f"{theirs}.1"),
                *conv(f"{ours}/conv", f"{theirs}.3"),
                *batch_norm(f"{ours}/norm", f"{theirs}.4"),
            ]
    return tuple(rules)


def _timm() -> tuple[Rule, ...]:
    rules = [
        *conv("backbone/stem/conv", "conv_stem"),
        *batch_norm("backbone/stem/norm", "bn1"),
        *dense("head", "classifier"),
    ]
    for stage, blocks in enumerate(_TIMM_STAGES):
        for i in blocks:
            ours, theirs = f"backbone/block_{i:02d}", f"blocks.{stage}.{i - blocks.start}"
            rules += [
                *conv(f"{ours}/depthwise/conv", f"{theirs}.conv_dw"),
                *batch_norm(f"{ours}/depthwise/norm", f"{theirs}.bn1"),
                *conv(f"{ours}/conv", f"{theirs}.conv_pw"),
                *batch_norm(f"{ours}/norm", f"{theirs}.bn2"),
            ]
    return tuple(rules)


def from_config(config: Mapping[str, Any]) -> Found | None:
    """From config.json of transformers (model_type "mobilenet_v1") or timm (architecture "mobilenetv1_100")."""
    timm = {"mobilenetv1_100": 1.0, "mobilenetv1_125": 1.25}.get(timm_architecture(config))
    if timm is not None:
        return Found({"width": timm, **_TIMM}, image_example(config), config.get("num_classes"))
    if config.get("model_type") != "mobilenet_v1":
        return None
    options = {
        "width": config.get("depth_multiplier", 1.0),
        "act": config.get("hidden_act", "relu6"),
        "padding": "same" if config.get("tf_padding", True) else "even",
        "epsilon": config.get("layer_norm_eps", 1e-3),
        "min_channels": config.get("min_depth", 8),
    }
    return Found(options, image_example(config), labels_in(config))


def recognise(shapes: Shapes) -> Found | None:
    """Thirteen pairs of convolutions, by the names of any of the keymaps.

    No shape tells activation, padding and epsilon: by the names of torch they are LeakyReLU with slope 0.1, even and
    1e-5; by those of timm ReLU6, even and 1e-5; by those of transformers as published.

    >>> recognise({"stage1.0.0.weight": (8, 3, 3, 3)}) is None
    True
    """
    prefix = "mobilenet_v1." if "mobilenet_v1.conv_stem.convolution.weight" in shapes else ""
    for stem, last, options in (
        ("stage1.0.0.weight", "stage3.1.3.weight", _TORCH),
        ("conv_stem.weight", "blocks.4.1.conv_pw.weight", _TIMM),
        (f"{prefix}conv_stem.convolution.weight", f"{prefix}layer.25.convolution.weight", {}),
    ):
        if len(shapes.get(stem, ())) == 4 and len(shapes.get(last, ())) == 4:
            sizes = {"width": _width(shapes[last][0]), "min_channels": min(8, shapes[stem][0])}
            return Found({**sizes, **options}, image_example({"num_channels": shapes[stem][1]}))
    return None


def _width(channels: int) -> float:
    """The roundest factor that makes 1024 channels these."""
    return next(w for w in (round(channels / 1024, 2), channels / 1024) if int(1024 * w) == channels)
