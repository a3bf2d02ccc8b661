"""Resizing against Pillow and by invariances; channels; standardisation against scikit-learn."""

import numpy as np
import pytest

from tljax.data import (
    DataError,
    Dataset,
    Standardiser,
    fit_standardiser,
    match_images,
    resize_images,
    standardise,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("before", "after"), [((28, 28), (16, 16)), ((16, 16), (28, 28)), ((9, 20), (14, 7))])
def test_resize_agrees_with_pillow(before: tuple[int, int], after: tuple[int, int]) -> None:
    image = pytest.importorskip("PIL.Image")
    x = RNG.random((3, *before, 1), np.float32)
    ours = resize_images(x, after)
    for one, other in zip(x[..., 0], ours[..., 0]):
        theirs = image.fromarray(one).resize(after[::-1], image.Resampling.BILINEAR)
        np.testing.assert_allclose(other, np.asarray(theirs), atol=2e-6)


def test_resize_keeps_constants_and_does_not_depend_on_the_batch() -> None:
    np.testing.assert_allclose(resize_images(np.full((2, 5, 7, 3), 0.25), (3, 4)), 0.25, rtol=1e-6)
    x = RNG.random((7, 6, 6, 2), np.float32)
    whole = resize_images(x, (4, 5))
    np.testing.assert_allclose(resize_images(x, (4, 5), batch_size=3), whole, rtol=1e-6)
    assert resize_images(x, (6, 6)) is x
    for wrong in (x[0], x[..., 0]):
        with pytest.raises(DataError, match=r"^what is resized holds no images \[N, H, W, C\]"):
            resize_images(wrong, (4, 4))
    with pytest.raises(DataError, match="both 1 or more"):
        resize_images(x, (0, 4))


def test_channels() -> None:
    grey = Dataset(RNG.random((2, 4, 4, 1), np.float32), np.array([0, 1]), name="grey")
    rgb = match_images(grey, 4, 4, 3)
    np.testing.assert_array_equal(rgb.x, np.repeat(grey.x, 3, 3))
    np.testing.assert_allclose(match_images(rgb, 4, 4, 1).x, grey.x, rtol=1e-6)  # luma weights sum to 1
    pure = np.eye(3, dtype=np.float32)[:, None, None]  # a red, a green and a blue pixel
    luma = match_images(Dataset(pure, np.array([0, 1, 0])), 1, 1, 1).x.ravel()
    np.testing.assert_allclose(luma, [0.299, 0.587, 0.114], rtol=1e-6)
    assert match_images(rgb, 6, 5, 3).x.shape == (2, 6, 5, 3)
    with pytest.raises(DataError, match="'grey' has images of 1 channels where 4 are needed"):
        match_images(grey, 4, 4, 4)
    with pytest.raises(DataError, match="holds no images"):
        match_images(Dataset(np.zeros((2, 3)), np.array([0, 1])), 4, 4, 1)


def test_standardise_agrees_with_scikit_learn() -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x = (RNG.random((50, 4)) * [1, 10, 1e-3, 1e4] + [5, 0, 1, -1e4]).astype(np.float32)
    ours = standardise(x, fit_standardiser(x))
    np.testing.assert_allclose(ours, preprocessing.StandardScaler().fit_transform(x.astype(np.float64)), atol=2e-3)
    images = RNG.random((6, 5, 4, 3), np.float32) * np.float32([1, 2, 3])
    mean, std = fit_standardiser(images)
    np.testing.assert_allclose(mean, images.astype(np.float64).mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, images.astype(np.float64).std((0, 1, 2)), rtol=1e-6)


def test_constant_features_stay_finite() -> None:
    x = np.stack([np.full(100, value, np.float32) for value in (0, 0.1, 1e6, 1e-20)] + [np.arange(100)], 1)
    x = x.astype(np.float32)
    mean, std = fit_standardiser(x)
    assert std[:4].tolist() == [1, 1, 1, 1]
    out = standardise(x, Standardiser(mean, std))
    np.testing.assert_array_equal(out[:, :4], 0)
    assert out.dtype == np.float32


def test_a_small_feature_is_not_taken_for_constant() -> None:
    x = np.array([[1e-12], [3e-12]], np.float32)
    np.testing.assert_allclose(standardise(x, fit_standardiser(x)), [[-1], [1]], rtol=1e-5)


def test_the_source_s_statistics_go_to_the_target() -> None:
    source, target = RNG.random((20, 3), np.float32), RNG.random((20, 3), np.float32) + 2
    statistics = fit_standardiser(source)
    assert standardise(target, statistics).mean() > 3
    np.testing.assert_allclose(standardise(target, statistics), (target - source.mean(0)) / source.std(0), rtol=1e-4)
    with pytest.raises(DataError, match=r"the statistics are of 3 features or channels; x is \[4, 2\]"):
        standardise(np.zeros((4, 2)), statistics)
    with pytest.raises(DataError, match="only floats"):
        fit_standardiser(np.zeros((4, 2), np.int32))
