"""LeNet, the small convolutional network for digits."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tljax.checkpoints.keymap import Keymap
from tljax.checkpoints.layers import conv, dense
from tljax.checkpoints.layouts import flattened
from tljax.models.classifier import as_images, classifier
from tljax.models.convolution import convolve
from tljax.models.family import Family, Found, Shapes, nothing
from tljax.models.max_pooling import max_pool
from tljax.models.wrapping import ModelError
from tljax.tree import input_channels
from tljax.types import Array, Model


def lenet(
    num_classes: int = 10,
    *,
    channels: tuple[int, int] = (32, 64),
    kernel: int = 3,
    hidden: int = 200,
    grid: int | None = None,
    dropout: float = 0.0,
) -> Model:
    """LeNet: twice convolution, ReLU and 2x2 max-pooling, then a dense layer.

    Args:
      num_classes: outputs of the head.
      channels: of the two convolutions.
      kernel: their size.
      hidden: width of the dense layer, which makes the features.
      grid: average the last map over a grid of this size before the dense layer, so that the same weights fit
        images of any size. None flattens the map, and the weights fit one size; for 28x28 ``grid=7`` does the same.
      dropout: rate before the head.

    Images `[B, H, W, C]` or grey `[B, H, W]`, with sides of 4 pixels or more; the features are `[B, hidden]`. For 28x28
    grey images it has 648,226 parameters.

    Reference: LeCun et al. 1998, Gradient-based learning applied to document recognition; ReLU, max-pooling and
    widths as in later practice.

    >>> from tljax.tree import count
    >>> count(jax.eval_shape(lenet().init, jax.random.key(0), jnp.ones((1, 28, 28, 1))))
    648226
    """
    backbone = _LeNet(tuple(channels), kernel, hidden, grid, dropout)
    return classifier(
        backbone, num_classes, groups=("conv_0", "conv_1", "dense"), name="lenet", keymaps=_keymaps(channels[-1])
    )


class _LeNet(nn.Module):
    channels: tuple[int, ...]
    kernel: int
    hidden: int
    grid: int | None
    dropout: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = as_images(x, "lenet")
        if min(x.shape[1:3]) < 4:
            raise ModelError(
                f"lenet takes images with sides of 4 pixels or more; found the shape {x.shape}; resize them, or choose "
                "another model"
            )
        for i, width in enumerate(self.channels):
            size = (self.kernel, self.kernel)
            x = nn.relu(nn.Conv(width, size, conv_general_dilated=convolve, name=f"conv_{i}")(x))
            x = max_pool(x, (2, 2), strides=(2, 2))
        if self.grid is not None:
            x = _grid_mean(x, self.grid)
        x = nn.relu(nn.Dense(self.hidden, name="dense")(x.reshape(x.shape[0], -1)))
        return nn.Dropout(self.dropout, deterministic=not train)(x)


def _grid_mean(x: Array, size: int) -> Array:
    """Means of `x` `[B, H, W, C]` over `size` x `size` cells, which overlap where `size` does not divide H or W."""

    def cells(length: int) -> Array:
        i = np.arange(size)
        start, stop = i * length // size, -(-(i + 1) * length // size)
        inside = (np.arange(length) >= start[:, None]) & (np.arange(length) < stop[:, None])
        return jnp.asarray(inside / inside.sum(1, keepdims=True), x.dtype)

    return jnp.einsum("bhwc,ih,jw->bijc", x, cells(x.shape[1]), cells(x.shape[2]))


def _keymaps(channels: int) -> dict[str, Keymap]:
    """torch's ``conv1``, ``conv2``, and ``linear1``, ``linear2`` or ``fc1``, ``fc2``; it flattens channels first."""
    convolutions = conv("backbone/conv_{n}", "conv{n+1}")
    return {
        name: Keymap(
            (*convolutions, *dense("backbone/dense", f"{layer}1", flattened(channels)), *dense("head", f"{layer}2"))
        )
        for name, layer in (("torch", "linear"), ("torch-fc", "fc"))
    }


def _recognise(shapes: Shapes) -> Found | None:
    first, second = shapes.get("conv1.weight", ()), shapes.get("conv2.weight", ())
    dense_1 = shapes.get("linear1.weight") or shapes.get("fc1.weight", ())
    if len(first) != 4 or len(second) != 4 or len(dense_1) != 2 or len(shapes) != 8:
        return None
    side = 4 * math.isqrt(dense_1[1] // second[0])
    options = {"channels": (first[0], second[0]), "kernel": first[2], "hidden": dense_1[0]}
    return Found(options, jax.ShapeDtypeStruct((1, side, side, first[1]), jnp.float32))


FAMILY = Family("lenet", lenet, nothing, _recognise, resize={"backbone/conv_0/kernel": input_channels()})
