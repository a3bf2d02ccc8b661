"""Which axes of a weight are inputs, and which are outputs: what an adapter must know of a leaf.

In JAX a weight is mostly ``[ins..., outs...]``: a dense kernel `[D, E]`, attention `[D, H, K]` and back `[H, K, D]`, a
convolution `[h, w, i, o]`, an embedding `[V, D]`. PyTorch, Equinox and their like have `[outs, ins...]`. Layers stacked
by `nn.scan` or `jax.vmap` put their axes in front.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp

from tljax.types import Array


class Layout(NamedTuple):
    """The axes of a weight; static and hashable."""

    kind: str = "dense"
    """``"dense"``, ``"conv"``, ``"embedding"``, or ``"vector"`` for biases and norms."""
    stack: int = 0
    """The number of leading axes over which layers are stacked."""
    ins: int = 1
    """The number of input axes: 1 for dense, 2 for DenseGeneral back to the model, 3 for a 2-D convolution."""
    transposed: bool = False
    """False: ``[stack..., ins..., outs...]``; True: ``[stack..., outs..., ins...]``."""

    def parts(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """The sizes of the axes of a weight of `shape`: stacked, inputs, outputs.

        >>> Layout("conv", ins=3).parts((3, 3, 16, 32)), Layout(transposed=True).parts((10, 4))
        (((), (3, 3, 16), (32,)), ((), (4,), (10,)))
        """
        stack, rest = tuple(shape[: self.stack]), tuple(shape[self.stack :])
        if self.transposed:
            at = len(rest) - self.ins
            return stack, rest[at:], rest[:at]
        return stack, rest[: self.ins], rest[self.ins :]

    def fan(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """The number of inputs and of outputs of one layer.

        >>> Layout("conv", ins=3).fan((3, 3, 16, 32))
        (144, 32)
        """
        _, ins, outs = self.parts(shape)
        return math.prod(ins), math.prod(outs)

    def forward(self, weight: Array) -> Array:
        """`weight` as ``[stack..., ins..., outs...]``.

        >>> Layout(transposed=True).forward(jnp.zeros((10, 4))).shape
        (4, 10)
        """
        if not self.transposed:
            return weight
        return _moved(weight, self.stack, weight.ndim - self.stack - self.ins)

    def backward(self, weight: Array) -> Array:
        """The inverse of `forward`: ``[stack..., ins..., outs...]`` in the weight's own order.

        >>> Layout(transposed=True).backward(jnp.zeros((4, 10))).shape
        (10, 4)
        """
        return _moved(weight, self.stack, self.ins) if self.transposed else weight


def _moved(weight: Array, start: int, n: int) -> Array:
    """The `n` axes from `start` on become the last."""
    axes = list(range(weight.ndim))
    return jnp.transpose(weight, axes[:start] + axes[start + n :] + axes[start : start + n])
