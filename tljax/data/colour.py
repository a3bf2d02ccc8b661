"""Augmentation of colours: brightness, contrast and saturation, on floats."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from tljax.data.augment import Augment
from tljax.data.error import DataError
from tljax.types import Array, Batch, Key

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode "L"


def color_jitter(brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4) -> Augment:
    """Each image `[H, W, 3]` of floats in 0..1 made darker or brighter, flatter or sharper, greyer or more colourful.

    Each factor is uniform in ``1 - s .. 1 + s``, and mixes the image with black, with its mean grey, or with its grey
    picture: ``x = f x + (1 - f) base``, cut to 0..1. Use it before standardisation.

    Raises:
      DataError: a strength outside 0..1; images that are not `[B, H, W, 3]` of floats.

    >>> batch = Batch(jnp.full((2, 4, 4, 3), 0.5))
    >>> bool(jnp.allclose(color_jitter(0, 0.4, 0.4)(jax.random.key(0), batch).x, 0.5))
    True
    """
    strengths = (brightness, contrast, saturation)
    if not all(0 <= strength <= 1 for strength in strengths):
        raise DataError(f"strengths of color_jitter lie in 0..1; found {strengths}")

    def one(key: Key, image: Array) -> Array:
        for own, strength, base in zip(jax.random.split(key, 3), strengths, BASES.values()):
            factor = jax.random.uniform(own, (), image.dtype, 1 - strength, 1 + strength)
            image = blend(image, base(image), factor)
        return image

    def augment(key: Key, batch: Batch) -> Batch:
        x = batch.x
        if x.ndim != 4 or x.shape[3] != 3 or not jnp.issubdtype(x.dtype, jnp.floating):
            raise DataError(f"color_jitter needs images [B, H, W, 3] of floats; found {x.dtype} {list(x.shape)}")
        return batch._replace(x=jax.vmap(one)(jax.random.split(key, len(x)), x))

    return augment


def blend(image: Array, base: Array, factor: Array) -> Array:
    """``f x + (1 - f) base``, cut to 0..1: `base` at 0, the image at 1, further away from `base` above.

    >>> blend(jnp.array([0.5]), jnp.array([0.25]), jnp.array(2.0)).tolist()
    [0.75]
    """
    return jnp.clip(factor * image + (1 - factor) * base, 0, 1)


def _grey(image: Array) -> Array:
    """`[H, W, 1]`; an image of one channel is grey itself."""
    if image.shape[2] == 1:
        return image
    return jnp.sum(image * jnp.array(_LUMA, image.dtype)[None, None], axis=-1, keepdims=True)


BASES: Mapping[str, Callable[[Array], Array]] = {
    "brightness": jnp.zeros_like,
    "contrast": lambda image: jnp.mean(_grey(image), keepdims=True),
    "saturation": _grey,
}
"""What an image `[H, W, C]` is blended with."""
