"""Random operations on images, those of RandAugment, compiled into the training step."""

import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from tljax.data.augment import Augment
from tljax.data.colour import BASES, blend
from tljax.data.error import DataError
from tljax.tree.paths import nearest, quoted
from tljax.types import Array, Batch, Key

_MOST = 30
_FACTOR, _SHEAR, _DEGREES, _SHARE, _BITS = 0.9, 0.3, 30, 150 / 331, 4  # what a strength of 1 does


def rand_augment(
    n: int = 2, magnitude: float = 9, *, operations: Sequence[str] = (), fill: float | Sequence[float] = 0.5
) -> Augment:
    """Each image changed by `n` operations drawn for it, one after the other, all of one strength.

    Images are `[B, H, W, 1 or 3]`, floats in 0..1 or uint8; use it before standardisation. An operation of strength
    ``s = magnitude / 30`` does, towards a random side: rotate by 30 s degrees, shear by 0.3 s, both about the middle,
    translate by 0.45 s of the width or height; brightness, contrast, saturation, sharpness times ``1 +- 0.9 s``;
    posterize by 4 s bits; solarize from ``256 (1 - s)`` of 256 levels on; autocontrast and equalize have no strength.
    A magnitude of 0 changes nothing at all.

    Under `vmap` every image pays for every operation, but for one sampling by all that move pixels.

    Reference: Cubuk et al. 2019, arXiv:1909.13719; magnitudes on torchvision's scale.

    Args:
      n: operations on an image; one may be drawn twice.
      magnitude: 0..30.
      operations: the names of those to draw from; by default all, "identity" among them.
      fill: what comes in from outside of the image: a grey, or a value a channel.

    Raises:
      DataError: `n` below 1, a magnitude outside 0..30, an unknown operation, or what are no such images.

    >>> batch = Batch(jnp.arange(16.0).reshape(1, 4, 4, 1) / 16)
    >>> rand_augment(1, 0)(jax.random.key(0), batch).x is batch.x
    True
    >>> rand_augment(1, 30, operations=["solarize"])(jax.random.key(0), batch).x[0, 0, 1:, 0].tolist()
    [0.9375, 0.875, 0.8125]
    """
    names = tuple(operations) or tuple(OPERATIONS)
    _check(n, magnitude, names)
    indices = jnp.array([list(OPERATIONS).index(name) for name in names])
    used = [name for name in OPERATIONS if name in names]

    def one(key: Key, image: Array) -> Array:
        border = jnp.broadcast_to(jnp.asarray(fill, jnp.float32), image.shape[2:])
        for own in jax.random.split(key, n):
            which, side = jax.random.split(own)
            strength = magnitude / _MOST * jax.random.rademacher(side, (), jnp.float32)
            image = _drawn(jax.random.choice(which, indices), image, strength, border, used)
        return image

    def augment(key: Key, batch: Batch) -> Batch:
        x = batch.x
        floats = jnp.issubdtype(x.dtype, jnp.floating)
        if x.ndim != 4 or x.shape[3] not in (1, 3) or not (floats or x.dtype == jnp.uint8):
            raise DataError(
                "rand_augment needs images [B, H, W, 1 or 3] of floats in 0..1 or uint8; "
                f"found {x.dtype} {list(x.shape)}"
            )
        if magnitude == 0:
            return batch
        wide = x.astype(jnp.float32) if floats else x.astype(jnp.float32) / 255
        wide = jax.vmap(one)(jax.random.split(key, len(x)), wide)
        return batch._replace(x=(wide if floats else jnp.round(255 * wide)).astype(x.dtype))

    return augment


def _drawn(which: Array, image: Array, strength: Array, fill: Array, used: Sequence[str]) -> Array:
    """The image after operation number `which` of `OPERATIONS`, one of `used`."""
    moves = [name for name in used if name in MOVES]
    others = [name for name in used if name not in MOVES]
    branches: list[Callable[[Array], Array]] = []
    branch = {}
    if moves:  # one sampling for all of them
        rows = [MOVES[name](strength, *image.shape[:2]) if name in moves else _matrix() for name in OPERATIONS]
        branches.append(lambda image: move(image, jnp.stack(rows)[which], fill))
        branch = dict.fromkeys(moves, 0)
    for name in others:
        branch[name] = len(branches)
        branches.append(lambda image, name=name: COLOURS[name](image, strength))  # type: ignore[misc]
    table = jnp.array([branch.get(name, 0) for name in OPERATIONS])
    return jax.lax.switch(table[which], branches, image)


def move(image: Array, matrix: Array, fill: Array) -> Array:
    """`[H, W, C]` sampled, bilinearly, where `matrix` `[2, 3]` takes each (row, column, 1), both from the middle.

    Half a pixel around the image is the image still, as in Pillow; what lies further outside is `fill` `[C]`.

    >>> image, right = jnp.arange(3.0).reshape(1, 3, 1), jnp.array([[1.0, 0, 0], [0, 1, 1]])
    >>> move(image, right, jnp.array([9.0])).ravel().tolist()
    [1.0, 2.0, 9.0]
    """
    rows, columns = (jnp.arange(size, dtype=jnp.float32) - (size - 1) / 2 for size in image.shape[:2])
    places = [
        row[0] * rows[:, None] + row[1] * columns[None] + (row[2] + (size - 1) / 2)
        for row, size in zip(matrix, image.shape[:2])
    ]
    inside = [(place >= -0.5) & (place < size - 0.5) for place, size in zip(places, image.shape[:2])]
    sampled = jax.vmap(lambda plane: map_coordinates(plane, places, order=1, mode="nearest"), 2, 2)(image)
    return jnp.where((inside[0] & inside[1])[..., None], sampled, fill[None, None])


def _matrix(a: object = 1, b: object = 0, c: object = 0, d: object = 0, e: object = 1, f: object = 0) -> Array:
    return jnp.array([jnp.asarray(v, jnp.float32) for v in (a, b, c, d, e, f)]).reshape(2, 3)


def _rotation(strength: Array, height: int, width: int) -> Array:
    angle = strength * math.radians(_DEGREES)
    return _matrix(jnp.cos(angle), jnp.sin(angle), 0, -jnp.sin(angle), jnp.cos(angle), 0)


MOVES: Mapping[str, Callable[[Array, int, int], Array]] = {
    "rotate": _rotation,
    "shear_x": lambda strength, height, width: _matrix(d=_SHEAR * strength),
    "shear_y": lambda strength, height, width: _matrix(b=_SHEAR * strength),
    "translate_x": lambda strength, height, width: _matrix(f=_SHARE * width * strength),
    "translate_y": lambda strength, height, width: _matrix(c=_SHARE * height * strength),
}
"""Operations that move pixels: from a strength in -1..1, the height and the width to the matrix of `move`."""


def _smooth(image: Array) -> Array:
    """Each pixel weighed 5 among its neighbours' 1; those at the border stay, as in Pillow."""
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    around = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    within = [(jnp.arange(size) > 0) & (jnp.arange(size) < size - 1) for size in image.shape[:2]]
    return jnp.where(within[0][:, None, None] & within[1][None, :, None], (around + 4 * image) / 13, image)


def _levels(image: Array) -> Array:
    return jnp.round(255 * image).astype(jnp.int32)


def _posterize(image: Array, strength: Array) -> Array:
    """The lowest bits of the 256 levels set to 0."""
    bits = jnp.round(_BITS * jnp.abs(strength)).astype(jnp.int32)
    return jnp.where(bits == 0, image, (_levels(image) >> bits << bits) / 255)


def _solarize(image: Array, strength: Array) -> Array:
    """What is bright inverted."""
    return jnp.where(255 * image < 256 * (1 - jnp.abs(strength)), image, 1 - image)


def _autocontrast(image: Array, strength: Array) -> Array:
    """Each channel stretched to 0..1; one of a single value stays."""
    low, high = image.min((0, 1), keepdims=True), image.max((0, 1), keepdims=True)
    span = high - low
    return jnp.where(span > 0, (image - low) / jnp.where(span > 0, span, 1), image)


def _equalize(image: Array, strength: Array) -> Array:
    """The 256 levels of each channel spread so that all are as common; one of a single level stays."""

    def channel(plane: Array) -> Array:
        levels = _levels(plane)
        counts = jnp.zeros(256, jnp.int32).at[levels].add(1)
        step = (levels.size - counts[levels.max()]) // 255
        before = jnp.cumsum(counts) - counts
        spread = jnp.minimum((step // 2 + before) // jnp.maximum(step, 1), 255)
        return jnp.where(step > 0, spread[levels] / 255, plane)

    return jax.vmap(channel, 2, 2)(image)


def _blended(base: Callable[[Array], Array]) -> Callable[[Array, Array], Array]:
    return lambda image, strength: blend(image, base(image), 1 + _FACTOR * strength)


COLOURS: Mapping[str, Callable[[Array, Array], Array]] = {
    "identity": lambda image, strength: image,
    **{name: _blended(base) for name, base in BASES.items()},
    "sharpness": _blended(_smooth),
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
"""Operations that leave pixels in their place: from an image `[H, W, C]` in 0..1 and a strength to an image."""

OPERATIONS = (*MOVES, *COLOURS)
"""The names of all operations."""


def _check(n: int, magnitude: float, names: Sequence[str]) -> None:
    if n < 1 or not 0 <= magnitude <= _MOST:
        raise DataError(f"rand_augment needs n of 1 or more and a magnitude in 0..{_MOST}; found {n} and {magnitude}")
    for name in names:
        if name not in OPERATIONS:
            near = nearest(name, list(OPERATIONS)) or OPERATIONS
            raise DataError(f"{name!r} is no operation of rand_augment; the nearest: {quoted(near)}")
