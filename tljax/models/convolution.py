"""The layers that convolutional networks share, with torch's padding and statistics."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from tljax.models.classifier import PatchConv
from tljax.types import Array


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
