"""The networks of the digits benchmark: LeNet as in TLlib, with the bottleneck and the head of each method.

Layers begin as torch's, weights and biases uniform in +-1/sqrt(fan-in). Convolutions are valid, 5x5, and each is
followed by a 2x2 max-pool. Written with XLA's, training this takes five times as long as with torch's on one CPU core;
so both layers are written as matrix products, in float32 as everything else:

- The first computes tiles of 2x2 outputs, which are the windows of the max-pool, each from its window of 6x6 pixels:
  one row of 36 numbers times a matrix that holds the kernel four times, moved.
- The second sees its map of 12x12 as 6x6 blocks of 2x2 pixels, and makes blocks of 2x2 outputs, which are the windows
  of the max-pool: so it is a 3x3 convolution from 6x6 to 4x4 blocks, of four times the channels. That is one tile of
  Winograd's algorithm F(4x4, 3x3), with 36 products instead of 144.

Maps are kept with the position on the first axis and the image on the second.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import tljax as tl
from tljax import objectives

KINDS = ("plain", "norm", "dropout", "norm+dropout", "afn", "mcd", "mdd")
"""The bottleneck and head: none; Dense-BatchNorm-ReLU; Dense-ReLU-Dropout; both; those of AFN, MCD and MDD."""

SMALL = nn.initializers.normal(0.01)
"""Where the layers of AFN's authors begin, and not as torch's."""


def network(kind: str, num_classes: int = 10, *, dropout: float = 0.5) -> tl.Model:
    """The model of a method, for images `[B, 28, 28, 1]` as bytes, 0 to 255. `dropout`: the rate throughout."""
    if kind not in KINDS:
        raise ValueError(f"there is no network {kind!r}; there are {', '.join(KINDS)}")
    return tl.from_flax(Digits(kind, num_classes, dropout), name=f"lenet-{kind}")


class Digits(nn.Module):
    """LeNet, a bottleneck, a head."""

    kind: str
    num_classes: int
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tl.Output:
        features = Backbone(self.kind, self.dropout, name="backbone")(x, train)
        if self.kind == "mcd":
            return tl.Output(
                objectives.DeepHead(self.num_classes, dropout=self.dropout, name="head")(features, train), features
            )
        if self.kind == "mdd":
            return tl.Output(
                objectives.MarginHead(self.num_classes, dropout=self.dropout, name="head")(features, train), features
            )
        if self.kind == "afn":
            return tl.Output(
                nn.Dense(self.num_classes, kernel_init=SMALL, bias_init=SMALL, name="head")(features), features
            )
        return tl.Output(dense(self.num_classes, features, "head"), features)


class Backbone(nn.Module):
    """conv 20 - pool - ReLU - conv 50 - Dropout2d - pool - ReLU - dense 500 - ReLU - Dropout, and the bottleneck."""

    kind: str
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = (x.astype(jnp.float32) / 255 - 0.5) / 0.5
        x = nn.relu(convolution(20, 1, "conv_0", first_maps)(x))
        x = convolution(50, 20, "conv_1", second_maps)(x)
        # A channel that is dropped is dropped before and after the maximum alike.
        x = nn.relu(nn.Dropout(self.dropout, broadcast_dims=(0,), deterministic=not train)(x)).transpose(1, 0, 2)
        x = nn.relu(dense(500, x.reshape(x.shape[0], -1), "dense"))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return x if self.kind in ("plain", "mcd") else Bottleneck(self.kind, self.dropout, name="bottleneck")(x, train)


class Bottleneck(nn.Module):
    """256 features; 1000 for AFN and 1024 for MDD."""

    kind: str
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        kind = self.kind
        scale = nn.initializers.ones
        if kind == "afn":
            x = nn.Dense(1000, kernel_init=SMALL, bias_init=SMALL, name="dense")(x)
            scale = lambda key, shape, dtype: 1 + 0.01 * jax.random.normal(key, shape, dtype)  # noqa: E731
        elif kind == "mdd":
            bias = nn.initializers.constant(0.1)
            x = nn.Dense(1024, kernel_init=nn.initializers.normal(0.005), bias_init=bias, name="dense")(x)
        else:
            x = dense(256, x, "dense")
        if kind != "dropout":
            x = nn.BatchNorm(not train, momentum=0.9, scale_init=scale, name="norm")(x)
        x = nn.relu(x)
        if kind == "norm":
            return x
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return (
            x * math.sqrt(1 - self.dropout) if kind == "afn" and train else x
        )  # AFN's dropout keeps the length, not the mean


class Convolution(nn.Module):
    """The parameters of a 5x5 convolution, and what computes it and its max-pool."""

    shape: tuple[int, int]
    maps: Callable[..., jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        start, shape = uniform(25 * self.shape[0]), (5, 5, *self.shape)
        return self.maps(x, self.param("kernel", start, shape), self.param("bias", start, shape[-1:]))


def convolution(channels: int, given: int, name: str, maps: Callable[..., jax.Array]) -> Convolution:
    """A layer from `given` to `channels` channels, to be called in a module."""
    return Convolution((given, channels), maps, name=name)


def first_maps(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Convolution and max-pool of images `[B, 28, 28, 1]`: a map of 12x12 as 6x6 blocks of 2x2, `[36, B, 4 D]`."""
    tile = tile_kernel(kernel).reshape(36, -1)
    windows = windows_of_8(x).reshape(-1, 8, 8)  # each has the four windows of a block
    four = [windows[:, i : i + 6, j : j + 6].reshape(-1, 36) @ tile for i in (0, 2) for j in (0, 2)]
    return jnp.concatenate([pooled(out, bias) for out in four], axis=1).reshape(36, x.shape[0], -1)


def windows_of_8(x: jax.Array) -> jax.Array:
    """The windows of 8x8 pixels that are 4 apart, of images `[B, 28, 28, 1]`: `[6, 6, B, 8, 8]`."""
    x = x.reshape(-1, 7, 4, 7, 4).transpose(1, 3, 0, 2, 4)
    wide = jnp.concatenate([x[:, :-1], x[:, 1:]], axis=-1)
    return jnp.concatenate([wide[:-1], wide[1:]], axis=-2)


def second_maps(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Convolution and max-pool of maps of 12x12 as `first_maps` gives them, `[36, B, 4 C]`: 4x4, `[16, B, D]`.

    Reference: Lavin and Gray 2015, arXiv 1509.09308.
    """
    given, made = 4 * kernel.shape[2], 4 * kernel.shape[3]
    tile = tile_kernel(kernel).reshape(3, 2, 3, 2, -1).swapaxes(1, 2)  # a 3x3 kernel between blocks
    seen = (jnp.asarray(np.kron(_INPUT, _INPUT)) @ x.reshape(36, -1)).reshape(x.shape)
    weights = (jnp.asarray(np.kron(_KERNEL, _KERNEL)) @ tile.reshape(9, -1)).reshape(36, given, made)
    products = jnp.einsum("pbc,pcd->pbd", seen, weights)
    out = jnp.asarray(np.kron(_OUTPUT, _OUTPUT)) @ products.reshape(36, -1)
    return pooled(out, bias).reshape(16, x.shape[1], -1)


_INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float32,
)  # fmt: skip
_KERNEL = np.array(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], np.float32
) / np.float32(24)  # fmt: skip
_OUTPUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], np.float32
)  # fmt: skip


def tile_kernel(kernel: jax.Array) -> jax.Array:
    """What makes a tile of 2x2 outputs of a convolution out of its window, ``[K, K, C, D] -> [K+1, K+1, C, 4, D]``."""
    moved = [jnp.pad(kernel, ((i, 1 - i), (j, 1 - j), (0, 0), (0, 0))) for i in range(2) for j in range(2)]
    return jnp.stack(moved, axis=3)


def pooled(out: jax.Array, bias: jax.Array) -> jax.Array:
    """The maximum of each four places, and the bias, which is the same for the four: `[N, 4 D]` to `[N, D]`."""
    top = first_maximum(out.reshape(-1, 4, bias.shape[0]))
    return top + bias[None]


@jax.custom_vjp
def first_maximum(x: jax.Array) -> jax.Array:
    """The maximum over the four of `[N, 4, D]`; the gradient goes to the first that has it, as torch's does."""
    return x.max(axis=1)


def _maximum_forward(x: jax.Array) -> tuple[jax.Array, Any]:
    top = x.max(axis=1)
    where = jnp.where(x[:, 0] >= top, 0, jnp.where(x[:, 1] >= top, 1, jnp.where(x[:, 2] >= top, 2, 3)))
    return top, where.astype(jnp.int32)


def _maximum_backward(where: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    return (jnp.stack([jnp.where(where == place, gradient, 0) for place in range(4)], axis=1),)


first_maximum.defvjp(_maximum_forward, _maximum_backward)


def uniform(fan_in: int) -> Callable[..., jax.Array]:
    """torch's start of a layer."""
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def dense(width: int, x: jax.Array, name: str) -> jax.Array:
    """A dense layer that begins as torch's."""
    start = uniform(x.shape[-1])
    return nn.Dense(width, kernel_init=start, bias_init=start, name=name)(x)
