"""The operations of `rand_augment`, each beside Pillow's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.data import DataError, rand_augment
from tljax.data.operations import COLOURS, MOVES, OPERATIONS, move
from tljax.types import Batch

HEIGHT, WIDTH = 18, 23
FILL = 128


def pixels(channels: int = 3) -> np.ndarray:
    """Smooth enough that levels repeat, and without the darkest and the brightest."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(30, 220, (6, 8, channels))
    fine = np.kron(coarse, np.ones((3, 3, 1), int))[:HEIGHT, :WIDTH]
    return (fine + rng.integers(-20, 20, fine.shape)).astype(np.uint8)


@jax.jit
def operated(image: jnp.ndarray, strength: jnp.ndarray) -> dict[str, jnp.ndarray]:
    """What every operation makes of an image in 0..1."""
    fill = jnp.full(image.shape[2:], FILL / 255)
    moved = {name: move(image, make(strength, HEIGHT, WIDTH), fill) for name, make in MOVES.items()}
    return moved | {name: operation(image, strength) for name, operation in COLOURS.items()}


def by_pillow(array: np.ndarray, s: float) -> dict[str, np.ndarray]:
    """The same by Pillow; of its affine transforms the coordinates count from the corner."""
    image_module = pytest.importorskip("PIL.Image")
    from PIL import ImageEnhance, ImageOps

    image = image_module.fromarray(array.squeeze())
    colour = {"resample": image_module.Resampling.BILINEAR, "fillcolor": (FILL,) * 3 if array.shape[2] == 3 else FILL}

    def affine(*numbers: float) -> object:
        return image.transform(image.size, image_module.Transform.AFFINE, numbers, **colour)

    found = {
        "rotate": image.rotate(30 * s, **colour),
        "shear_x": affine(1, 0.3 * s, -0.3 * s * HEIGHT / 2, 0, 1, 0),
        "shear_y": affine(1, 0, 0, 0.3 * s, 1, -0.3 * s * WIDTH / 2),
        "translate_x": affine(1, 0, 150 / 331 * WIDTH * s, 0, 1, 0),
        "translate_y": affine(1, 0, 0, 0, 1, 150 / 331 * HEIGHT * s),
        "identity": image,
        "brightness": ImageEnhance.Brightness(image).enhance(1 + 0.9 * s),
        "contrast": ImageEnhance.Contrast(image).enhance(1 + 0.9 * s),
        "saturation": ImageEnhance.Color(image).enhance(1 + 0.9 * s),
        "sharpness": ImageEnhance.Sharpness(image).enhance(1 + 0.9 * s),
        "posterize": ImageOps.posterize(image, 8 - round(4 * abs(s))),
        "solarize": ImageOps.solarize(image, 256 * (1 - abs(s))),
        "autocontrast": ImageOps.autocontrast(image),
        "equalize": ImageOps.equalize(image),
    }
    return {name: np.asarray(image).reshape(array.shape) for name, image in found.items()}


EXACT = ("identity", "posterize", "solarize", "equalize")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("strength", [0.3, -0.77, 1.0])
def test_every_operation_does_what_pillow_does(channels: int, strength: float) -> None:
    """Exactly where levels are whole; within 1.5 levels of 255 where Pillow rounds in between and cuts off."""
    array = pixels(channels)
    ours, theirs = operated(jnp.asarray(array / np.float32(255)), jnp.float32(strength)), by_pillow(array, strength)
    assert set(ours) == set(theirs) == set(OPERATIONS)
    for name in OPERATIONS:
        difference = np.abs(255 * np.asarray(ours[name]) - theirs[name].astype(np.float32))
        assert difference.max() < (1e-3 if name in EXACT else 1.5), (name, difference.max())
        if name not in ("identity", "saturation"):
            assert (theirs[name] != array).mean() > 0.1, name


def test_without_strength_images_stay() -> None:
    image = jax.random.uniform(jax.random.key(0), (HEIGHT, WIDTH, 3))
    for name, found in operated(image, jnp.float32(0)).items():
        if name not in ("autocontrast", "equalize"):
            np.testing.assert_allclose(found, image, atol=1e-6, err_msg=name)
    batch = Batch(image[None])
    assert rand_augment(2, 0)(jax.random.key(0), batch).x is batch.x


def test_an_image_of_one_colour_has_nothing_to_stretch() -> None:
    image = jnp.full((HEIGHT, WIDTH, 3), 0.25)
    found = operated(image, jnp.float32(0.5))
    for name in ("autocontrast", "equalize", "contrast", "saturation", "sharpness"):
        np.testing.assert_allclose(found[name], image, atol=1e-6, err_msg=name)


def test_each_image_gets_operations_of_its_own_to_either_side() -> None:
    image = pixels()
    augment = jax.jit(rand_augment(1, 15, fill=FILL / 255))
    batch = Batch(jnp.asarray(np.stack([image] * 256)), jnp.arange(256))
    found = augment(jax.random.key(0), batch)
    sides = [operated(jnp.asarray(image / np.float32(255)), jnp.float32(s)) for s in (0.5, -0.5)]
    known = np.stack([np.rint(255 * side[name]) for side in sides for name in OPERATIONS])
    apart = np.abs(np.asarray(found.x, np.float32)[:, None] - known[None]).max((2, 3, 4))
    assert found.x.dtype == jnp.uint8
    assert apart.min(1).max() <= 1
    assert set(apart.argmin(1) % len(OPERATIONS)) == set(range(len(OPERATIONS)))
    assert {0, len(OPERATIONS)} <= set(apart.argmin(1))  # rotated both ways
    np.testing.assert_array_equal(found.y, batch.y)
    np.testing.assert_array_equal(augment(jax.random.key(0), batch).x, found.x)


def test_operations_are_chosen_and_follow_each_other() -> None:
    image = jnp.asarray(pixels(1) / np.float32(255))[None]
    twice = jax.jit(rand_augment(2, 30, operations=["solarize"]))(jax.random.key(1), Batch(image)).x
    np.testing.assert_allclose(twice, image, atol=1e-6)  # inverted, and again
    half = jax.jit(rand_augment(1, 12, operations=["shear_x"]))(jax.random.key(1), Batch(image.astype(jnp.bfloat16)))
    assert half.x.dtype == jnp.bfloat16


def test_what_cannot_be_done_is_told() -> None:
    with pytest.raises(DataError, match=r"magnitude in 0\.\.30; found 2 and 31"):
        rand_augment(2, 31)
    with pytest.raises(DataError, match="n of 1 or more"):
        rand_augment(0)
    with pytest.raises(DataError, match=r"'solarise' is no operation of rand_augment; the nearest: 'solarize'"):
        rand_augment(operations=["solarise"])
    with pytest.raises(DataError, match=r"\[B, H, W, 1 or 3\] of floats in 0..1 or uint8; found int32 \[2, 3\]"):
        rand_augment()(jax.random.key(0), Batch(jnp.ones((2, 3), jnp.int32)))
