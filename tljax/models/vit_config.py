"""What config.json says of a vision transformer, in transformers and timm."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from tljax.checkpoints.keymap import KeymapError, size
from tljax.models.vit_sizes import Sizes


def transformers_config(kind: str, sizes: Sizes) -> dict[str, Any]:
    """Of the model type `kind`; some values are functions of the exported leaves."""
    clip = kind == "clip_vision_model"
    table = "position_embedding.weight" if clip else "position_embeddings"
    patches = "patch_embedding.weight" if clip else "patch_embeddings.projection.weight"
    config = {
        "model_type": kind,
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.depth,
        "num_attention_heads": sizes.heads,
        "hidden_act": sizes.act,
        "layer_norm_eps": sizes.epsilon,
        "patch_size": sizes.patch,
        "image_size": image_size(table, sizes.positions, sizes.patch),
        "num_channels": size(patches, 1),
    }
    if not clip:
        config |= {"qkv_bias": sizes.qkv_bias, "hidden_dropout_prob": sizes.dropout}
    if kind.startswith("dinov2"):
        config |= {"mlp_ratio": sizes.mlp_ratio, "layerscale_value": sizes.layer_scale}
        config |= {"use_swiglu_ffn": sizes.gated}
        config |= {"hidden_act": "gelu"} if sizes.gated else {}  # the gated MLP does not read it
        config |= {"num_register_tokens": sizes.registers} if sizes.registers else {"use_mask_token": sizes.mask_token}
    else:
        config |= {"intermediate_size": sizes.hidden}
    return config


Value = Callable[[Mapping[str, Any], Mapping[str, Any]], Any]


def image_size(ending: str, prefix: int, patch: int) -> Value:
    """For `Keymap.config`: the side of the images, from the position table whose name ends like this.

    The table does not tell the sides of a grid that is not square: they are those given, height and width.

    Raises `KeymapError` when none are, or others.

    >>> import numpy as np
    >>> image_size("pos_embed", 1, 16)({"pos_embed": np.zeros((1, 197, 8))}, {})
    224
    >>> image_size("pos_embed", 1, 16)({"pos_embed": np.zeros((1, 7, 8))}, {"image_size": [32, 48]})
    [32, 48]
    """

    def sides(flat: Mapping[str, Any], given: Mapping[str, Any]) -> int | list[int]:
        rows = next(leaf.shape[-2] for name, leaf in flat.items() if name.endswith(ending)) - prefix
        known = given.get("image_size")
        if isinstance(known, list | tuple) and math.prod(side // patch for side in known) == rows:
            return list(known)
        if math.isqrt(rows) ** 2 != rows:
            raise KeymapError(
                f"{rows} patches are no square grid; write config={{'image_size': [height, width]}} with the size of "
                "the images"
            )
        return math.isqrt(rows) * patch

    return sides


def later(config: Mapping[str, Any], key: str) -> Value:
    """The part `key` of config.json, some of whose values come from the exported leaves."""
    return lambda flat, given: {
        name: value(flat, given.get(key) or {}) if callable(value) else value for name, value in config.items()
    }


_TIMM = {"ti": "tiny", "s": "small", "b": "base", "l": "large", "h": "huge"}


def timm_config(sizes: Sizes, num_classes: int) -> dict[str, Any] | None:
    """With the architecture's name where timm has one for these sizes; its name tells the size of the images."""
    if sizes.named not in _TIMM or sizes.gated or sizes.pre_logits or not sizes.qkv_bias or not sizes.token_positions:
        return None
    named, side = f"{_TIMM[sizes.named]}_", image_size("pos_embed", sizes.positions, sizes.patch)
    patch = f"patch{sizes.patch}_"
    kind = (sizes.pool, sizes.act, sizes.epsilon, sizes.pre_norm, sizes.layer_scale is not None, sizes.distillation)
    forms: dict[tuple[Any, ...], Value] = {
        ("cls", "gelu", 1e-6, False, False, False): lambda flat, _: f"vit_{named}{patch}{side(flat, {})}",
        ("cls", "quick_gelu", 1e-5, True, False, False): lambda flat, _: (
            f"vit_{named}{patch}clip_quickgelu_{side(flat, {})}"
        ),
        ("cls", "gelu", 1e-5, True, False, False): lambda flat, _: f"vit_{named}{patch}clip_{side(flat, {})}",
        ("cls+distillation", "gelu", 1e-6, False, False, True): lambda flat, _: (
            f"deit_{named}distilled_{patch}{side(flat, {})}"
        ),
    }
    return {"architecture": forms[kind], "num_classes": num_classes} if kind in forms else None
