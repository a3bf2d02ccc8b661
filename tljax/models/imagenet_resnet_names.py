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


_FORMS = (
    (r"()layer(\d)\.(\d+)\.conv1\.weight", 1, "conv1.weight", "layer{}.0.conv{}.weight"),
    (
        r"(resnet\.)?encoder\.stages\.(\d)\.layers\.(\d+)\.layer\.0\.convolution\.weight",
        0,
        "embedder.embedder.convolution.weight",
        "encoder.stages.{}.layers.0.layer.{}.convolution.weight",
    ),
)
"""For each way of naming: the first kernel of a block, what counting begins at, the stem, a kernel of a first block."""


def recognise(shapes: Shapes) -> Found | None:
    """Stages of blocks after a 7x7 stem, by the names of torchvision and timm, or of transformers.

    Where a bottleneck has its stride no shape tells; taken is the 3x3 convolution, as in all three projects.

    >>> recognise({"conv1.weight": (16, 3, 3, 3)}) is None
    True
    """
    for pattern, first, stem, kernel in _FORMS:
        blocks = [m for name in shapes if (m := re.fullmatch(pattern, name))]
        prefix = (blocks[0][1] or "") if blocks else ""
        stem_shape = shapes.get(prefix + stem, ())
        stages = sorted({int(m[2]) for m in blocks})
        if stem_shape[2:] != (7, 7) or stages != list(range(first, first + len(stages))):
            continue
        found = [[shapes.get(prefix + kernel.format(s, first + i), ()) for i in range(3)] for s in stages]
        kinds = {_kind(kernels) for kernels in found}
        if len(kinds) != 1 or None in kinds:
            continue
        options = {
            "depth": tuple(sum(int(m[2]) == stage for m in blocks) for stage in stages),
            "block": kinds.pop(),
            "widths": tuple((kernels[2] or kernels[1])[0] for kernels in found),
            "stem": stem_shape[0],
        }
        return Found(_named(options), image_example({"num_channels": stem_shape[1]}))
    return None


def _kind(kernels: list[tuple[int, ...]]) -> str | None:
    """Which block has these kernels: "basic", "bottleneck", or None where groups or other widths change it."""
    one, two, three = kernels
    if not three:
        return "basic" if one[2:] == two[2:] == (3, 3) and two[:2] == (one[0], one[0]) else None
    inner = one[0]
    plain = one[2:] == three[2:] == (1, 1) and two == (inner, inner, 3, 3) and three[:2] == (4 * inner, inner)
    return "bottleneck" if plain else None


def _named(options: dict[str, Any]) -> dict[str, Any]:
    """The same with the depth as a number, where it has one and the sizes are the usual."""
    for depth, known in DEPTHS.items():
        if (options["depth"], options["block"]) == known and options["widths"] == _PUBLISHED_WIDTHS[known[1]]:
            rest = {k: v for k, v in options.items() if k not in ("block", "widths", "depth")}
            return {"depth": depth, **rest}
    return options
