"""The vision transformer, and its relatives: DeiT, DINOv2 and the image tower of CLIP."""

import flax.linen as nn
import jax.numpy as jnp

from tljax.models.attention import attend
from tljax.models.classifier import PatchConv, activation, as_images, classifier
from tljax.models.family import Family
from tljax.models.vit_files import from_transformers, in_transformers
from tljax.models.vit_names import keymaps
from tljax.models.vit_positions import position_rules
from tljax.models.vit_sizes import Sizes, variant_sizes
from tljax.models.wrapping import ModelError
from tljax.tree import input_channels
from tljax.types import Array, Model


def vit(
    variant: str = "ti",
    num_classes: int = 10,
    *,
    patch: int = 4,
    width: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    mlp_ratio: int = 4,
    hidden: int | None = None,
    pool: str = "cls",
    dropout: float = 0.0,
    act: str = "gelu",
    epsilon: float = 1e-6,
    qkv_bias: bool = True,
    distillation: bool = False,
    token_positions: bool = True,
    registers: int = 0,
    mask_token: bool = False,
    layer_scale: float | None = None,
    pre_norm: bool = False,
    pre_logits: bool = False,
    projection: int | None = None,
    gated: bool = False,
) -> Model:
    """A vision transformer with pre-normalisation and learned position embeddings.

    Args:
      variant: "ti" (width 192, 12 blocks, 3 heads), "s" (384, 12, 6), "b" (768, 12, 12), "l" (1024, 24, 16), "h"
        (1280, 32, 16) or DINOv2's "g" (1536, 40, 24); "s16" sets the patch too.
      num_classes: outputs of the head.
      patch: side of a patch in pixels; it must divide both sides of the images.
      width, depth, heads: instead of the variant's, as in ``vit("ti", depth=4)``.
      mlp_ratio: hidden width of a block's MLP over `width`; `hidden` is that width itself.
      pool: what the features are. "cls" takes them from a class token, "mean" averages the patches and has no class
        token, "cls+mean" joins both, "cls+distillation" joins the tokens and has two heads, whose logits are averaged;
        "mean_before_norm" averages the patches before the last norm, as CLIP's classifier in transformers does.
      dropout: rate after the embedding and after each branch.
      act: the activation of the MLP, such as "gelu" or "quick_gelu".
      epsilon: of LayerNorm; transformers has 1e-12 for ViT and DeiT, and CLIP has 1e-5.
      qkv_bias: whether query, key and value have biases.
      distillation: a second token, after the class token (DeiT).
      token_positions: whether these two tokens have rows in the position table; not so in newer files of big_vision.
      registers: tokens without a position between the class token and the patches (DINOv2).
      mask_token: keep the token that replaces masked patches in DINOv2's pre-training. It is not used here.
      layer_scale: start of a factor for each channel at the end of each branch; None for no factors (DINOv2 has 1.0).
      pre_norm: a LayerNorm before the first block, and no bias in the patch embedding (CLIP).
      pre_logits: a dense layer with tanh on the features, of the same width.
      projection: a linear map without bias on the features, of this width (CLIP).
      gated: multiply the MLP's hidden layer by ``act`` of another one; with ``act="silu"`` that is SwiGLU (DINOv2 "g").

    Images `[B, H, W, C]` or grey `[B, H, W]`; their size comes from `x`, the features are `[B, width]`, twice as wide
    where two are joined. The position embedding is `[1, S, width]` with S = patches + 1 for the class token, which
    comes first, + 1 for the distillation token.

    Raises `ModelError` for a variant or a pool that is none, heads that do not divide the width, and in `init` and
    `apply` for images that the patch does not divide.

    Reference: Dosovitskiy et al. 2021, An image is worth 16x16 words, arXiv:2010.11929; "ti", "s" and the distillation
    token are from Touvron et al. 2021, arXiv:2012.12877; Oquab et al. 2023, DINOv2, arXiv:2304.07193; Darcet et al.
    2023, Vision transformers need registers, arXiv:2309.16588; Radford et al. 2021, CLIP, arXiv:2103.00020; Shazeer
    2020, GLU variants improve transformer, arXiv:2002.05202.

    >>> import jax
    >>> from tljax.tree import count
    >>> images = jnp.ones((1, 224, 224, 3))
    >>> count(jax.eval_shape(vit("ti16", num_classes=1000).init, jax.random.key(0), images))
    5717416
    """
    given = {"width": width, "depth": depth, "heads": heads}
    core = variant_sizes(variant, patch) | {name: value for name, value in given.items() if value is not None}
    sizes = Sizes(
        **core,
        hidden=mlp_ratio * core["width"] if hidden is None else hidden,
        pool=pool, dropout=dropout, act=act, epsilon=epsilon, qkv_bias=qkv_bias, distillation=distillation,
        token_positions=token_positions, registers=registers, mask_token=mask_token, layer_scale=layer_scale,
        pre_norm=pre_norm, pre_logits=pre_logits, projection=projection, gated=gated,
    )  # fmt: skip
    ends = ("pre_logits",) * pre_logits + ("projection",) * (projection is not None)
    return classifier(
        ViT(sizes),
        num_classes,
        groups=("embed", *(f"block_{i:02d}" for i in range(sizes.depth)), "norm", *ends),
        name=f"{sizes.kind}-{variant.rstrip('0123456789')}{sizes.patch}",
        keymaps=keymaps(sizes, num_classes),
        head=_TwoHeads if pool == "cls+distillation" else nn.Dense,
    )


class ViT(nn.Module):
    """The backbone."""

    sizes: Sizes

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        s = self.sizes
        x = _Embed(s, name="embed")(x, train)
        for i in range(s.depth):
            options = (s.dropout, s.act, s.epsilon, s.qkv_bias, s.layer_scale, s.gated)
            x = Block(s.heads, s.hidden, *options, name=f"block_{i:02d}")(x, train)
        normed = _norm(s.epsilon, "norm")(x)
        y = self._pooled(x if s.pool == "mean_before_norm" else normed)
        if s.pre_logits:
            y = jnp.tanh(nn.Dense(y.shape[-1], name="pre_logits")(y))
        return y if s.projection is None else nn.Dense(s.projection, use_bias=False, name="projection")(y)

    def _pooled(self, x: Array) -> Array:
        pool, first = self.sizes.pool, self.sizes.tokens + self.sizes.registers
        if pool == "cls":
            return x[:, 0]
        if pool == "cls+distillation":
            return jnp.concatenate([x[:, 0], x[:, 1]], axis=1)
        mean = jnp.mean(x[:, first:], axis=1)
        return jnp.concatenate([x[:, 0], mean], axis=1) if pool == "cls+mean" else mean


class _Embed(nn.Module):
    sizes: Sizes

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        s = self.sizes
        x = as_images(x, "vit")
        if x.shape[1] % s.patch or x.shape[2] % s.patch:
            raise ModelError(
                f"vit: patches of {s.patch} do not divide images of {x.shape[1]}x{x.shape[2]}; "
                "choose patch= to divide both, or resize the images"
            )
        x = PatchConv(s.width, s.patch, use_bias=not s.pre_norm, name="patch")(x).reshape(x.shape[0], -1, s.width)
        x = self._with_tokens(x) if s.token_positions else x
        x += self.param("position", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        x = x if s.token_positions else self._with_tokens(x)
        if s.registers:
            x = jnp.concatenate([x[:, : s.tokens], self._prepended("registers", s.registers, x[:, s.tokens :])], axis=1)
        if s.mask_token:
            self.param("mask", nn.initializers.zeros, (1, 1, s.width))
        if s.pre_norm:
            x = _norm(s.epsilon, "norm")(x)
        return nn.Dropout(s.dropout, deterministic=not train)(x)

    def _with_tokens(self, x: Array) -> Array:
        if self.sizes.distillation:
            x = self._prepended("distillation", 1, x)
        return x if self.sizes.pool == "mean" else self._prepended("cls", 1, x)

    def _prepended(self, name: str, count: int, x: Array) -> Array:
        token = self.param(name, nn.initializers.zeros, (1, count, x.shape[-1]))
        return jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], count, x.shape[-1])), x], axis=1)


class Block(nn.Module):
    """``x + s₁ attention(norm(x))``, then ``x + s₂ mlp(norm(x))``, for `x` `[B, S, D]`; s is 1 without layer scale."""

    heads: int
    hidden: int
    dropout: float = 0.0
    act: str = "gelu"
    epsilon: float = 1e-6
    qkv_bias: bool = True
    layer_scale: float | None = None
    gated: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        drop = nn.Dropout(self.dropout, deterministic=not train)
        y = Attention(self.heads, self.qkv_bias, name="attention")(_norm(self.epsilon, "norm_1")(x))
        x += drop(self._scaled(y, "scale_1"))
        y = _MLP(self.hidden, self.act, self.gated, name="mlp")(_norm(self.epsilon, "norm_2")(x))
        return x + drop(self._scaled(y, "scale_2"))

    def _scaled(self, y: Array, name: str) -> Array:
        if self.layer_scale is None:
            return y
        return y * self.param(name, nn.initializers.constant(self.layer_scale), (y.shape[-1],))[None, None]


class Attention(nn.Module):
    """Self-attention over `x` `[B, S, D]`, with heads D / heads wide; projections are matmuls on `[B S, D]`."""

    heads: int
    qkv_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        B, S, D = x.shape
        rows = x.reshape(-1, D)

        def heads(name: str) -> Array:
            y = nn.Dense(D, use_bias=self.qkv_bias, name=name)(rows)
            return y.reshape(B, S, self.heads, -1)

        mixed = attend(heads("query"), heads("key"), heads("value"))
        return nn.Dense(D, name="out")(mixed.reshape(-1, D)).reshape(B, S, D)


class _MLP(nn.Module):
    """``W₂ act(W₁ x)``, or with a gate ``W₂ (act(G x) ⊙ W₁ x)``."""

    hidden: int
    act: str
    gated: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        act, rows = activation(self.act), x.reshape(-1, x.shape[-1])
        hidden = nn.Dense(self.hidden, name="dense_1")(rows)
        hidden = act(nn.Dense(self.hidden, name="gate")(rows)) * hidden if self.gated else act(hidden)
        return nn.Dense(x.shape[-1], name="dense_2")(hidden).reshape(x.shape)


class _TwoHeads(nn.Module):
    """The mean of two linear heads: of the class token, and of the distillation token."""

    num_classes: int

    @nn.compact
    def __call__(self, features: Array) -> Array:
        token, distilled = jnp.split(features, 2, axis=1)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (token.shape[-1], self.num_classes))
        bias = self.param("bias", nn.initializers.zeros, (self.num_classes,))
        return (token @ kernel + bias[None] + nn.Dense(self.num_classes, name="distillation")(distilled)) / 2


def _norm(epsilon: float, name: str) -> nn.LayerNorm:
    # Pretrained transformers have channels a hundred times larger than the rest: E[x²] - E[x]² would lose digits.
    return nn.LayerNorm(epsilon, use_fast_variance=False, name=name)


RESIZE = {"backbone/embed/patch/kernel": input_channels()}

FAMILY = Family(
    name="vit",
    build=vit,
    from_config=from_transformers,
    recognise=in_transformers,
    resize=RESIZE,
    regrid=position_rules("huggingface"),
)
