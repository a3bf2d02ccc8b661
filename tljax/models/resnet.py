"""Residual networks for small images."""

import flax.linen as nn
import jax.numpy as jnp

from tljax.models.classifier import as_images, classifier
from tljax.models.convolution import batch_norm, conv, mean_of_map, pointwise
from tljax.models.family import Family, nothing
from tljax.models.resnet_names import keymaps, recognise
from tljax.models.wrapping import ModelError
from tljax.tree import input_channels
from tljax.types import Array, Model


def resnet(depth: int = 20, num_classes: int = 10, *, width: int = 16, shortcut: str = "A") -> Model:
    """The CIFAR ResNet: a stem and three stages of ``(depth - 2) / 6`` residual blocks of two convolutions.

    Args:
      depth: 20, 32, 44, 56, 110, or any other 6n + 2.
      num_classes: outputs of the head.
      width: channels of the first stage; the second has twice, the third four times as many.
      shortcut: where the size changes, "A" takes every other pixel and pads the channels with zeros on both
        sides; "B" is a 1x1 convolution with normalisation.

    Images `[B, H, W, C]` or grey `[B, H, W]`, of any size; the features are `[B, 4 * width]`.

    BatchNorm has momentum 0.9 and epsilon 1e-5, PyTorch's in Flax's terms. The running variance is the biased one,
    as everywhere in Flax, where PyTorch's is N / (N - 1) times it.

    Raises `ModelError` for a depth or a shortcut that is none.

    Reference: He et al. 2016, Deep residual learning for image recognition, arXiv:1512.03385, section 4.2.

    >>> import jax
    >>> from tljax.tree import count, select, split
    >>> params = jax.eval_shape(resnet(20).init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))
    >>> count(params) - count(split(params, "**/batch_stats/*")[0])
    269722
    """
    if depth < 8 or depth % 6 != 2:
        raise ModelError(f"resnet: depth={depth}; expected 6n + 2, as 20, 32, 44, 56 or 110")
    if shortcut not in ("A", "B"):
        raise ModelError(f"resnet: shortcut={shortcut!r}; expected 'A' (padded identity) or 'B' (1x1 convolution)")
    blocks = (depth - 2) // 6
    groups = ("stem", *(f"stage_{s}/block_{i:02d}" for s in (1, 2, 3) for i in range(blocks)))
    backbone = _ResNet(blocks, width, shortcut)
    return classifier(backbone, num_classes, groups=groups, name=f"resnet{depth}", keymaps=keymaps())


FAMILY = Family("cifar_resnet", resnet, nothing, recognise, resize={"backbone/stem/conv/kernel": input_channels()})


class _ResNet(nn.Module):
    blocks: int
    width: int
    shortcut: str

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = _Stem(self.width, name="stem")(as_images(x, "resnet"), train)
        for stage in range(3):
            x = _Stage(self.blocks, self.width << stage, min(stage, 1) + 1, self.shortcut, name=f"stage_{stage + 1}")(
                x, train
            )
        return mean_of_map(x)


class _Stem(nn.Module):
    channels: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        return nn.relu(batch_norm(train)(name="norm")(conv(self.channels)(name="conv")(x)))


class _Stage(nn.Module):
    blocks: int
    channels: int
    stride: int
    shortcut: str

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        for i in range(self.blocks):
            stride = self.stride if i == 0 else 1
            x = _Block(self.channels, stride, self.shortcut, name=f"block_{i:02d}")(x, train)
        return x


class _Block(nn.Module):
    channels: int
    stride: int
    shortcut: str

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        norm = batch_norm(train)
        y = nn.relu(norm(name="norm_1")(conv(self.channels, 3, self.stride)(name="conv_1")(x)))
        y = norm(name="norm_2")(conv(self.channels)(name="conv_2")(y))
        x = x[:, :: self.stride, :: self.stride]
        missing = self.channels - x.shape[-1]
        if missing and self.shortcut == "A":
            x = jnp.pad(x, [(0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)])
        elif missing:
            x = norm(name="shortcut_norm")(pointwise(self.channels, "shortcut_conv")(x))
        return nn.relu(x + y)
