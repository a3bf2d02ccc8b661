"""Augmentation that mixes the examples of a batch; labels become soft `[B, C]`, which `cross_entropy` takes."""

from typing import Any

import jax
import jax.numpy as jnp

from tljax.data.augment import Augment
from tljax.data.error import DataError
from tljax.types import Array, Batch, Key


def mixup(num_classes: int, alpha: float = 0.2) -> Augment:
    """Each example mixed with another of the batch: ``x = l x_i + (1 - l) x_j``, and so the labels; l ~ Beta(a, a).

    One l for the batch, in which no example is padding. Inputs are one array of floats; labels are classes `[B]`, or
    `[B, C]` of any type.

    Reference: Zhang et al. 2018, arXiv:1710.09412.

    >>> batch = Batch(jnp.eye(4), jnp.arange(4))
    >>> mixed = mixup(4)(jax.random.key(0), batch)
    >>> mixed.y.shape, bool(jnp.allclose(mixed.x, mixed.y))
    ((4, 4), True)
    """
    _check(num_classes, alpha)

    def augment(key: Key, batch: Batch) -> Batch:
        _check_inputs(batch.x, "mixup")
        if not jnp.issubdtype(batch.x.dtype, jnp.floating):
            raise DataError(f"mixup needs inputs of floats; found {batch.x.dtype}")
        first, second = jax.random.split(key)
        share = jax.random.beta(first, alpha, alpha, dtype=jnp.float32)
        other = jax.random.permutation(second, len(batch.x))
        x, own = batch.x, share.astype(batch.x.dtype)
        return batch._replace(x=own * x + (1 - own) * x[other], y=_mixed(batch.y, num_classes, share, other))

    return augment


def cutmix(num_classes: int, alpha: float = 1.0) -> Augment:
    """A box of each image `[B, H, W, C]` taken from another; the labels are mixed by the area that is really left.

    The box has the area 1 - l, l ~ Beta(a, a), around a uniform centre, and is cut off at the border.

    Reference: Yun et al. 2019, arXiv:1905.04899.

    >>> batch = Batch(jnp.arange(4.0).reshape(4, 1, 1, 1) * jnp.ones((4, 8, 8, 1)), jnp.arange(4))
    >>> mixed = cutmix(4)(jax.random.key(0), batch)
    >>> bool(jnp.allclose(mixed.x.mean((1, 2, 3)), mixed.y @ jnp.arange(4.0), atol=1e-5))
    True
    """
    _check(num_classes, alpha)

    def augment(key: Key, batch: Batch) -> Batch:
        _check_inputs(batch.x, "cutmix")
        if batch.x.ndim != 4:
            raise DataError(f"cutmix needs images [B, H, W, C]; found {list(batch.x.shape)}")
        first, second, third = jax.random.split(key, 3)
        side = jnp.sqrt(1 - jax.random.beta(first, alpha, alpha, dtype=jnp.float32))
        other = jax.random.permutation(second, len(batch.x))
        inside = [_span(k, size, side) for k, size in zip(jax.random.split(third), batch.x.shape[1:3])]
        box = inside[0][:, None] & inside[1][None, :]
        share = 1 - jnp.mean(box.astype(jnp.float32))
        x = jnp.where(box[None, :, :, None], batch.x[other], batch.x)
        return batch._replace(x=x, y=_mixed(batch.y, num_classes, share, other))

    return augment


def _span(key: Key, size: int, side: Array) -> Array:
    """Which places of an axis lie in the box, bool `[size]`."""
    centre = jax.random.randint(key, (), 0, size)
    half = (side * size / 2).astype(jnp.int32)
    place = jnp.arange(size)
    return (place >= centre - half) & (place < centre + half)


def _mixed(y: Array | None, num_classes: int, share: Array, other: Array) -> Array:
    if y is None:
        raise DataError(
            "mixup and cutmix mix labels, and a stream without labels has none; augment the labelled stream alone, "
            'as augment={"source": mixup(10)}'
        )
    if y.ndim == 1 and not jnp.issubdtype(y.dtype, jnp.integer):
        raise DataError(f"mixup and cutmix mix classes [B], integers, or soft labels [B, C]; found {y.dtype} [B]")
    soft = jax.nn.one_hot(y, num_classes, dtype=jnp.float32) if y.ndim == 1 else y
    if not jnp.issubdtype(soft.dtype, jnp.floating):  # several classes marked in a row
        soft = soft.astype(jnp.float32)
    own = share.astype(soft.dtype)
    return own * soft + (1 - own) * soft[other]


def _check_inputs(x: Any, mixing: str) -> None:
    if not hasattr(x, "dtype"):
        raise DataError(f"{mixing} mixes inputs that are one array; found a {type(x).__name__}")


def _check(num_classes: int, alpha: float) -> None:
    if num_classes < 2 or not alpha > 0:
        raise DataError(f"mixing needs 2 classes or more and alpha above 0; found {num_classes} and {alpha}")
