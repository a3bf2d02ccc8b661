"""Vision transformers in the files of transformers, timm and DINOv2's authors."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tljax.checkpoints.keymap import Extra, Keymap, Rule
from tljax.checkpoints.layers import conv, dense, fused_dense, leaf, norm
from tljax.checkpoints.layouts import expanded
from tljax.models.family import label_config
from tljax.models.vit_config import later, timm_config, transformers_config
from tljax.models.vit_flax_names import flax_keymaps
from tljax.models.vit_sizes import Sizes

_EMBED, _BLOCK = "backbone/embed", "backbone/block_{b:02}"


class _Names(NamedTuple):
    """The parts of a block in a file."""

    block: str
    attention: tuple[str, ...]
    """Query, key, value and out; the first three equal where they are fused."""
    norms: str
    """With ``{n}`` from 1."""
    mlp: tuple[str, str]
    scales: str = ""
    gated: tuple[str, ...] = ()
    """The parts of a gated MLP: gate, up and down, or the first two fused."""


_SPLIT = tuple(f"attention.attention.{part}" for part in ("query", "key", "value"))
_PROJECTED = tuple(f"attention.{part}_proj" for part in "qkvo")
_FILES = {
    "vit": _Names(
        "encoder.layer.{b}",
        (*_SPLIT, "attention.output.dense"),
        "layernorm_{n}",
        ("intermediate.dense", "output.dense"),
    ),
    "vit5": _Names("layers.{b}", _PROJECTED, "layernorm_{n}", ("mlp.fc1", "mlp.fc2")),
    "dinov2": _Names(
        "encoder.layer.{b}",
        (*_SPLIT, "attention.output.dense"),
        "norm{n}",
        ("mlp.fc1", "mlp.fc2"),
        "layer_scale{n}.lambda1",
        ("mlp.weights_in", "mlp.weights_out"),
    ),
    "dinov2_5": _Names(
        "encoder.layer.{b}",
        _PROJECTED,
        "norm{n}",
        ("mlp.fc1", "mlp.fc2"),
        "layer_scale{n}.lambda1",
        ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    ),
    "clip": _Names(
        "encoder.layers.{b}",
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"),
        "layer_norm{n}",
        ("mlp.fc1", "mlp.fc2"),
    ),
    "timm": _Names(
        "blocks.{b}",
        ("attn.qkv",) * 3 + ("attn.proj",),
        "norm{n}",
        ("mlp.fc1", "mlp.fc2"),
        "ls{n}.gamma",
        ("mlp.fc1", "mlp.fc2"),
    ),
}
_FILES["facebook"] = _FILES["timm"]._replace(gated=("mlp.w12", "mlp.w3"))


def keymaps(sizes: Sizes, num_classes: int) -> dict[str, Keymap]:
    """Those that can hold this model: transformers as ViT, DeiT, DINOv2 or CLIP, and the others' files.

    "transformers" has the names of its files, which versions 4 and 5 write and read; "transformers5" those that a model
    has in memory since version 5; "-base" is the model without its head.

    >>> maps = keymaps(Sizes(patch=16, width=192, depth=12, heads=3, hidden=768), 10)
    >>> list(maps)
    ['transformers', 'transformers-base', 'transformers5', 'transformers5-base', 'timm', 'big_vision', 'vit_jax']
    """
    maps: dict[str, Keymap] = {}
    kind = transformers_kind(sizes)
    if kind == "clip_vision_model":
        maps |= _clip_maps(sizes, num_classes)
    elif kind is not None:
        maps |= _transformers_maps(kind, sizes, num_classes)
    # In timm a model with registers has positions for patches only.
    in_timm = not (sizes.mask_token or sizes.projection or (sizes.registers and sizes.token_positions))
    if sizes.pool != "mean" and in_timm:
        maps["timm"] = Keymap(_timm(sizes), config=timm_config(sizes, num_classes))
    if sizes.layer_scale is not None and sizes.pool != "mean" and sizes.token_positions:
        maps["facebook"] = Keymap(_facebook(sizes.gated))
    if (
        sizes.pool in ("cls", "mean")
        and transformers_kind(sizes, any_pool=True) == "vit"
        and sizes.qkv_bias
        and not sizes.gated
    ):
        maps |= flax_keymaps(sizes.heads)
    return maps


def transformers_kind(sizes: Sizes, any_pool: bool = False) -> str | None:
    """The `model_type` of this model in transformers, or None when it has none.

    With `any_pool`, pooling and the positions of tokens need not be as there.

    >>> transformers_kind(Sizes(patch=14, width=384, depth=12, heads=6, hidden=1536, layer_scale=1.0))
    'dinov2'
    """
    scaled, special = sizes.layer_scale is not None, sizes.distillation or sizes.pre_logits
    if not sizes.token_positions and not any_pool:
        return None
    if sizes.pre_norm:
        right = (
            not sizes.gated
            and not scaled
            and not special
            and not sizes.registers
            and sizes.pool in ("cls", "mean_before_norm")
        )
        return "clip_vision_model" if right and sizes.qkv_bias and not sizes.mask_token else None
    if sizes.projection or (not scaled and (sizes.mask_token or sizes.gated)):
        return None
    if scaled:
        whole = (
            sizes.mlp_ratio is not None
            and (not sizes.gated or sizes.act == "silu")
            and sizes.pool in ("cls", "cls+mean")
            and not special
        )
        return None if not whole else "dinov2_with_registers" if sizes.registers else "dinov2"
    if sizes.registers:
        return None
    if sizes.distillation:
        return "deit" if sizes.pool in ("cls", "cls+distillation") else None
    return "vit" if any_pool or sizes.pool == "cls" else None


def _block(names: _Names, gated: bool = False) -> tuple[Rule, ...]:
    theirs = names.block
    *parts, out = (f"{theirs}.{part}" for part in names.attention)
    ours = tuple(f"{_BLOCK}/attention/{part}" for part in ("query", "key", "value"))
    pairs = tuple(rule for pair in zip(ours, parts) for rule in dense(*pair))
    rules = fused_dense(ours, parts[0]) if parts[0] == parts[1] else pairs
    first, second = ("before", "after") if "layernorm_" in names.norms else ("1", "2")
    rules += (
        *dense(f"{_BLOCK}/attention/out", out),
        *norm(f"{_BLOCK}/norm_1", f"{theirs}." + names.norms.replace("{n}", first)),
        *norm(f"{_BLOCK}/norm_2", f"{theirs}." + names.norms.replace("{n}", second)),
        *_mlp([f"{theirs}.{part}" for part in (names.gated if gated else names.mlp)], gated),
    )
    return rules + (leaf(_BLOCK + "/scale_{n}", f"{theirs}.{names.scales}") if names.scales else ())


def _mlp(theirs: Sequence[str], gated: bool) -> tuple[Rule, ...]:
    first, second = f"{_BLOCK}/mlp/dense_1", f"{_BLOCK}/mlp/dense_2"
    if not gated:
        return (*dense(first, theirs[0]), *dense(second, theirs[1]))
    gate = f"{_BLOCK}/mlp/gate"
    if len(theirs) == 2:
        return (*fused_dense((gate, first), theirs[0]), *dense(second, theirs[1]))
    return (*dense(gate, theirs[0]), *dense(first, theirs[1]), *dense(second, theirs[2]))


def _under(prefix: str, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    return tuple(rule._replace(theirs=tuple(prefix + name for name in rule.theirs)) for rule in rules)


def _transformers_maps(kind: str, sizes: Sizes, num_classes: int) -> dict[str, Keymap]:
    """Of ViT, DeiT and DINOv2: as files have them, and as a model of transformers 5 has them in memory."""
    dino, two = kind.startswith("dinov2"), sizes.pool == "cls+distillation"
    # DINOv2's classifier reads the class token and the mean: a head on anything else has no name there.
    heads = _heads(two) if not dino or sizes.pool == "cls+mean" else ()
    named = "Dinov2WithRegisters" if sizes.registers else {"vit": "ViT", "deit": "DeiT", "dinov2": "Dinov2"}[kind]
    base = transformers_config(kind, sizes) | {"architectures": [f"{named}Model"]}
    whole = (
        base | {"architectures": [f"{named}ForImageClassification" + "WithTeacher" * two]} | label_config(num_classes)
    )
    extras, ignored = [], []
    if kind == "dinov2_with_registers" and not sizes.mask_token:
        extras.append(Extra(f"{kind}.embeddings.mask_token", np.zeros((1, sizes.width), np.float32), f"{_EMBED}/cls"))
    if not dino:
        ignored.append(rf"{kind}\.embeddings\.mask_token")
    if not sizes.pre_logits:
        ignored.append(rf"{kind}\.pooler\.dense\.\w+")
    maps = {}
    for label, block, written in (
        ("transformers", _FILES["dinov2" if dino else "vit"], True),
        ("transformers5", _FILES["dinov2_5" if dino else "vit5"], False),
    ):
        rules = _under(f"{kind}.", _transformers(block, sizes.gated)) + heads
        config = whole if written and heads and not sizes.pre_logits else None
        maps[label] = Keymap(rules, tuple(extras), tuple(ignored), config)
        maps[f"{label}-base"] = maps[label].without_prefix(f"{kind}.", config=base if written else None)
    return maps


def _transformers(names: _Names, gated: bool) -> tuple[Rule, ...]:
    return (
        *leaf(f"{_EMBED}/cls", "embeddings.cls_token"),
        *leaf(f"{_EMBED}/distillation", "embeddings.distillation_token"),
        *leaf(f"{_EMBED}/registers", "embeddings.register_tokens"),
        *leaf(f"{_EMBED}/mask", "embeddings.mask_token", expanded(0)),
        *leaf(f"{_EMBED}/position", "embeddings.position_embeddings"),
        *conv(f"{_EMBED}/patch", "embeddings.patch_embeddings.projection"),
        *_block(names, gated),
        *norm("backbone/norm", "layernorm"),
        *dense("backbone/pre_logits", "pooler.dense"),
    )


def _heads(two: bool) -> tuple[Rule, ...]:
    if not two:
        return dense("head", "classifier")
    return (*dense("head", "cls_classifier"), *dense("head/distillation", "distillation_classifier"))


def _clip_maps(sizes: Sizes, num_classes: int) -> dict[str, Keymap]:
    """Of the image tower, with and without the projection, and of the classifier on it."""
    rules = _under("vision_model.", _clip())
    ignored: tuple[str, ...] = (r"vision_model\.embeddings\.position_ids",)
    tower = transformers_config("clip_vision_model", sizes)
    if sizes.pool == "mean_before_norm":
        config = {
            "model_type": "clip",
            "architectures": ["CLIPForImageClassification"],
            "vision_config": later(tower, "vision_config"),
        }
        return {
            "transformers": Keymap(rules + dense("head", "classifier"), (), ignored, config | label_config(num_classes))
        }
    # The other tower, in the file of a whole CLIP.
    ignored += (r"text_model\..*", r"text_projection\.weight", "logit_scale", r"visual_projection\.weight")
    if sizes.projection is None:
        config = tower | {"architectures": ["CLIPVisionModel"]}
        whole = Keymap(rules, (), ignored, config)
        return {"transformers": whole, "transformers-base": whole.without_prefix("vision_model.", config=config)}
    rules += dense("backbone/projection", "visual_projection")
    config = tower | {"architectures": ["CLIPVisionModelWithProjection"], "projection_dim": sizes.projection}
    return {"transformers": Keymap(rules, (), ignored, config)}


def _clip() -> tuple[Rule, ...]:
    return (
        *leaf(f"{_EMBED}/cls", "embeddings.class_embedding", expanded(0, 1)),
        *leaf(f"{_EMBED}/position", "embeddings.position_embedding.weight", expanded(0)),
        *conv(f"{_EMBED}/patch", "embeddings.patch_embedding"),
        *norm(f"{_EMBED}/norm", "pre_layrnorm"),
        *_block(_FILES["clip"]),
        *norm("backbone/norm", "post_layernorm"),
    )


def _facebook(gated: bool) -> tuple[Rule, ...]:
    return (
        *_timm_backbone(_FILES["facebook"], gated),
        *leaf(f"{_EMBED}/mask", "mask_token", expanded(0)),
        *leaf(f"{_EMBED}/registers", "register_tokens"),
    )


def _timm(sizes: Sizes) -> tuple[Rule, ...]:
    backbone = _timm_backbone(_FILES["timm"], sizes.gated)
    rules = (*backbone, *leaf(f"{_EMBED}/distillation", "dist_token"), *norm(f"{_EMBED}/norm", "norm_pre"))
    rules += leaf(f"{_EMBED}/registers", "reg_token")
    if sizes.pool == "cls+distillation":
        return (*rules, *dense("head", "head"), *dense("head/distillation", "head_dist"))
    rules += dense("backbone/pre_logits", "pre_logits.fc")
    return rules + dense("head", "head") if sizes.pool == "cls" and not sizes.distillation else rules


def _timm_backbone(names: _Names, gated: bool) -> tuple[Rule, ...]:
    return (
        *leaf(f"{_EMBED}/cls", "cls_token"),
        *leaf(f"{_EMBED}/position", "pos_embed"),
        *conv(f"{_EMBED}/patch", "patch_embed.proj"),
        *_block(names, gated),
        *norm("backbone/norm", "norm"),
    )
