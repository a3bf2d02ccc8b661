"""Images and features of one source made to fit a model trained on another: size, channels, standardisation."""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from tljax.data.arrays import Dataset
from tljax.data.error import DataError
from tljax.types import Array

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's mode "L"


def resize_images(
    x: np.ndarray, size: tuple[int, int], *, batch_size: int = 256, where: str = "what is resized"
) -> np.ndarray:
    """Images `[N, H, W, C]` at another height and width, `[N, h, w, C]` float32.

    Bilinear with antialiasing: shrinking averages over the pixels that fall together. Done `batch_size` images at a
    time, so that memory stays bounded. `where` names the images in errors.

    Raises:
      DataError: `x` is not `[N, H, W, C]`, or the size is not positive.

    >>> resize_images(np.ones((3, 8, 8, 1), np.float32), (4, 6)).shape
    (3, 4, 6, 1)
    """
    _check_images(x, where)
    if len(size) != 2 or min(size) < 1:
        raise DataError(f"the size of images is (height, width), both 1 or more; found {tuple(size)}")
    size = (int(size[0]), int(size[1]))
    if x.shape[1:3] == size:
        return x.astype(np.float32, copy=False)
    out = np.empty((len(x), *size, x.shape[3]), np.float32)
    batch_size = max(min(batch_size, len(x)), 1)
    for start in range(0, len(x), batch_size):
        batch = x[start : start + batch_size].astype(np.float32, copy=False)
        whole = np.concatenate([batch, np.zeros((batch_size - len(batch), *batch.shape[1:]), np.float32)])
        out[start : start + batch_size] = np.asarray(_resized(whole, size))[: len(batch)]
    return out


@partial(jax.jit, static_argnums=1)
def _resized(x: Array, size: tuple[int, int]) -> Array:
    return jax.image.resize(x, (x.shape[0], *size, x.shape[3]), "bilinear", antialias=True)


def _check_images(x: np.ndarray, where: str) -> None:
    if x.ndim != 4:
        raise DataError(
            f"{where} holds no images [N, H, W, C], as a size or a model of images needs; its x is {list(x.shape)}"
        )


def match_images(dataset: Dataset, height: int, width: int, channels: int) -> Dataset:
    """The data set with its images brought to `[N, height, width, channels]`.

    Grey becomes colour by repeating, colour becomes grey by luma `0.299 R + 0.587 G + 0.114 B`.

    Raises:
      DataError: it holds no images, or channels other than 1 and 3 would have to be converted.

    >>> rgb = Dataset(np.ones((2, 4, 4, 3)), np.array([0, 1]))
    >>> match_images(rgb, 8, 8, 1).x.shape
    (2, 8, 8, 1)
    """
    x = dataset.x
    _check_images(x, f"data set {dataset.name!r}")
    found = x.shape[3]
    if found != channels and {found, channels} != {1, 3}:
        raise DataError(
            f"data set {dataset.name!r} has images of {found} channels where {channels} are needed; "
            "only grey (1) and RGB (3) can be turned into each other"
        )
    if found > channels:  # the cheaper side first: resize what has fewer channels
        x = (x @ _LUMA)[..., None]
    x = resize_images(x, (height, width))
    return dataclasses.replace(dataset, x=np.repeat(x, channels // found, axis=3) if found < channels else x)


class Standardiser(NamedTuple):
    """Mean and standard deviation of a source's training inputs, for the source and the target alike."""

    mean: np.ndarray
    """`[C]`: per channel of images, per feature of anything else (last axis)."""
    std: np.ndarray
    """`[C]`, with 1 where the feature is constant."""


def fit_standardiser(x: np.ndarray) -> Standardiser:
    """The statistics of `x` `[N, ..., C]` over all axes but the last.

    Raises:
      DataError: `x` does not hold floats.

    >>> mean, std = fit_standardiser(np.array([[1.0, 5.0], [3.0, 5.0]]))
    >>> mean.tolist(), std.tolist()
    ([2.0, 5.0], [1.0, 1.0])
    """
    if x.ndim < 2 or x.dtype.kind != "f":
        raise DataError(f"only floats [N, ..., C] can be standardised; found {x.dtype} {list(x.shape)}")
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes, dtype=np.float64)
    # About the mean, a part at a time: a float64 copy of a large set would take twice its memory.
    step = max(1, 2**22 // max(1, x[0].size))
    squares = sum(np.square(x[i : i + step] - mean).sum(axes) for i in range(0, len(x), step))
    std = np.sqrt(squares / (x.size / x.shape[-1]))
    # What varies by less than float32 can tell from its mean is constant.
    constant = std <= np.finfo(np.float32).eps * np.abs(mean)
    return Standardiser(mean.astype(np.float32), np.where(constant, 1, std).astype(np.float32))


def standardise(x: np.ndarray, standardiser: Standardiser) -> np.ndarray:
    """`(x - mean) / std` along the last axis of `x` `[N, ..., C]`, float32.

    Raises:
      DataError: the last axis of `x` has another length than the statistics.

    >>> standardise(np.array([[4.0, 5.0]]), Standardiser(np.array([2.0, 5.0]), np.array([1.0, 1.0])))
    array([[2., 0.]], dtype=float32)
    """
    mean, std = (np.asarray(value, np.float32) for value in standardiser)
    if x.shape[-1:] != mean.shape:
        raise DataError(f"the statistics are of {len(mean)} features or channels; x is {list(x.shape)}")
    out = np.subtract(x, mean, dtype=np.float32)
    return np.divide(out, std, out=out)
