from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.data import (
    Augment,
    DataError,
    chain,
    color_jitter,
    cutmix,
    fit_standardiser,
    mixup,
    on_levels,
    random_crop,
    random_flip,
    standardise,
)
from tljax.types import Batch


def image() -> jnp.ndarray:
    return jnp.arange(1.0, 17.0).reshape(4, 4, 1)


def test_random_crop_makes_every_shift_and_no_other_image() -> None:
    batch = Batch(jnp.stack([image()] * 400))
    found = {tuple(x.ravel()) for x in np.asarray(jax.jit(random_crop(1))(jax.random.key(0), batch).x)}
    padded = np.pad(np.asarray(image()), ((1, 1), (1, 1), (0, 0)), mode="edge")
    shifts = {tuple(padded[i : i + 4, j : j + 4].ravel()) for i in range(3) for j in range(3)}
    assert found == shifts


def test_random_flip_mirrors_half() -> None:
    x = np.asarray(random_flip()(jax.random.key(1), Batch(jnp.stack([image()] * 400))).x)
    mirrored = (x == np.asarray(image())[:, ::-1]).all((1, 2, 3))
    assert (mirrored | (x == np.asarray(image())).all((1, 2, 3))).all()
    assert 150 < mirrored.sum() < 250


def test_the_key_decides_and_labels_stay() -> None:
    batch = Batch(jnp.stack([image()] * 8), jnp.arange(8))
    augment = chain(random_crop(1), random_flip())
    a, b, c = (augment(jax.random.key(k), batch) for k in (0, 0, 1))
    np.testing.assert_array_equal(a.x, b.x)
    assert (np.asarray(a.x) != np.asarray(c.x)).any()
    np.testing.assert_array_equal(a.y, batch.y)


def test_on_levels_of_standardised_images_is_the_augmentation_of_the_images() -> None:
    x = np.random.default_rng(0).uniform(size=(4, 5, 5, 3)).astype(np.float32)
    statistics = fit_standardiser(x)
    black, white = (standardise(np.full((1, 3), level), statistics)[0] for level in (0, 1))
    key, jitter = jax.random.key(0), color_jitter()
    found = on_levels(jitter, black, white)(key, Batch(jnp.asarray(standardise(x, statistics)), jnp.arange(4)))
    wanted = standardise(np.asarray(jitter(key, Batch(jnp.asarray(x))).x), statistics)
    np.testing.assert_allclose(found.x, wanted, atol=1e-5)
    np.testing.assert_array_equal(found.y, np.arange(4))


def test_on_levels_says_what_it_cannot_use() -> None:
    with pytest.raises(DataError, match=r"low < high for each channel; found \[0.0, 1.0\] and \[1.0, 1.0\]"):
        on_levels(random_flip(), np.array([0.0, 1.0]), np.array([1.0, 1.0]))
    with pytest.raises(DataError, match=r"images \[B, H, W, 2\]; found \[1, 4, 4, 1\]"):
        on_levels(random_flip(), np.zeros(2), np.ones(2))(jax.random.key(0), Batch(image()[None]))


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(DataError, match=r"only images \[B, H, W, C\].*found \[2, 3\]"):
        random_flip()(jax.random.key(0), Batch(jnp.ones((2, 3))))
    for mixing in (mixup(3), cutmix(3)):
        with pytest.raises(DataError, match=r"without labels has none.*augment=.*source"):
            mixing(jax.random.key(0), Batch(jnp.zeros((2, 4, 4, 1))))
        with pytest.raises(DataError, match=r"integers, or soft labels \[B, C\]; found float32 \[B\]"):
            mixing(jax.random.key(0), Batch(jnp.zeros((2, 4, 4, 1)), jnp.ones(2)))
        with pytest.raises(DataError, match="inputs that are one array; found a dict"):
            mixing(jax.random.key(0), Batch({"x": jnp.zeros((2, 4, 4, 1))}, jnp.arange(2)))
    with pytest.raises(DataError, match="1 pixel or more; found 0"):
        random_crop(0)


# Drawing from Beta takes a second to compile; mixup's doctest says the same of one draw.
@pytest.mark.parametrize("make", [cutmix, pytest.param(mixup, marks=pytest.mark.slow)])
def test_mixing_keeps_the_sum_of_labels_and_follows_the_area(make: Callable[[int], Augment]) -> None:
    x = jnp.arange(6.0).reshape(6, 1, 1, 1) * jnp.ones((6, 9, 7, 1))
    batch, mix = Batch(x, jnp.arange(6)), jax.jit(make(6))
    for seed in range(5):
        mixed = jax.device_get(mix(jax.random.key(seed), batch))
        np.testing.assert_allclose(mixed.y.sum(1), 1, atol=1e-6)
        np.testing.assert_allclose(mixed.x.mean((1, 2, 3)), mixed.y @ np.arange(6.0), atol=1e-5)


@pytest.mark.parametrize("kind", ["int32", "bool"])
def test_several_classes_marked_in_a_row_are_mixed_as_floats_are(kind: str) -> None:
    marked, mix = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 0]], bool), mixup(3, 5.0)
    found, wanted = (mix(jax.random.key(1), Batch(jnp.eye(4), jnp.asarray(marked, t))).y for t in (kind, "float32"))
    np.testing.assert_array_equal(found, wanted)
    assert ((found > 0.01) & (found < 0.99)).any()


@pytest.mark.slow
def test_colours_without_strength_stay() -> None:
    batch = Batch(jax.random.uniform(jax.random.key(0), (3, 4, 4, 3)))
    np.testing.assert_allclose(color_jitter(0, 0, 0)(jax.random.key(1), batch).x, batch.x, atol=1e-6)
    changed = color_jitter()(jax.random.key(1), batch).x
    assert (np.asarray(changed) != np.asarray(batch.x)).any((1, 2, 3)).all()
    assert 0 <= changed.min() <= changed.max() <= 1
