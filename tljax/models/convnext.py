"""ConvNeXt: convolutions with the habits of transformers."""

import flax.linen as nn

from tljax.models.classifier import PatchConv, as_images, classifier
from tljax.models.convnext_names import VARIANTS, from_config, keymaps, recognise
from tljax.models.convolution import conv, mean_of_map
from tljax.models.family import Family
from tljax.models.wrapping import ModelError
from tljax.tree import input_channels
from tljax.types import Array, Model

_EPSILON = 1e-6


def convnext(
    variant: str = "tiny",
    num_classes: int = 1000,
    *,
    depths: tuple[int, ...] | None = None,
    widths: tuple[int, ...] | None = None,
    patch: int = 4,
    layer_scale: float = 1e-6,
    drop_path: float = 0.0,
    epsilon: float = 1e-6,
) -> Model:
    """ConvNeXt: patches, then stages of depthwise 7x7 convolution, LayerNorm and MLP.

    Args:
      variant: "tiny", "small", "base", "large" or "xlarge".
      num_classes: outputs of the head.
      depths, widths: blocks and channels of each stage, instead of the variant's.
      patch: side of the patches in pixels that the stem reads.
      layer_scale: what the scale of each block's branch starts from; 0 leaves the scale out.
      drop_path: rate at which whole branches are dropped in training; it grows linearly, from 0 at the first block.
      epsilon: of the last LayerNorm, on the features; timm and torchvision have 1e-6, transformers 1e-12.

    Images `[B, H, W, C]` or grey `[B, H, W]`, of any size; pixels that fill no patch are left out, at the right and the
    bottom. The features are `[B, widths[-1]]`.

    Raises `ModelError` for a variant that is none, depths and widths that differ in length, and too small images.

    Reference: Liu et al. 2022, A ConvNet for the 2020s, arXiv:2201.03545.

    >>> import jax, jax.numpy as jnp
    >>> from tljax.tree import count
    >>> count(jax.eval_shape(convnext("tiny").init, jax.random.key(0), jnp.ones((1, 64, 64, 3))))
    28589128
    """
    if variant not in VARIANTS:
        raise ModelError(f"convnext: variant={variant!r}; expected {', '.join(map(repr, VARIANTS))}")
    depths = tuple(depths or VARIANTS[variant][0])
    widths = tuple(widths or VARIANTS[variant][1])
    if len(depths) != len(widths):
        raise ModelError(f"convnext: {len(depths)} depths and {len(widths)} widths; expected one of each for a stage")
    groups = ["stem"]
    for stage, blocks in enumerate(depths, 1):
        groups += [f"stage_{stage}/downsample"] if stage > 1 else []
        groups += [f"stage_{stage}/block_{i:02d}" for i in range(blocks)]
    return classifier(
        _ConvNeXt(depths, widths, patch, layer_scale, drop_path, epsilon),
        num_classes,
        groups=(*groups, "norm"),
        name=f"convnext-{variant}",
        keymaps=keymaps(depths, widths, patch, layer_scale, epsilon, num_classes),
    )


class _ConvNeXt(nn.Module):
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    patch: int
    layer_scale: float
    drop_path: float
    epsilon: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = as_images(x, "convnext")
        least = self.patch << len(self.widths) - 1
        if min(x.shape[1:3]) < least:
            raise ModelError(f"convnext: images of {x.shape[1]}x{x.shape[2]}; expected {least} pixels or more")
        x = _Stem(self.widths[0], self.patch, name="stem")(x)
        before, last = 0, max(sum(self.depths) - 1, 1)
        for stage, (blocks, width) in enumerate(zip(self.depths, self.widths)):
            rates = tuple(self.drop_path * (before + i) / last for i in range(blocks))
            x = _Stage(width, stage > 0, self.layer_scale, rates, name=f"stage_{stage + 1}")(x, train)
            before += blocks
        return nn.LayerNorm(self.epsilon, name="norm")(mean_of_map(x))


class _Stem(nn.Module):
    width: int
    patch: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.LayerNorm(_EPSILON, name="norm")(
            PatchConv(self.width, self.patch, name="conv")(_whole(x, self.patch))
        )


class _Stage(nn.Module):
    width: int
    downsample: bool
    layer_scale: float
    rates: tuple[float, ...]

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        if self.downsample:
            x = _Downsample(self.width, name="downsample")(x)
        for i, rate in enumerate(self.rates):
            x = _Block(self.width, self.layer_scale, rate, name=f"block_{i:02d}")(x, train)
        return x


class _Downsample(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return PatchConv(self.width, 2, name="conv")(_whole(nn.LayerNorm(_EPSILON, name="norm")(x), 2))


class _Block(nn.Module):
    width: int
    layer_scale: float
    rate: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        y = conv(self.width, 7, groups=self.width, bias=True)(name="conv")(x)
        y = nn.LayerNorm(_EPSILON, name="norm")(y).reshape(-1, self.width)
        y = nn.gelu(nn.Dense(4 * self.width, name="dense_1")(y), approximate=False)
        y = nn.Dense(self.width, name="dense_2")(y)
        if self.layer_scale:
            y *= self.param("scale", nn.initializers.constant(self.layer_scale), (self.width,))[None]
        drop = nn.Dropout(self.rate, broadcast_dims=(1, 2, 3), deterministic=not train)
        return x + drop(y.reshape(x.shape))


def _whole(x: Array, patch: int) -> Array:
    """`x` without the pixels that fill no patch, as a strided convolution leaves them out."""
    return x[:, : x.shape[1] // patch * patch, : x.shape[2] // patch * patch]


FAMILY = Family(
    "convnext",
    convnext,
    from_config,
    recognise,
    resize={"backbone/stem/conv/kernel": input_channels()},
)
