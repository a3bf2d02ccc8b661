"""Wide residual networks for small images."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp

from tljax.checkpoints.keymap import Keymap
from tljax.checkpoints.layers import batch_norm, conv, counters, dense
from tljax.models.classifier import as_images, classifier
from tljax.models.convolution import batch_norm as _norm
from tljax.models.convolution import conv as _conv
from tljax.models.convolution import mean_of_map, pointwise
from tljax.models.family import Family, Found, Shapes, nothing
from tljax.models.wrapping import ModelError
from tljax.tree import input_channels
from tljax.types import Array, Model

_STRIDES = (1, 2, 2)


def wide_resnet(depth: int = 28, num_classes: int = 10, *, widen: int = 10, dropout: float = 0.0) -> Model:
    """The wide ResNet with pre-activation: three stages of ``(depth - 4) / 6`` blocks, 16, 32, 64 times `widen` wide.

    Args:
      depth: 16, 22, 28, 34, 40, or any other 6n + 4.
      num_classes: outputs of the head.
      widen: the widening factor; WRN-28-10 is ``wide_resnet(28, widen=10)``.
      dropout: rate between the two convolutions of a block.

    Images `[B, H, W, C]` or grey `[B, H, W]`, of any size; the features are `[B, 64 * widen]`. BatchNorm is as in
    `resnet`.

    Raises `ModelError` for a depth that is none.

    Reference: Zagoruyko and Komodakis 2016, Wide residual networks, arXiv:1605.07146.

    >>> from tljax.tree import count, split
    >>> params = jax.eval_shape(wide_resnet(28, widen=10).init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))
    >>> count(split(params, "**/batch_stats/*")[1])
    36479194
    """
    if depth < 10 or depth % 6 != 4:
        raise ModelError(f"wide_resnet: depth={depth}; expected 6n + 4, as 16, 22, 28, 34 or 40")
    blocks = (depth - 4) // 6
    groups = ("stem", *(f"stage_{s}/block_{i:02d}" for s in (1, 2, 3) for i in range(blocks)), "norm")
    backbone = _WideResNet(blocks, widen, dropout)
    return classifier(backbone, num_classes, groups=groups, name=f"wide-resnet{depth}-{widen}", keymaps=keymaps())


class _WideResNet(nn.Module):
    blocks: int
    widen: int
    dropout: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = _Stem(16, name="stem")(as_images(x, "wide_resnet"))
        for stage, stride in enumerate(_STRIDES):
            width = (16 << stage) * self.widen
            x = _Stage(self.blocks, width, stride, self.dropout, name=f"stage_{stage + 1}")(x, train)
        return mean_of_map(nn.relu(_norm(train)(name="norm")(x)))


class _Stem(nn.Module):
    channels: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return _conv(self.channels)(name="conv")(x)


class _Stage(nn.Module):
    blocks: int
    width: int
    stride: int
    dropout: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        for i in range(self.blocks):
            stride = self.stride if i == 0 else 1
            x = _Block(self.width, stride, self.dropout, name=f"block_{i:02d}")(x, train)
        return x


class _Block(nn.Module):
    width: int
    stride: int
    dropout: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        y = nn.relu(_norm(train)(name="norm_1")(x))
        if x.shape[-1] != self.width:  # the shortcut too reads the activation
            x = pointwise(self.width, "shortcut_conv")(y[:, :: self.stride, :: self.stride])
        y = _conv(self.width, 3, self.stride)(name="conv_1")(y)
        y = nn.relu(_norm(train)(name="norm_2")(y))
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return x + _conv(self.width)(name="conv_2")(y)


def keymaps() -> dict[str, Keymap]:
    """The names most wide ResNets have in torch: ``block1.layer.0.convShortcut.weight``, ``fc.weight``."""
    ours, theirs = "backbone/stage_{s}/block_{b:02}", "block{s}.layer.{b}"
    rules = (
        *conv("backbone/stem/conv", "conv1"),
        *conv(ours + "/conv_{n}", theirs + ".conv{n}"),
        *batch_norm(ours + "/norm_{n}", theirs + ".bn{n}"),
        *conv(f"{ours}/shortcut_conv", f"{theirs}.convShortcut"),
        *batch_norm("backbone/norm", "bn1"),
        *dense("head", "fc"),
    )
    return {"torch": Keymap(rules, counters(rules))}


def _recognise(shapes: Shapes) -> Found | None:
    blocks = [name for name in shapes if re.fullmatch(r"block[123]\.layer\.\d+\.conv1\.weight", name)]
    first, stem = shapes.get("block1.layer.0.conv1.weight", ()), shapes.get("conv1.weight", ())
    if len(first) != 4 or len(stem) != 4 or len(blocks) % 3:
        return None
    options = {"depth": 2 * len(blocks) + 4, "widen": first[0] // 16}
    return Found(options, jax.ShapeDtypeStruct((1, 32, 32, stem[1]), jnp.float32))


FAMILY = Family(
    "wide_resnet",
    wide_resnet,
    nothing,
    _recognise,
    resize={"backbone/stem/conv/kernel": input_channels()},
)
