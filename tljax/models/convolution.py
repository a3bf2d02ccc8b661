"""The layers that convolutional networks share, with torch's padding and statistics."""

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from tljax.models.classifier import PatchConv
from tljax.types import Array


def convolve(
    x: Array,
    kernel: Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    feature_group_count: int = 1,
    **how: Any,
) -> Array:
    """`jax.lax.conv_general_dilated` of `x` `[B, H, W, C]` and `kernel` `[h, w, C / groups, D]`, as `nn.Conv` calls it.

    Two kinds of convolution are done otherwise on CPU, where XLA has nothing but plain loops for them: on maps smaller
    than the kernel as one matrix product, up to twenty times as fast; and depthwise, with a kernel for each channel, as
    a sum of products of maps, which becomes a single loop: three times as fast in a MobileNet's step. With more taps
    than those of 3x3, such loops take long to compile. Nothing may be dilated.

    >>> x, kernel = jnp.ones((1, 2, 2, 3)), jnp.ones((3, 3, 3, 1))
    >>> convolve(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))[0, :, :, 0].tolist()
    [[12.0, 12.0], [12.0, 12.0]]
    """
    sides = [_Side(*side) for side in zip(x.shape[1:3], kernel.shape, strides, _pads(x, kernel, strides, padding))]
    depthwise = feature_group_count == x.shape[-1] == kernel.shape[-1] > 1 and math.prod(kernel.shape[:2]) <= 9
    small = feature_group_count == 1 and any(side.places() < side.taps for side in sides)
    if jax.default_backend() != "cpu" or not (depthwise or small):
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, feature_group_count=feature_group_count, **how)
    parts, weights = _taps(x, kernel, sides)
    if depthwise:
        wide = jnp.promote_types(x.dtype, jnp.float32)
        products = [part.astype(wide) * weight[None, None].astype(wide) for part, weight in zip(parts, weights)]
        return reduce(jnp.add, products).astype(x.dtype)
    patches = jnp.concatenate(parts, axis=-1)
    product = jnp.dot(patches.reshape(-1, patches.shape[-1]), jnp.concatenate(weights), precision=how.get("precision"))
    return product.reshape(*patches.shape[:3], -1)


class _Side(NamedTuple):
    """One side of a map, and of the kernel that goes over it."""

    size: int
    taps: int
    stride: int
    pad: tuple[int, int]

    def places(self) -> int:
        """How many places the kernel has."""
        return (self.size + sum(self.pad) - self.taps) // self.stride + 1

    def used(self) -> list[int]:
        """The taps that meet more than padding somewhere."""
        starts = range(-self.pad[0], self.stride * self.places() - self.pad[0], self.stride)
        return [i for i in range(self.taps) if any(0 <= start + i < self.size for start in starts)]

    def slice(self, tap: int) -> slice:
        """What `tap` meets, of the padded map."""
        return slice(tap, tap + self.stride * (self.places() - 1) + 1, self.stride)


def _pads(x: Array, kernel: Array, strides: Sequence[int], padding: str | Sequence[tuple[int, int]]) -> Any:
    if isinstance(padding, str):
        return jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    return padding


def _taps(x: Array, kernel: Array, sides: list[_Side]) -> tuple[list[Array], list[Array]]:
    """For each tap of the kernel what it meets, `[B, h, w, C]`, and its weights, `[C / groups, D]`."""
    padded = jnp.pad(x, ((0, 0), *(side.pad for side in sides), (0, 0)))
    rows, columns = sides
    used = [(i, j) for i in rows.used() for j in columns.used()]
    return [padded[:, rows.slice(i), columns.slice(j)] for i, j in used], [kernel[i, j] for i, j in used]


def conv(
    channels: int, size: int = 3, stride: int = 1, *, groups: int = 1, bias: bool = False
) -> Callable[..., nn.Conv]:
    """A convolution of odd `size` with the same padding on every side.

    Also with stride 2, where "SAME" pads one side only and so shifts the image against torch's.
    """
    return partial(
        nn.Conv,
        channels,
        (size, size),
        (stride, stride),
        padding=((size // 2, size // 2),) * 2,
        feature_group_count=groups,
        use_bias=bias,
        kernel_init=nn.initializers.he_normal(),
        conv_general_dilated=convolve,
    )


def batch_norm(train: bool, epsilon: float = 1e-5) -> Callable[..., nn.BatchNorm]:
    """BatchNorm with momentum 0.9: torch's 0.1, in Flax's terms."""
    return partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=epsilon)


def pointwise(channels: int, name: str) -> PatchConv:
    """A 1x1 convolution without bias, as a matmul."""
    return PatchConv(channels, use_bias=False, name=name)


def mean_of_map(x: Array) -> Array:
    """The features `[B, C]` of a map `[B, H, W, C]`: its mean over the pixels."""
    return jnp.mean(x, axis=(1, 2))
