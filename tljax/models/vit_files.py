"""Which vision transformer a file holds."""

import math
import re
from collections.abc import Mapping
from typing import Any

from tljax.models.family import Found, Shapes, image_example, labels_in, timm_architecture
from tljax.models.vit_positions import prefixes
from tljax.models.vit_sizes import VARIANTS, gated_hidden, named
from tljax.models.wrapping import ModelError

_CLIP = ("clip", "clip_vision_model")
_DINO = ("dinov2", "dinov2_with_registers")


def from_transformers(config: Mapping[str, Any]) -> Found | None:
    """From config.json of transformers: ViT, DeiT, DINOv2 with and without registers, CLIP or its image tower."""
    kind = config.get("model_type")
    if kind not in ("vit", "deit", *_DINO, *_CLIP):
        return None
    first = next(iter(config.get("architectures") or [""]))
    tower = config.get("vision_config") or {} if kind == "clip" else config
    if not isinstance(tower.get("patch_size", 16), int):
        raise ModelError(f"config.json: patch_size is {tower['patch_size']}; vit has square patches")
    clip = kind in _CLIP
    width, depth, heads = tower.get("hidden_size", 768), tower.get("num_hidden_layers", 12), 12
    options = {
        **_core(width, depth, tower.get("num_attention_heads", heads)),
        "patch": tower.get("patch_size", 32 if clip else 16),
        "hidden": tower.get("intermediate_size", 3072) if kind not in _DINO else tower.get("mlp_ratio", 4) * width,
        "act": tower.get("hidden_act", "quick_gelu" if clip else "gelu"),
        "epsilon": tower.get("layer_norm_eps", 1e-5 if clip else 1e-6 if kind in _DINO else 1e-12),
        **({} if clip else {"qkv_bias": tower.get("qkv_bias", True)}),
        **_kind_options(str(kind), first, config, tower),
    }
    return Found(options, image_example({"image_size": 224, "num_channels": 3} | dict(tower)), labels_in(config))


def _kind_options(kind: str, first: str, config: Mapping[str, Any], tower: Mapping[str, Any]) -> dict[str, Any]:
    if kind == "deit":
        return {"distillation": True, "pool": "cls" if first == "DeiTForImageClassification" else "cls+distillation"}
    if kind in _DINO:
        mlp = _gated(tower) if tower.get("use_swiglu_ffn") else {}
        registers = tower.get("num_register_tokens", 4) if kind == "dinov2_with_registers" else 0
        mask = tower.get("use_mask_token", True)
        scale = tower.get("layerscale_value", 1.0)
        return {"registers": registers, "mask_token": mask, "layer_scale": scale, "pool": "cls+mean", **mlp}
    if kind in _CLIP:
        if first == "CLIPForImageClassification":
            return {"pre_norm": True, "pool": "mean_before_norm"}
        projected = kind == "clip" or first == "CLIPVisionModelWithProjection"
        return {"pre_norm": True, "projection": config.get("projection_dim", 512) if projected else None}
    return {}


def _gated(tower: Mapping[str, Any]) -> dict[str, Any]:
    """Of DINOv2 giant, whose MLP has another width than config.json says, and an activation of its own."""
    return {
        "gated": True,
        "act": "silu",
        "hidden": gated_hidden(tower.get("hidden_size", 768), tower.get("mlp_ratio", 4)),
    }


def in_transformers(shapes: Shapes) -> Found | None:
    """By the names of transformers, of its files or of its models in memory, with or without a prefix.

    The shapes do not tell epsilon and activation: taken are those of the published models.

    >>> in_transformers({"cls_token": (1, 1, 8)}) is None
    True
    """
    prefix, clip = _prefix(shapes)
    if prefix is None:
        return None
    name = "patch_embedding.weight" if clip else "patch_embeddings.projection.weight"
    kernel = shapes.get(f"{prefix}embeddings.{name}", ())
    block = re.compile(re.escape(prefix) + r"(?:encoder\.)?layers?\.(\d+)\.")
    layers = {int(m[1]) for name in shapes if (m := block.match(name))}
    hidden = _first(shapes, r".*\.(intermediate\.dense|mlp\.fc1|mlp\.weights_in|mlp\.up_proj)\.weight", prefix)
    back = _first(shapes, r".*\.mlp\.(weights_out|down_proj)\.weight", prefix)
    if len(kernel) != 4 or not layers or hidden is None:
        return None
    scaled = any(name.startswith(prefix) and name.endswith("layer_scale1.lambda1") for name in shapes)
    registers = shapes.get(f"{prefix}embeddings.register_tokens", (1, 0))[1]
    options = {
        **_core(kernel[0], len(layers), _heads(kernel[0])),
        "patch": kernel[2],
        "hidden": hidden[0],
        "epsilon": 1e-5 if clip else 1e-6 if scaled else 1e-12,
    }
    if clip:
        projection = shapes.get("visual_projection.weight")
        options |= {"act": "quick_gelu", "pre_norm": True, "projection": projection[0] if projection else None}
        options |= {"projection": None, "pool": "mean_before_norm"} if "classifier.weight" in shapes else {}
    elif scaled:
        mask = f"{prefix}embeddings.mask_token" in shapes
        options |= {"gated": True, "act": "silu", "hidden": back[1]} if back else {}
        options |= {"registers": registers, "mask_token": mask, "layer_scale": 1.0, "pool": "cls+mean"}
    elif f"{prefix}embeddings.distillation_token" in shapes:
        options |= {"distillation": True, "pool": "cls" if "classifier.weight" in shapes else "cls+distillation"}
    biased = clip or _first(shapes, r".*\.(query|q_proj)\.bias", prefix) is not None
    options |= {} if biased else {"qkv_bias": False}
    table = "position_embedding.weight" if clip else "position_embeddings"
    return Found(options, _square(shapes.get(f"{prefix}embeddings.{table}"), kernel))


def _prefix(shapes: Shapes) -> tuple[str | None, bool]:
    """What stands before the names, and whether they are CLIP's."""
    for prefix in ("vision_model.", ""):
        if f"{prefix}pre_layrnorm.weight" in shapes:
            return prefix, True
    for prefix in ("vit.", "deit.", "dinov2.", "dinov2_with_registers.", ""):
        if f"{prefix}embeddings.cls_token" in shapes:
            return prefix, False
    return None, False


_TIMM = {"tiny": "ti", "small": "s", "base": "b", "large": "l", "giant": "g"}
_TIMM_NAME = re.compile(
    r"(vit|deit)_(tiny|small|base|large|giant(?=.*dinov2))_(distilled_)?patch(\d+)_((?:reg4_)?dinov2|(?:clip_(?:quickgelu_)?)?\d+)(\..*)?"
)


def from_timm(config: Mapping[str, Any]) -> Found | None:
    """From config.json of timm, such as architecture "vit_base_patch16_224"."""
    m = _TIMM_NAME.fullmatch(timm_architecture(config))
    if m is None:
        return None
    options: dict[str, Any] = {"variant": f"{_TIMM[m[2]]}{m[4]}"}
    if m[3]:
        options |= {"distillation": True, "pool": "cls+distillation"}
    if m[5].endswith("dinov2"):
        options |= {"layer_scale": 1e-5, "pool": "cls+mean"}
        options |= {"gated": True, "act": "silu", "hidden": 4096} if m[2] == "giant" else {}
    if m[5] == "reg4_dinov2":
        options |= {"registers": 4, "token_positions": False}
    if m[5].startswith("clip"):
        options |= {"pre_norm": True, "epsilon": 1e-5} | ({"act": "quick_gelu"} if "quickgelu" in m[5] else {})
    usual = 518 if m[5].endswith("dinov2") else int(m[5].split("_")[-1])
    return Found(options, image_example(config, usual), config.get("num_classes") or None)


def in_timm(shapes: Shapes) -> Found | None:
    """By the names of timm, which the authors of DeiT and DINOv2 have too.

    >>> in_timm({"cls_token": (1, 1, 8)}) is None
    True
    """
    kernel = shapes.get("patch_embed.proj.weight", ())
    layers = {int(m[1]) for name in shapes if (m := re.match(r"blocks\.(\d+)\.attn\.qkv\.weight", name))}
    if len(kernel) != 4 or not layers or "pos_embed" not in shapes or "cls_token" not in shapes:
        return None
    clip, scaled = "norm_pre.weight" in shapes, "blocks.0.ls1.gamma" in shapes
    back = _first(shapes, r"blocks\.0\.mlp\.(fc2|w3)\.weight") or (kernel[0], 4 * kernel[0])
    gated = shapes.get("blocks.0.mlp.fc1.weight", (2 * back[1],))[0] == 2 * back[1]
    options = {
        **_core(kernel[0], len(layers), _heads(kernel[0])),
        "patch": kernel[2],
        "hidden": back[1],
        **({"act": "quick_gelu", "pre_norm": True, "epsilon": 1e-5} if clip else {}),
        **({"gated": True, "act": "silu"} if gated else {}),
        **({} if "blocks.0.attn.qkv.bias" in shapes else {"qkv_bias": False}),
        **_positions(shapes["pos_embed"]),
    }
    if scaled:
        registers = shapes.get("register_tokens", shapes.get("reg_token", (1, 0)))[1]
        options |= {"layer_scale": 1.0, "registers": registers, "mask_token": "mask_token" in shapes}
        options |= {} if "head.weight" in shapes else {"pool": "cls+mean"}
    if "dist_token" in shapes:
        one_head = "head.weight" in shapes and "head_dist.weight" not in shapes
        options |= {"distillation": True, "pool": "cls" if one_head else "cls+distillation"}
    if "pre_logits.fc.weight" in shapes:
        options |= {"pre_logits": True}
    return Found(options, _square(shapes["pos_embed"], kernel))


def in_flax(shapes: Shapes) -> Found | None:
    """By the names of big_vision and of Google's ViT, whose kernels tell the number of heads.

    >>> in_flax({"cls": (1, 1, 8)}) is None
    True
    """
    kernel = shapes.get("embedding/kernel", ())
    layers = {int(m[1]) for name in shapes if (m := re.match(r"Transformer/encoderblock_(\d+)/", name))}
    query = _first(shapes, r"Transformer/encoderblock_0/MultiHeadDotProductAttention_\d/query/kernel")
    hidden = _first(shapes, r"Transformer/encoderblock_0/MlpBlock_\d/Dense_0/kernel")
    table = _first(shapes, r"(Transformer/posembed_input/)?pos_embedding")
    if len(kernel) != 4 or query is None or len(query) != 3 or hidden is None or table is None:
        return None
    options = {
        **_core(kernel[3], len(layers), query[1]),
        "patch": kernel[0],
        "hidden": hidden[1],
        "act": "gelu_pytorch_tanh",
        **(_positions(table) if "cls" in shapes else {"pool": "mean"}),
        **({"pre_logits": True} if "pre_logits/kernel" in shapes else {}),
    }
    return Found(options, _square(table, (0, kernel[2], kernel[0], kernel[1])))


def _first(shapes: Shapes, pattern: str, prefix: str = "") -> tuple[int, ...] | None:
    return next((s for name, s in shapes.items() if name.startswith(prefix) and re.fullmatch(pattern, name)), None)


def _core(width: int, depth: int, heads: int) -> dict[str, Any]:
    variant = named(width, depth, heads)
    return {"variant": variant} if variant else {"width": width, "depth": depth, "heads": heads}


def _heads(width: int) -> int:
    """Of the variants by width; of others 64 channels a head. 0 where that is no guess."""
    usual = {w: heads for w, _, heads in VARIANTS.values()}
    return usual.get(width, width // 64 if width % 64 == 0 else 0)


def _square(table: tuple[int, ...] | None, kernel: tuple[int, ...]) -> Any:
    """Square images that give a position table of this shape; None where none do."""
    tokens = prefixes(table[-2]) if table else []
    if table and not tokens:
        return None
    side = math.isqrt(table[-2] - tokens[0]) * kernel[2] if table else 224
    return image_example({"image_size": side, "num_channels": kernel[1]})


def _positions(table: tuple[int, ...]) -> dict[str, Any]:
    """Whether the class token has a row in a position table of this shape."""
    return {"token_positions": False} if prefixes(table[-2]) == [0] else {}
