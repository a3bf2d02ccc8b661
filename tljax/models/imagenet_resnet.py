"""Residual networks for images of ImageNet's size."""

from collections.abc import Callable

import flax.linen as nn

from tljax.models.classifier import activation, as_images, classifier
from tljax.models.convolution import batch_norm, conv, mean_of_map, pointwise
from tljax.models.family import Family
from tljax.models.imagenet_resnet_names import DEPTHS, from_config, keymaps, recognise
from tljax.models.max_pooling import max_pool
from tljax.models.wrapping import ModelError
from tljax.tree import input_channels
from tljax.types import Array, Model

_EXPANSION = {"basic": 1, "bottleneck": 4}


def imagenet_resnet(
    depth: int | tuple[int, ...] = 50,
    num_classes: int = 1000,
    *,
    block: str | None = None,
    widths: tuple[int, ...] | None = None,
    stem: int = 64,
    stride_first: bool = False,
    act: str = "relu",
) -> Model:
    """The ResNet for large images: a 7x7 stem with max-pooling, and stages of basic or bottleneck blocks.

    Args:
      depth: 18, 34, 50, 101, 152; or the number of blocks of each stage, as ``(3, 4, 6, 3)``.
      num_classes: outputs of the head.
      block: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3, 1x1); by default the depth's own.
      widths: channels that each stage puts out; by default 64, 128, 256, 512, times 4 for bottlenecks.
      stem: channels of the stem.
      stride_first: a bottleneck has its stride in the first 1x1 convolution, as in the paper (v1); by default in the
        3x3, as in torchvision, timm and transformers (v1.5).
      act: the activation, "relu" or another.

    Images `[B, H, W, C]` or grey `[B, H, W]`, of 32 pixels or more; the features are `[B, widths[-1]]`.
    The first block of a stage after the first halves the size. BatchNorm is as in `resnet`.

    Raises `ModelError` for a depth, a block or widths that are none.

    Reference: He et al. 2016, Deep residual learning for image recognition, arXiv:1512.03385, table 1.

    >>> import jax, jax.numpy as jnp
    >>> from tljax.tree import count, split
    >>> params = jax.eval_shape(imagenet_resnet(18).init, jax.random.key(0), jnp.ones((1, 64, 64, 3)))
    >>> count(split(params, "**/batch_stats/*")[1])
    11689512
    """
    by_stage = isinstance(depth, tuple | list) and all(isinstance(count, int) for count in depth)
    if not by_stage and depth not in tuple(DEPTHS):
        raise ModelError(f"imagenet_resnet: depth={depth}; expected {', '.join(map(str, DEPTHS))}, or blocks by stage")
    blocks, own = DEPTHS[depth] if isinstance(depth, int) else (tuple(depth), "bottleneck")
    block = block or own
    if block not in _EXPANSION:
        raise ModelError(f"imagenet_resnet: block={block!r}; expected 'basic' or 'bottleneck'")
    widths = tuple(widths or (_EXPANSION[block] * 64 << stage for stage in range(len(blocks))))
    if len(widths) != len(blocks):
        raise ModelError(f"imagenet_resnet: {len(widths)} widths for {len(blocks)} stages")
    groups = ("stem", *(f"stage_{s + 1}/block_{b:02d}" for s, n in enumerate(blocks) for b in range(n)))
    return classifier(
        _ResNet(blocks, block, widths, stem, stride_first, activation(act)),
        num_classes,
        groups=groups,
        name=f"resnet{depth}" if isinstance(depth, int) else "resnet" + "-".join(map(str, blocks)),
        keymaps=keymaps(blocks, block, widths, stem, stride_first, act, num_classes),
    )


class _ResNet(nn.Module):
    blocks: tuple[int, ...]
    block: str
    widths: tuple[int, ...]
    stem: int
    stride_first: bool
    act: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = _Stem(self.stem, self.act, name="stem")(as_images(x, "resnet"), train)
        for stage, (blocks, width) in enumerate(zip(self.blocks, self.widths)):
            stride = 1 if stage == 0 else 2
            x = _Stage(blocks, self.block, width, stride, self.stride_first, self.act, name=f"stage_{stage + 1}")(
                x, train
            )
        return mean_of_map(x)


class _Stem(nn.Module):
    channels: int
    act: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = self.act(batch_norm(train)(name="norm")(conv(self.channels, 7, 2)(name="conv")(x)))
        return max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


class _Stage(nn.Module):
    blocks: int
    block: str
    width: int
    stride: int
    stride_first: bool
    act: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        for i in range(self.blocks):
            stride = self.stride if i == 0 else 1
            x = _Block(self.block, self.width, stride, self.stride_first, self.act, name=f"block_{i:02d}")(x, train)
        return x


class _Block(nn.Module):
    block: str
    width: int
    stride: int
    stride_first: bool
    act: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        norm, act = batch_norm(train), self.act
        if self.block == "basic":
            y = act(norm(name="norm_1")(conv(self.width, 3, self.stride)(name="conv_1")(x)))
            y = norm(name="norm_2")(conv(self.width)(name="conv_2")(y))
        else:
            early = self.stride if self.stride_first else 1
            inner = self.width // _EXPANSION["bottleneck"]
            y = act(norm(name="norm_1")(pointwise(inner, "conv_1")(x[:, ::early, ::early])))
            y = act(norm(name="norm_2")(conv(inner, 3, self.stride // early)(name="conv_2")(y)))
            y = norm(name="norm_3")(pointwise(self.width, "conv_3")(y))
        if self.stride > 1 or x.shape[-1] != self.width:
            x = pointwise(self.width, "shortcut_conv")(x[:, :: self.stride, :: self.stride])
            x = norm(name="shortcut_norm")(x)
        return act(x + y)


FAMILY = Family(
    "imagenet_resnet",
    imagenet_resnet,
    from_config,
    recognise,
    resize={"backbone/stem/conv/kernel": input_channels()},
)
