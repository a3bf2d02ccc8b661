"""Convolution kernels: other input channels, another spatial size."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from tljax.tree.paths import dtype_of
from tljax.tree.rule import ResizeError, Rule, shape_text


def input_channels(source_channels: int | None = None, target_channels: int | None = None) -> Rule:
    """Fits a first layer to images with other channels, keeping the response to grey images.

    Works on convolution kernels `[..., I, O]`, and on the kernels `[p * p * I, O]` of patch embeddings,
    channel fastest, for which the channels must be given. To one channel, the input channels are summed. To
    n channels, they are repeated in order and scaled:

        W'[..., j, :] = W[..., j mod I, :] * I / n

    so an image with n equal channels gets the response the grey one had. For I = 3 this is what timm's
    ``adapt_input_conv`` does; it refuses other I.

    The spatial size stays; a list ``[kernel_size(), input_channels()]`` does both.

    Raises `ResizeError` when the channels are not told or do not divide the axis.

    >>> rule = input_channels()
    >>> rule("stem/kernel", np.ones((3, 3, 3, 8), np.float32), np.zeros((3, 3, 1, 8), np.float32))[0, 0, :, 0]
    array([3.], dtype=float32)
    """

    def apply(name: str, source: Any, target: Any) -> np.ndarray:
        m, n = source_channels, target_channels
        if np.ndim(source) >= 3:
            m, n = m or np.shape(source)[-2], n or np.shape(target)[-2]
        if m is None or n is None:
            raise ResizeError(
                f"{name}: the channels of {shape_text(source)} cannot be told from its shape; "
                "write input_channels(source_channels, target_channels), for example input_channels(3, 1)"
            )
        kernel = _float32(source)
        *_, rows, outputs = kernel.shape
        if rows % m:
            raise ResizeError(f"{name}: axis -2 of {shape_text(source)} does not divide into {m} channels")
        kernel = kernel.reshape(*kernel.shape[:-2], rows // m, m, outputs)
        if n == 1:
            kernel = kernel.sum(-2, keepdims=True)
        elif n != m:
            kernel = np.take(kernel, np.arange(n) % m, axis=-2) * np.float32(m / n)
        return kernel.reshape(*kernel.shape[:-3], rows // m * n, outputs)

    return Rule("input_channels", apply, reorders=False)


def kernel_size(*, method: Literal["centre", "bilinear"] = "centre") -> Rule:
    """Fits a convolution kernel `[k..., I, O]` to another spatial size.

    ``"centre"`` crops or pads with zeros around the centre (an odd difference loses or gains one more at the
    end). ``"bilinear"`` interpolates (with antialiasing when it shrinks) and scales by the ratio of the
    areas, so that a constant image keeps about the same response.

    Raises `ResizeError` for leaves that are no convolution kernels.

    >>> rule = kernel_size()
    >>> rule("conv/kernel", np.ones((1, 1, 1, 1), np.float32), np.zeros((3, 3, 1, 1)))[..., 0, 0]
    array([[0., 0., 0.],
           [0., 1., 0.],
           [0., 0., 0.]], dtype=float32)
    """
    if method not in ("centre", "bilinear"):
        raise ResizeError(f"kernel_size: method={method!r}; expected 'centre' or 'bilinear'")

    def apply(name: str, source: Any, target: Any) -> np.ndarray:
        kernel, shape = _float32(source), np.shape(target)
        if kernel.ndim < 3 or kernel.ndim != len(shape):
            raise ResizeError(
                f"{name}: no convolution kernels [k..., I, O]: {shape_text(source)}, {shape_text(target)}"
            )
        spatial = kernel.ndim - 2
        if method == "bilinear":
            size = (*shape[:spatial], *kernel.shape[spatial:])
            ratio = np.prod(kernel.shape[:spatial]) / np.prod(shape[:spatial])
            return np.asarray(jax.image.resize(jnp.asarray(kernel), size, "linear")) * np.float32(ratio)
        for axis in range(spatial):
            kernel = _centred(kernel, axis, shape[axis])
        return kernel

    return Rule("kernel_size", apply, method, reorders=False)


def _centred(kernel: np.ndarray, axis: int, size: int) -> np.ndarray:
    surplus = kernel.shape[axis] - size
    if surplus >= 0:
        return np.take(kernel, np.arange(size) + surplus // 2, axis=axis)
    pad = [(0, 0)] * kernel.ndim
    pad[axis] = (-surplus // 2, -surplus - -surplus // 2)
    return np.pad(kernel, pad)


def _float32(source: Any) -> np.ndarray:
    """A float array in at least float32: half precision is too coarse to sum and scale in."""
    return np.asarray(source).astype(np.promote_types(dtype_of(source), np.float32))
