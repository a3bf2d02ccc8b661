"""MobileNetV1 in the files of transformers, and in a smaller form often found in torch."""

from collections.abc import Mapping
from typing import Any

from tljax.checkpoints.keymap import Keymap, Rule, size
from tljax.checkpoints.layers import batch_norm, conv, counters, dense
from tljax.models.family import Found, Shapes, image_example, label_config, labels_in

_STAGES = (("stage1", 1, range(5)), ("stage2", 0, range(5, 11)), ("stage3", 0, range(11, 13)))
"""In torch: the name of a stage, the place of its first block, and which of ours it holds."""
_BLOCKS = 13


def keymaps(
    width: float, act: str, padding: str, epsilon: float, min_channels: int, dropout: float, num_classes: int
) -> dict[str, Keymap]:
    """transformers with and without the head, and torch's ``stage1.0.0.weight``."""
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
    torch = _torch()
    maps = {"torch": Keymap(torch, counters(torch))}
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


def from_config(config: Mapping[str, Any]) -> Found | None:
    """From config.json of transformers (model_type "mobilenet_v1")."""
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
    1e-5, by those of transformers as published.

    >>> recognise({"stage1.0.0.weight": (8, 3, 3, 3)}) is None
    True
    """
    torch = {"act": "leaky_relu_0.1", "padding": "even", "epsilon": 1e-5}
    prefix = "mobilenet_v1." if "mobilenet_v1.conv_stem.convolution.weight" in shapes else ""
    for stem, last, options in (
        ("stage1.0.0.weight", "stage3.1.3.weight", torch),
        (f"{prefix}conv_stem.convolution.weight", f"{prefix}layer.25.convolution.weight", {}),
    ):
        if len(shapes.get(stem, ())) == 4 and len(shapes.get(last, ())) == 4:
            return Found({"width": shapes[last][0] / 1024, **options}, image_example({"num_channels": shapes[stem][1]}))
    return None
