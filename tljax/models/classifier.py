"""What every model of the catalogue is: a backbone that makes features `[B, D]`, and a linear head."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax

from tljax.models.flax_module import wrap_linen
from tljax.models.wrapping import Layout, ModelError
from tljax.types import Array, Model, Output


class Classifier(nn.Module):
    """``head(backbone(x))``; the backbone takes the batch and whether it trains."""

    backbone: nn.Module
    num_classes: int
    head: Callable[..., nn.Module] = nn.Dense

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Output:
        features = self.backbone(x, train)
        return Output(self.head(self.num_classes, name="head")(features), features)


class PatchConv(nn.Module):
    """A convolution over patches that do not overlap, as one matmul; with ``patch=1`` a 1x1 convolution.

    On CPU its gradient is faster than that of `nn.Conv`, fourfold for 1x1. The kernel has the convolution's shape
    `[patch, patch, C, features]`, so that files and resize rules see one.
    """

    features: int
    patch: int = 1
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        B, H, W, C = x.shape
        p, h, w = self.patch, H // self.patch, W // self.patch
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (p, p, C, self.features))
        patches = x.reshape(B, h, p, w, p, C).transpose(0, 1, 3, 2, 4, 5)
        y = patches.reshape(-1, p * p * C) @ kernel.reshape(-1, self.features)
        if self.use_bias:
            y += self.param("bias", nn.initializers.zeros, (self.features,))[None]
        return y.reshape(B, h, w, self.features)


def classifier(
    backbone: nn.Module,
    num_classes: int,
    *,
    groups: tuple[str, ...],
    name: str,
    keymaps: Mapping[str, Any] | None = None,
    head: Callable[..., nn.Module] = nn.Dense,
) -> Model:
    """The model with this backbone; `groups` are those of the backbone, and the head follows.

    `head` makes the module of the head of the number of classes and its name.

    Raises `ModelError` unless `num_classes` is a whole number above 0.
    """
    if not isinstance(num_classes, int) or num_classes < 1:
        raise ModelError(f"{name}: num_classes={num_classes!r}; expected a whole number, 1 or more")
    model = wrap_linen(
        Classifier(backbone, num_classes, head),
        lambda spec: Layout(("head",), split=True),
        groups=(*(f"backbone/{group}/**" for group in groups), "head/**"),
        name=name,
    )
    return model._replace(keymaps=keymaps or {})


def as_images(x: Array, name: str) -> Array:
    """`x` as images `[B, H, W, C]`; `[B, H, W]` are grey.

    Raises `ModelError` for other shapes.

    >>> import jax.numpy as jnp
    >>> as_images(jnp.zeros((2, 8, 8)), "lenet").shape
    (2, 8, 8, 1)
    """
    if x.ndim == 3:
        return x[..., None]
    if x.ndim != 4:
        raise ModelError(f"{name} takes images [B, H, W, C] or grey ones [B, H, W]; found the shape {x.shape}")
    return x


def activation(name: str) -> Callable[[Array], Array]:
    """The activation function called `name`. Raises `ModelError` for a name that is not one of them.

    >>> import jax.numpy as jnp
    >>> activation("relu")(jnp.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    if name not in _ACTIVATIONS:
        raise ModelError(f"activation={name!r}; expected one of {', '.join(map(repr, _ACTIVATIONS))}")
    return _ACTIVATIONS[name]


_ACTIVATIONS = {
    "relu": nn.relu,
    "relu6": nn.relu6,
    "leaky_relu": nn.leaky_relu,
    "leaky_relu_0.1": lambda x: nn.leaky_relu(x, negative_slope=0.1),
    "gelu": lambda x: 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5)),  # as torch; with erfc, as flax has it, half as fast
    "gelu_pytorch_tanh": nn.gelu,
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "silu": nn.silu,
    "tanh": nn.tanh,
}
