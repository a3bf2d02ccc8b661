"""ConvNeXt in the files of transformers, timm, torchvision and the authors."""

import re
from collections.abc import Mapping
from typing import Any

from tljax.checkpoints.keymap import Keymap, Rule, size
from tljax.checkpoints.layers import conv, dense, leaf, norm
from tljax.checkpoints.layouts import squeezed
from tljax.models.family import Found, Shapes, image_example, label_config, labels_in, timm_architecture
from tljax.models.wrapping import ModelError

VARIANTS = {
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
    "xlarge": ((3, 3, 27, 3), (256, 512, 1024, 2048)),
}
"""Blocks and channels of each stage."""
_BLOCK, _DOWNSAMPLE = "backbone/stage_{s}/block_{b:02}", "backbone/stage_{s}/downsample"


def keymaps(
    depths: tuple[int, ...],
    widths: tuple[int, ...],
    patch: int,
    layer_scale: float,
    epsilon: float,
    num_classes: int,
) -> dict[str, Keymap]:
    """transformers with and without the head, timm, torchvision, and the authors' own names."""
    config = {
        "architectures": ["ConvNextForImageClassification"],
        "model_type": "convnext",
        "depths": list(depths),
        "hidden_sizes": list(widths),
        "num_stages": len(depths),
        "patch_size": patch,
        "hidden_act": "gelu",
        "layer_scale_init_value": float(layer_scale),
        "layer_norm_eps": epsilon,
        "num_channels": size("patch_embeddings.weight", 1),
    }
    whole = Keymap(_transformers(), config=config | label_config(num_classes))
    return {
        "transformers": whole,
        "transformers-base": whole.without_prefix("convnext.", config=config | {"architectures": ["ConvNextModel"]}),
        "timm": Keymap(_timm(), config=_timm_config(depths, widths, num_classes)),
        "torchvision": Keymap(_torchvision(len(depths))),
        "facebook": Keymap(_facebook()),
    }


def _transformers() -> tuple[Rule, ...]:
    stage = "convnext.encoder.stages.{s-1}"
    block = stage + ".layers.{b}"
    return (
        *conv("backbone/stem/conv", "convnext.embeddings.patch_embeddings"),
        *norm("backbone/stem/norm", "convnext.embeddings.layernorm"),
        *norm(f"{_DOWNSAMPLE}/norm", f"{stage}.downsampling_layer.0"),
        *conv(f"{_DOWNSAMPLE}/conv", f"{stage}.downsampling_layer.1"),
        *conv(f"{_BLOCK}/conv", f"{block}.dwconv"),
        *norm(f"{_BLOCK}/norm", f"{block}.layernorm"),
        *dense(_BLOCK + "/dense_{n}", block + ".pwconv{n}"),
        *leaf(f"{_BLOCK}/scale", f"{block}.layer_scale_parameter"),
        *norm("backbone/norm", "convnext.layernorm"),
        *dense("head", "classifier"),
    )


def _timm() -> tuple[Rule, ...]:
    stage = "stages.{s-1}"
    block = stage + ".blocks.{b}"
    return (
        *conv("backbone/stem/conv", "stem.0"),
        *norm("backbone/stem/norm", "stem.1"),
        *norm(f"{_DOWNSAMPLE}/norm", f"{stage}.downsample.0"),
        *conv(f"{_DOWNSAMPLE}/conv", f"{stage}.downsample.1"),
        *conv(f"{_BLOCK}/conv", f"{block}.conv_dw"),
        *norm(f"{_BLOCK}/norm", f"{block}.norm"),
        *dense(_BLOCK + "/dense_{n}", block + ".mlp.fc{n}"),
        *leaf(f"{_BLOCK}/scale", f"{block}.gamma"),
        *norm("backbone/norm", "head.norm"),
        *dense("head", "head.fc"),
    )


def _torchvision(stages: int) -> tuple[Rule, ...]:
    rules = [
        *conv("backbone/stem/conv", "features.0.0"),
        *norm("backbone/stem/norm", "features.0.1"),
        *norm("backbone/norm", "classifier.0"),
        *dense("head", "classifier.2"),
    ]
    for stage in range(1, stages + 1):  # features are a list: stem, stage 1, downsampling, stage 2 ...
        ours = f"backbone/stage_{stage}"
        block = f"features.{2 * stage - 1}" + ".{b}"
        rules += [
            *norm(f"{ours}/downsample/norm", f"features.{2 * stage - 2}.0"),
            *conv(f"{ours}/downsample/conv", f"features.{2 * stage - 2}.1"),
            *conv(ours + "/block_{b:02}/conv", f"{block}.block.0"),
            *norm(ours + "/block_{b:02}/norm", f"{block}.block.2"),
            *dense(ours + "/block_{b:02}/dense_1", f"{block}.block.3"),
            *dense(ours + "/block_{b:02}/dense_2", f"{block}.block.5"),
            *leaf(ours + "/block_{b:02}/scale", f"{block}.layer_scale", squeezed(1, 2)),
        ]
    return tuple(rules)


def _facebook() -> tuple[Rule, ...]:
    block = "stages.{s-1}.{b}"
    return (
        *conv("backbone/stem/conv", "downsample_layers.0.0"),
        *norm("backbone/stem/norm", "downsample_layers.0.1"),
        *norm(f"{_DOWNSAMPLE}/norm", "downsample_layers.{s-1}.0"),
        *conv(f"{_DOWNSAMPLE}/conv", "downsample_layers.{s-1}.1"),
        *conv(f"{_BLOCK}/conv", f"{block}.dwconv"),
        *norm(f"{_BLOCK}/norm", f"{block}.norm"),
        *dense(_BLOCK + "/dense_{n}", block + ".pwconv{n}"),
        *leaf(f"{_BLOCK}/scale", f"{block}.gamma"),
        *norm("backbone/norm", "norm"),
        *dense("head", "head"),
    )


def _timm_config(depths: tuple[int, ...], widths: tuple[int, ...], num_classes: int) -> dict[str, Any] | None:
    names = [name for name, sizes in VARIANTS.items() if sizes == (depths, widths)]
    return {"architecture": f"convnext_{names[0]}", "num_classes": num_classes} if names else None


def from_config(config: Mapping[str, Any]) -> Found | None:
    """From config.json of transformers (model_type "convnext") or timm (architecture "convnext_tiny")."""
    timm = re.fullmatch(r"convnext_(\w+)", timm_architecture(config))
    if timm and timm[1] in VARIANTS:
        return Found({"variant": timm[1]}, image_example(config), config.get("num_classes"))
    if config.get("model_type") != "convnext":
        return None
    if config.get("hidden_act", "gelu") != "gelu":
        raise ModelError(f"config.json: hidden_act is {config['hidden_act']!r}; convnext has 'gelu'")
    depths = tuple(config.get("depths") or VARIANTS["tiny"][0])
    widths = tuple(config.get("hidden_sizes") or VARIANTS["tiny"][1])
    options = {
        **_named(depths, widths),
        "patch": config.get("patch_size", 4),
        "layer_scale": config.get("layer_scale_init_value", 1e-6),
        "epsilon": config.get("layer_norm_eps", 1e-12),
    }
    return Found(options, image_example(config), labels_in(config))


_FORMS = (
    (r"(convnext\.)?encoder\.stages\.(\d)\.layers\.(\d+)\.dwconv\.weight", "embeddings.patch_embeddings.weight", 1e-12),
    (r"()stages\.(\d)\.blocks\.(\d+)\.conv_dw\.weight", "stem.0.weight", 1e-6),
    (r"()features\.(\d)\.(\d+)\.block\.0\.weight", "features.0.0.weight", 1e-6),
    (r"()stages\.(\d)\.(\d+)\.dwconv\.weight", "downsample_layers.0.0.weight", 1e-6),
)
"""The depthwise kernels of each convention, its stem, and its last epsilon."""


def recognise(shapes: Shapes) -> Found | None:
    """Stages of depthwise 7x7 convolutions after a stem of patches, by the names of any of the keymaps.

    >>> recognise({"stem.0.weight": (96, 3, 4, 4)}) is None
    True
    """
    for pattern, stem, epsilon in _FORMS:
        found = [(m, shapes[name]) for name in shapes if (m := re.fullmatch(pattern, name))]
        kernel = shapes.get((found[0][0][1] or "") + stem, ()) if found else ()
        if len(kernel) != 4 or any(shape[1:] != (1, 7, 7) for _, shape in found):
            continue
        stages = sorted({int(m[2]) for m, _ in found})
        depths = tuple(sum(int(m[2]) == stage for m, _ in found) for stage in stages)
        widths = tuple(next(shape[0] for m, shape in found if int(m[2]) == stage) for stage in stages)
        scaled = any(name.endswith(("gamma", "layer_scale", "layer_scale_parameter")) for name in shapes)
        options = {**_named(depths, widths), "patch": kernel[2], "epsilon": epsilon}
        options |= {} if scaled else {"layer_scale": 0.0}
        return Found(options, image_example({"num_channels": kernel[1]}))
    return None


def _named(depths: tuple[int, ...], widths: tuple[int, ...]) -> dict[str, Any]:
    for name, sizes in VARIANTS.items():
        if sizes == (depths, widths):
            return {"variant": name}
    return {"depths": depths, "widths": widths}
