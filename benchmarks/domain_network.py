"""The networks of the digits benchmark: LeNet as in TLlib, with the bottleneck and the head of each method.

Layers begin as torch's, weights and biases uniform in +-1/sqrt(fan-in). Convolutions are valid, 5x5, and each is
followed by a 2x2 max-pool: both together are one matrix product over tiles of the map (`conv_pool`), which computes the
same and trains two to three times as fast on a CPU as XLA's convolution with its max-pool.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import tljax as tl
from tljax import objectives

KINDS = ("plain", "norm", "dropout", "norm+dropout", "afn", "mcd", "mdd")
"""The bottleneck and head: none; Dense-BatchNorm-ReLU; Dense-ReLU-Dropout; both; those of AFN, MCD and MDD."""


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
        return tl.Output(dense(self.num_classes, features, "head"), features)


class Backbone(nn.Module):
    """conv 20 - pool - ReLU - conv 50 - Dropout2d - pool - ReLU - dense 500 - ReLU - Dropout, and the bottleneck."""

    kind: str
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = (x.astype(jnp.float32) / 255 - 0.5) / 0.5
        x = nn.relu(ConvPool(20, tile=4, name="conv_0")(blocks(x, 4)))
        x = ConvPool(50, tile=2, name="conv_1")(x)
        # A channel that is dropped is dropped before and after the maximum alike.
        x = nn.relu(nn.Dropout(self.dropout, broadcast_dims=(1, 2), deterministic=not train)(x))
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
            x = nn.Dense(1000, kernel_init=nn.initializers.normal(0.01), name="dense")(x)
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


class ConvPool(nn.Module):
    """A valid 5x5 convolution and a 2x2 max-pool; see `conv_pool` for what goes in and comes out."""

    channels: int
    tile: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (5, 5, x.shape[-1] // self.tile**2, self.channels)
        start = uniform(25 * shape[2])
        return conv_pool(x, self.param("kernel", start, shape), self.param("bias", start, shape[-1:]), self.tile)


def conv_pool(x: jax.Array, kernel: jax.Array, bias: jax.Array, tile: int) -> jax.Array:
    """The 2x2 maxima of ``x * kernel + bias``, the convolution valid.

    Args:
        x: `[B, H, W, tile tile C]`, the map in `blocks` of `tile` x `tile` pixels, `[B, H tile, W tile, C]`.
        kernel: `[K, K, C, D]`, with ``K - 1`` a multiple of `tile`.
        bias: `[D]`.
        tile: the output is computed in tiles of this size, each from the window of ``tile + K - 1`` pixels that it
            needs: one row of a matrix, times a matrix that holds the kernel once for each pixel of the tile.

    Returns `[B, h, w, D (tile / 2)^2]`: the pooled map in blocks of ``tile / 2``, which for ``tile=2`` is the map.
    """
    size, channels = kernel.shape[0], kernel.shape[-1]
    reach, half = (tile + size - 1) // tile, tile // 2
    spread = jnp.stack([_moved(kernel, i, 0, tile) for i in range(tile)], axis=3)
    spread = jnp.stack([_moved(spread, j, 1, tile) for j in range(tile)], axis=4)  # [window, window, C, tile, tile, D]
    matrix = spread.reshape(reach, tile, reach, tile, -1, half, 2, half, 2, channels)
    matrix = matrix.transpose(0, 2, 1, 3, 4, 6, 8, 5, 7, 9).reshape(-1, tile * tile * channels)
    h, w = x.shape[1] - reach + 1, x.shape[2] - reach + 1
    rows = jnp.concatenate([x[:, i : i + h, j : j + w] for i in range(reach) for j in range(reach)], axis=-1)
    out = rows.reshape(-1, rows.shape[-1]) @ matrix
    pooled = first_maximum(out.reshape(-1, 4, half * half * channels)).reshape(x.shape[0], h, w, -1)
    return pooled + jnp.tile(bias, half * half)[None, None, None]


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
