"""The multilayer perceptron."""

from collections.abc import Sequence

import flax.linen as nn

from tljax.models.classifier import activation as activation_called
from tljax.models.classifier import classifier
from tljax.models.wrapping import ModelError
from tljax.types import Array, Model

_NORMS = (None, "batch", "layer")


def mlp(
    hidden: Sequence[int] = (20,),
    num_classes: int = 10,
    *,
    activation: str = "relu",
    norm: str | None = None,
    dropout: float = 0.0,
) -> Model:
    """A multilayer perceptron; inputs of any shape are flattened to `[B, D]`.

    Args:
      hidden: the width of each hidden layer; none makes a linear model. The input's width comes from `x`.
      num_classes: outputs of the head.
      activation: "relu", "gelu", "silu" or "tanh".
      norm: "batch" or "layer" normalisation between a layer and its activation, or None.
      dropout: rate after each activation.

    Raises `ModelError` for a width, an activation or a norm that is none.

    >>> import jax, jax.numpy as jnp
    >>> from tljax.tree import count
    >>> model = mlp((20,), num_classes=10)
    >>> count(model.init(jax.random.key(0), jnp.ones((1, 10))))  # 10-20-10: 10*20 + 20 + 20*10 + 10
    430
    """
    if not isinstance(hidden, Sequence) or not all(isinstance(width, int) and width > 0 for width in hidden):
        raise ModelError(f"mlp: hidden={hidden}; expected whole numbers above 0, as in mlp((256, 128), num_classes=10)")
    if norm not in _NORMS:
        raise ModelError(f"mlp: norm={norm!r}; expected one of {', '.join(map(repr, _NORMS))}")
    activation_called(activation)
    groups = tuple(f"block_{i:02d}" for i in range(len(hidden)))
    return classifier(_MLP(tuple(hidden), activation, norm, dropout), num_classes, groups=groups, name="mlp")


class _MLP(nn.Module):
    hidden: tuple[int, ...]
    activation: str
    norm: str | None
    dropout: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.hidden):
            x = _Block(width, self.activation, self.norm, self.dropout, name=f"block_{i:02d}")(x, train)
        return x


class _Block(nn.Module):
    width: int
    activation: str
    norm: str | None
    dropout: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = nn.Dense(self.width, name="dense")(x)
        if self.norm == "batch":
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        if self.norm == "layer":
            x = nn.LayerNorm(name="norm")(x)
        x = activation_called(self.activation)(x)
        return nn.Dropout(self.dropout, deterministic=not train)(x)
