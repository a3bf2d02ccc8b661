"""The vision transformer."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp

from tljax.models.classifier import PatchConv, as_images, classifier
from tljax.models.wrapping import ModelError
from tljax.types import Array, Model

_VARIANTS = {"ti": (192, 12, 3), "s": (384, 12, 6), "b": (768, 12, 12)}
_EPSILON = 1e-6


def vit(
    variant: str = "ti",
    num_classes: int = 10,
    *,
    patch: int = 4,
    width: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    mlp_ratio: int = 4,
    pool: str = "cls",
    dropout: float = 0.0,
) -> Model:
    """A vision transformer with pre-normalisation and learned position embeddings.

    Args:
      variant: "ti" (width 192, 12 blocks, 3 heads), "s" (384, 12, 6) or "b" (768, 12, 12); "s16" sets the patch too.
      num_classes: outputs of the head.
      patch: side of a patch in pixels; it must divide both sides of the images.
      width, depth, heads: instead of the variant's, as in ``vit("ti", depth=4)``.
      mlp_ratio: hidden width of a block's MLP over `width`.
      pool: "cls" takes the features from a class token, "mean" averages the patches and has no class token.
      dropout: rate after the embedding and after each branch.

    Images `[B, H, W, C]` or grey `[B, H, W]`; their size comes from `x`, the features are `[B, width]`. The position
    embedding is `[1, S, width]` with S = patches + 1 for the class token, which comes first.

    Raises `ModelError` for a variant or a pool that is none, heads that do not divide the width, and in `init` and
    `apply` for images that the patch does not divide.

    Reference: Dosovitskiy et al. 2021, An image is worth 16x16 words, arXiv:2010.11929; "ti" and "s" are from
    Touvron et al. 2021, arXiv:2012.12877.

    >>> from tljax.tree import count
    >>> images = jnp.ones((1, 224, 224, 3))
    >>> count(jax.eval_shape(vit("ti16", num_classes=1000).init, jax.random.key(0), images))
    5717416
    """
    found = re.fullmatch(r"([a-z]+)(\d*)", variant)
    if not found or found[1] not in _VARIANTS:
        raise ModelError(f"vit: variant={variant!r}; expected {', '.join(_VARIANTS)}, or with the patch, as 's16'")
    patch = int(found[2] or patch)
    sizes = zip((width, depth, heads), _VARIANTS[found[1]])
    width, depth, heads = (default if given is None else given for given, default in sizes)
    if width % heads:
        raise ModelError(f"vit: width={width} is not a multiple of heads={heads}")
    if pool not in ("cls", "mean"):
        raise ModelError(f"vit: pool={pool!r}; expected 'cls' or 'mean'")
    groups = ("embed", *(f"block_{i:02d}" for i in range(depth)), "norm")
    backbone = _ViT(patch, width, depth, heads, mlp_ratio * width, pool, dropout)
    return classifier(backbone, num_classes, groups=groups, name=f"vit-{found[1]}{patch}")


class _ViT(nn.Module):
    patch: int
    width: int
    depth: int
    heads: int
    hidden: int
    pool: str
    dropout: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = _Embed(self.patch, self.width, self.pool == "cls", self.dropout, name="embed")(x, train)
        for i in range(self.depth):
            x = Block(self.heads, self.hidden, self.dropout, name=f"block_{i:02d}")(x, train)
        x = nn.LayerNorm(_EPSILON, name="norm")(x)
        return x[:, 0] if self.pool == "cls" else jnp.mean(x, axis=1)


class _Embed(nn.Module):
    patch: int
    width: int
    class_token: bool
    dropout: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = as_images(x, "vit")
        if x.shape[1] % self.patch or x.shape[2] % self.patch:
            raise ModelError(
                f"vit: patches of {self.patch} do not divide images of {x.shape[1]}x{x.shape[2]}; "
                "choose patch= to divide both, or resize the images"
            )
        x = PatchConv(self.width, self.patch, name="patch")(x).reshape(x.shape[0], -1, self.width)
        if self.class_token:
            token = self.param("cls", nn.initializers.zeros, (1, 1, self.width))
            x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, self.width)), x], axis=1)
        x += self.param("position", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        return nn.Dropout(self.dropout, deterministic=not train)(x)


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``, for `x` `[B, S, D]`."""

    heads: int
    hidden: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        drop = nn.Dropout(self.dropout, deterministic=not train)
        x += drop(Attention(self.heads, name="attention")(nn.LayerNorm(_EPSILON, name="norm_1")(x)))
        return x + drop(_MLP(self.hidden, name="mlp")(nn.LayerNorm(_EPSILON, name="norm_2")(x)))


class Attention(nn.Module):
    """Self-attention ``softmax(q kᵀ / √d) v`` over `x` `[B, S, D]`, as matmuls on `[B, heads, S, d]`, d = D / heads."""

    heads: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        B, S, D = x.shape
        rows = x.reshape(-1, D)

        def heads(name: str) -> Array:
            return nn.Dense(D, name=name)(rows).reshape(B, S, self.heads, -1).transpose(0, 2, 1, 3)

        q, k, v = heads("query"), heads("key"), heads("value")
        weights = jax.nn.softmax(q @ k.swapaxes(2, 3) * (D // self.heads) ** -0.5)
        mixed = (weights @ v).transpose(0, 2, 1, 3).reshape(-1, D)
        return nn.Dense(D, name="out")(mixed).reshape(B, S, D)


class _MLP(nn.Module):
    hidden: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        rows = nn.gelu(nn.Dense(self.hidden, name="dense_1")(x.reshape(-1, x.shape[-1])), approximate=False)
        return nn.Dense(x.shape[-1], name="dense_2")(rows).reshape(x.shape)
