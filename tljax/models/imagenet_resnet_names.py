"""ImageNet ResNets in the files of torchvision, timm and transformers."""

import re
from collections.abc import Mapping
from typing import Any

from tljax.checkpoints.keymap import Keymap, size
from tljax.checkpoints.layers import batch_norm, conv, counters, dense
from tljax.models.family import Found, Shapes, image_example, label_config, labels_in, timm_architecture
from tljax.models.wrapping import ModelError

DEPTHS = {
    18: ((2, 2, 2, 2), "basic"),
    34: ((3, 4, 6, 3), "basic"),
    50: ((3, 4, 6, 3), "bottleneck"),
    101: ((3, 4, 23, 3), "bottleneck"),
    152: ((3, 8, 36, 3), "bottleneck"),
}
"""Blocks of each stage and their kind, by depth."""
_PUBLISHED_WIDTHS = {"basic": (64, 128, 256, 512), "bottleneck": (256, 512, 1024, 2048)}
_BLOCK = re.compile(r"layer(\d)\.(\d+)\.conv1\.weight")
_LAYER = re.compile(r"(?:resnet\.)?encoder\.stages\.(\d)\.layers\.(\d+)\.layer\.0\.convolution\.weight")


def keymaps(
    blocks: tuple[int, ...],
    block: str,
    widths: tuple[int, ...],
    stem: int,
    stride_first: bool,
    act: str,
    num_classes: int,
) -> dict[str, Keymap]:
    """transformers with and without the head, torchvision, and timm with the same names and its own configuration."""
    ours = "backbone/stage_{s}/block_{b:02}"
    theirs = "resnet.encoder.stages.{s-1}.layers.{b}"
    rules = (
        *conv("backbone/stem/conv", "resnet.embedder.embedder.convolution"),
        *batch_norm("backbone/stem/norm", "resnet.embedder.embedder.normalization"),
        *conv(ours + "/conv_{n}", theirs + ".layer.{n-1}.convolution"),
        *batch_norm(ours + "/norm_{n}", theirs + ".layer.{n-1}.normalization"),
        *conv(f"{ours}/shortcut_conv", f"{theirs}.shortcut.convolution"),
        *batch_norm(f"{ours}/shortcut_norm", f"{theirs}.shortcut.normalization"),
        *dense("head", "classifier.1"),
    )
    config = {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        "depths": list(blocks),
        "hidden_sizes": list(widths),
        "embedding_size": stem,
        "layer_type": block,
        "hidden_act": act,
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": stride_first,
        "num_channels": size("embedder.convolution.weight", 1),
    }
    whole = Keymap(rules, counters(rules), config=config | label_config(num_classes))
    base = whole.without_prefix("resnet.", config=config | {"architectures": ["ResNetModel"]})
    classic = _classic()
    maps = {"transformers": whole, "transformers-base": base, "torchvision": Keymap(classic, counters(classic))}
    named = [depth for depth, known in DEPTHS.items() if (blocks, block) == known]
    if named and widths == _PUBLISHED_WIDTHS[block] and not stride_first:
        timm = {"architecture": f"resnet{named[0]}", "num_classes": num_classes}
        maps["timm"] = Keymap(classic, counters(classic), config=timm)
    return maps


def _classic() -> tuple:
    ours, theirs = "backbone/stage_{s}/block_{b:02}", "layer{s}.{b}"
    return (
        *conv("backbone/stem/conv", "conv1"),
        *batch_norm("backbone/stem/norm", "bn1"),
        *conv(ours + "/conv_{n}", theirs + ".conv{n}"),
        *batch_norm(ours + "/norm_{n}", theirs + ".bn{n}"),
        *conv(f"{ours}/shortcut_conv", f"{theirs}.downsample.0"),
        *batch_norm(f"{ours}/shortcut_norm", f"{theirs}.downsample.1"),
        *dense("head", "fc"),
    )


def from_config(config: Mapping[str, Any]) -> Found | None:
    """From config.json of transformers (model_type "resnet") or timm (architecture "resnet50")."""
    timm = re.fullmatch(r"resnet(\d+)", timm_architecture(config))
    if timm and int(timm[1]) in DEPTHS:
        return Found({"depth": int(timm[1])}, image_example(config), config.get("num_classes"))
    if config.get("model_type") != "resnet":
        return None
    if config.get("downsample_in_first_stage"):
        raise ModelError(
            "config.json: downsample_in_first_stage is true; imagenet_resnet keeps the size in its first stage"
        )
    options = {
        "depth": tuple(config.get("depths", (3, 4, 6, 3))),
        "block": config.get("layer_type", "bottleneck"),
        "widths": tuple(config.get("hidden_sizes", (256, 512, 1024, 2048))),
        "stem": config.get("embedding_size", 64),
        "stride_first": bool(config.get("downsample_in_bottleneck", False)),
        "act": config.get("hidden_act", "relu"),
    }
    return Found(_named(options), image_example(config), labels_in(config))


def recognise(shapes: Shapes) -> Found | None:
    """Stages of blocks after a 7x7 stem, by the names of torchvision and timm, or of transformers.

    Where a bottleneck has its stride no shape tells; taken is the 3x3 convolution, as in all three projects.

    >>> recognise({"conv1.weight": (16, 3, 3, 3)}) is None
    True
    """
    for pattern, first, stem, last in (
        (_BLOCK, 1, "conv1.weight", "layer{}.0.bn{}.weight"),
        (_LAYER, 0, "embedder.embedder.convolution.weight", "encoder.stages.{}.layers.0.layer.{}.normalization.weight"),
    ):
        prefix = "resnet." if f"resnet.{stem}" in shapes else ""
        found = [(int(m[1]) - first, int(m[2])) for name in shapes if (m := pattern.fullmatch(name))]
        kernel = shapes.get(prefix + stem, ())
        stages = sorted({stage for stage, _ in found})
        if kernel[2:] != (7, 7) or stages != list(range(len(stages))) or not stages:
            continue
        third = shapes.get(prefix + last.format(first, 3 - (1 - first)))
        block, n = ("bottleneck", 3) if third else ("basic", 2)
        norms = [shapes.get(prefix + last.format(s + first, n - (1 - first)), (0,)) for s in stages]
        options = {
            "depth": tuple(max(b for stage, b in found if stage == s) + 1 for s in stages),
            "block": block,
            "widths": tuple(shape[0] for shape in norms),
            "stem": kernel[0],
        }
        return Found(_named(options), image_example({"num_channels": kernel[1]}))
    return None


def _named(options: dict[str, Any]) -> dict[str, Any]:
    """The same with the depth as a number, where it has one and the sizes are the usual."""
    for depth, known in DEPTHS.items():
        if (options["depth"], options["block"]) == known and options["widths"] == _PUBLISHED_WIDTHS[known[1]]:
            rest = {k: v for k, v in options.items() if k not in ("block", "widths", "depth")}
            return {"depth": depth, **rest}
    return options
