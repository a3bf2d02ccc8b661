"""Augmentation of batches, compiled into the training step: `augment(key, batch) -> batch`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from tljax.data.error import DataError
from tljax.types import Array, Batch, Key

Augment = Callable[[Key, Batch], Batch]


def random_crop(padding: int) -> Augment:
    """Images padded at the edges and cut back to their size at a random place: shifts by up to `padding` pixels.

    Images are `[B, H, W, C]`; the border is repeated outwards, so that it works after standardisation too.

    >>> batch = Batch(jnp.arange(16.0).reshape(1, 4, 4, 1))
    >>> random_crop(1)(jax.random.key(0), batch).x.shape
    (1, 4, 4, 1)
    """
    if padding < 1:
        raise DataError(f"random_crop needs a padding of 1 pixel or more; found {padding}")

    def one(key: Key, image: Array) -> Array:
        row, column = jax.random.randint(key, (2,), 0, 2 * padding + 1)
        padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode="edge")
        return jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)

    return _on_images(one)


def random_flip() -> Augment:
    """Every second image, by chance, mirrored left to right; images are `[B, H, W, C]`.

    >>> batch = Batch(jnp.arange(4.0).reshape(1, 1, 4, 1).repeat(64, 0))
    >>> flipped = random_flip()(jax.random.key(0), batch).x[:, 0, 0, 0] == 3
    >>> 16 < int(flipped.sum()) < 48
    True
    """
    return _on_images(lambda key, image: jnp.where(jax.random.bernoulli(key), image[:, ::-1], image))


def chain(*steps: Augment) -> Augment:
    """Augmentations one after the other, each with randomness of its own.

    >>> chain(random_crop(1), random_flip())(jax.random.key(0), Batch(jnp.ones((2, 4, 4, 1)))).x.shape
    (2, 4, 4, 1)
    """

    def augment(key: Key, batch: Batch) -> Batch:
        for step, own in zip(steps, jax.random.split(key, len(steps))):
            batch = step(own, batch)
        return batch

    return augment


def on_levels(augment: Augment, low: np.ndarray, high: np.ndarray) -> Augment:
    """`augment`, which wants images of 0..1, for standardised ones: it sees ``(x - low) / (high - low)``.

    What it makes of them is brought back. `low` and `high`, `[C]`, are the values of black and white in each channel;
    what lies outside is cut.

    Raises:
      DataError: a `high` that is not above its `low`, or what are no images of as many channels.

    >>> darker = lambda key, batch: batch._replace(x=batch.x / 2)
    >>> batch = Batch(jnp.array([-1.0, 0.0, 3.0]).reshape(1, 1, 3, 1))
    >>> on_levels(darker, np.array([-1.0]), np.array([1.0]))(jax.random.key(0), batch).x.ravel().tolist()
    [-1.0, -0.5, 0.0]
    """
    low, span = np.asarray(low, np.float32), np.asarray(high, np.float32) - np.asarray(low, np.float32)
    if low.ndim != 1 or low.shape != span.shape or not (span > 0).all():
        raise DataError(
            f"on_levels needs low < high for each channel; found {low.tolist()} and {np.asarray(high).tolist()}"
        )

    def scaled(key: Key, batch: Batch) -> Batch:
        x = batch.x
        if jnp.ndim(x) != 4 or x.shape[3] != len(low):
            raise DataError(f"on_levels needs images [B, H, W, {len(low)}]; found {list(jnp.shape(x))}")
        start, width = (jnp.asarray(value, x.dtype)[None, None, None] for value in (low, span))
        changed = augment(key, batch._replace(x=jnp.clip((x - start) / width, 0, 1)))
        return changed._replace(x=changed.x * width + start)

    return scaled


def _on_images(one: Callable[[Key, Array], Array]) -> Augment:
    def augment(key: Key, batch: Batch) -> Batch:
        if jnp.ndim(batch.x) != 4:
            raise DataError(f"only images [B, H, W, C] can be augmented so; found {list(jnp.shape(batch.x))}")
        return batch._replace(x=jax.vmap(one)(jax.random.split(key, len(batch.x)), batch.x))

    return augment
