"""The networks of the digits benchmark: LeNet as in TLlib, with the bottleneck and the head of each method.

Layers begin as torch's, weights and biases uniform in +-1/sqrt(fan-in). Convolutions are valid, 5x5, and each is
followed by a 2x2 max-pool. Written with XLA's, training this takes five times as long as with torch's on one CPU core;
so both layers are written as matrix products, in float32 as everything else:

- The first computes tiles of 4x4 outputs, each from its window of 8x8 pixels: one row of 64 numbers times a matrix that
  holds the kernel sixteen times, moved.
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
    x = blocks(x, 4).transpose(1, 2, 0, 3)
    windows = jnp.concatenate([x[i : i + 6, j : j + 6] for i in range(2) for j in range(2)], axis=-1)
    tile = tile_kernel(kernel, 4)
    out = windows.reshape(-1, windows.shape[-1]) @ tile.reshape(windows.shape[-1], -1)
    return pooled(out, jnp.tile(bias, 4)).reshape(36, x.shape[2], -1)


def second_maps(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Convolution and max-pool of maps of 12x12 as `first_maps` gives them, `[36, B, 4 C]`: 4x4, `[16, B, D]`.

    Reference: Lavin and Gray 2015, arXiv 1509.09308.
    """
    tile = tile_kernel(kernel, 2)  # [9, 4 C, 4 D]: a 3x3 kernel between blocks
    given, made = tile.shape[1:]
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


def tile_kernel(kernel: jax.Array, tile: int) -> jax.Array:
    """What makes a tile of `tile` x `tile` outputs of a convolution out of the blocks of that size in its window.

    ``[K, K, C, D] -> [blocks, tile tile C, 4 (tile / 2)^2 D]``: the outputs are ordered by their place in a window of
    the max-pool, then by that window.
    """
    size, channels = kernel.shape[0], kernel.shape[-1]
    reach, half = (tile + size - 1) // tile, tile // 2
    moved = jnp.stack([_moved(kernel, i, 0, tile) for i in range(tile)], axis=3)
    moved = jnp.stack([_moved(moved, j, 1, tile) for j in range(tile)], axis=4)  # [window, window, C, tile, tile, D]
    parts = moved.reshape(reach, tile, reach, tile, -1, half, 2, half, 2, channels)
    return parts.transpose(0, 2, 1, 3, 4, 6, 8, 5, 7, 9).reshape(reach**2, -1, tile**2 * channels)


def _moved(kernel: jax.Array, by: int, axis: int, tile: int) -> jax.Array:
    """`kernel` within a window that is ``tile - 1`` larger, `by` pixels from its start."""
    padding = [(0, 0)] * kernel.ndim
    padding[axis] = (by, tile - 1 - by)
    return jnp.pad(kernel, padding)


def blocks(x: jax.Array, size: int) -> jax.Array:
    """`[B, H, W, C]` in blocks, `[B, H / size, W / size, size size C]`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // size, size, w // size, size, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // size, w // size, -1)


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
    chosen = jnp.arange(4, dtype=jnp.int32)[None, :, None] == where[:, None]
    return (jnp.where(chosen, gradient[:, None], 0),)


first_maximum.defvjp(_maximum_forward, _maximum_backward)


def uniform(fan_in: int) -> Callable[..., jax.Array]:
    """torch's start of a layer."""
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def dense(width: int, x: jax.Array, name: str) -> jax.Array:
    """A dense layer that begins as torch's."""
    start = uniform(x.shape[-1])
    return nn.Dense(width, kernel_init=start, bias_init=start, name=name)(x)
