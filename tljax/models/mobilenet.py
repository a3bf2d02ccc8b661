"""MobileNet, version 1."""

from collections.abc import Callable

import flax.linen as nn

from tljax.models.classifier import activation, as_images, classifier
from tljax.models.convolution import batch_norm, convolve, mean_of_map, pointwise
from tljax.models.family import Family
from tljax.models.mobilenet_names import from_config, keymaps, recognise
from tljax.models.wrapping import ModelError
from tljax.tree import input_channels
from tljax.types import Array, Model

_CHANNELS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


def mobilenet_v1(
    width: float = 1.0,
    num_classes: int = 1000,
    *,
    act: str = "relu6",
    padding: str = "same",
    epsilon: float = 1e-3,
    min_channels: int = 8,
    dropout: float = 0.0,
) -> Model:
    """MobileNetV1: a 3x3 stem and 13 pairs of a depthwise 3x3 and a 1x1 convolution, each with BatchNorm.

    Args:
      width: factor of all channels, as 1.0, 0.75, 0.5 or 0.25.
      num_classes: outputs of the head.
      act: the activation: "relu6" as published, "leaky_relu_0.1" and others in later checkpoints.
      padding: "same" as in TensorFlow, which pads one side only where the stride is 2; "even" pads one pixel on every
        side, as torch does.
      epsilon: of BatchNorm; 1e-3 as published, torch's default is 1e-5.
      min_channels: no layer has fewer, whatever the width.
      dropout: rate before the head.

    Images `[B, H, W, C]` or grey `[B, H, W]`, of any size; the features are `[B, 1024 * width]`.

    BatchNorm has momentum 0.9 in training, as the other models here; the published one had 0.9997.

    Raises `ModelError` for a padding or an activation that is none.

    Reference: Howard et al. 2017, MobileNets: efficient convolutional neural networks for mobile vision
    applications, arXiv:1704.04861, table 1.

    >>> import jax, jax.numpy as jnp
    >>> from tljax.tree import count, split
    >>> params = jax.eval_shape(mobilenet_v1(0.25).init, jax.random.key(0), jnp.ones((1, 64, 64, 3)))
    >>> count(split(params, "**/batch_stats/*")[1])
    470072
    """
    if padding not in ("same", "even"):
        raise ModelError(f"mobilenet_v1: padding={padding!r}; expected 'same' (TensorFlow) or 'even' (torch)")
    backbone = _MobileNet(width, activation(act), padding, epsilon, min_channels, dropout)
    return classifier(
        backbone,
        num_classes,
        groups=("stem", *(f"block_{i:02d}" for i in range(len(_STRIDES)))),
        name=f"mobilenet-v1-{width:g}",
        keymaps=keymaps(width, act, padding, epsilon, min_channels, dropout, num_classes),
    )


class _MobileNet(nn.Module):
    width: float
    act: Callable[[Array], Array]
    padding: str
    epsilon: float
    min_channels: int
    dropout: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        def channels(full: int) -> int:
            return max(int(full * self.width), self.min_channels)

        x = as_images(x, "mobilenet_v1")
        x = _Layer(channels(32), 2, False, self.act, self.padding, self.epsilon, name="stem")(x, train)
        for i, (full, stride) in enumerate(zip(_CHANNELS, _STRIDES)):
            block = _Block(channels(full), stride, self.act, self.padding, self.epsilon, name=f"block_{i:02d}")
            x = block(x, train)
        return nn.Dropout(self.dropout, deterministic=not train)(mean_of_map(x))


class _Block(nn.Module):
    channels: int
    stride: int
    act: Callable[[Array], Array]
    padding: str
    epsilon: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = _Layer(x.shape[-1], self.stride, True, self.act, self.padding, self.epsilon, name="depthwise")(x, train)
        x = pointwise(self.channels, "conv")(x)
        return self.act(batch_norm(train, self.epsilon)(name="norm")(x))


class _Layer(nn.Module):
    channels: int
    stride: int
    depthwise: bool
    act: Callable[[Array], Array]
    padding: str
    epsilon: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = nn.Conv(
            self.channels,
            (3, 3),
            (self.stride, self.stride),
            padding="SAME" if self.padding == "same" else ((1, 1), (1, 1)),
            feature_group_count=self.channels if self.depthwise else 1,
            use_bias=False,
            kernel_init=nn.initializers.he_normal(),
            conv_general_dilated=convolve,
            name="conv",
        )(x)
        return self.act(batch_norm(train, self.epsilon)(name="norm")(x))


FAMILY = Family(
    "mobilenet_v1",
    mobilenet_v1,
    from_config,
    recognise,
    resize={"backbone/stem/conv/kernel": input_channels()},
)
