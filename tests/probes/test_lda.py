"""Discriminants, against scikit-learn's."""

import jax
import numpy as np
import pytest

from tljax.probes import ProbeError, lda

datasets = pytest.importorskip("sklearn.datasets")
discriminant = pytest.importorskip("sklearn.discriminant_analysis")


def scikit(x, y, test):
    model = discriminant.LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    return model.fit(x.astype(float), y).predict_proba(test.astype(float))


def probabilities(found, test):
    return np.asarray(jax.nn.softmax(found.predict(test), axis=1))


@pytest.mark.parametrize("name", ["wine", "breast_cancer"])
def test_features_of_very_different_scale(name):
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x = x.astype(np.float32)
    np.testing.assert_allclose(probabilities(lda(x[::2], y[::2]), x[1::2]), scikit(x[::2], y[::2], x[1::2]), atol=2e-4)


@pytest.mark.parametrize("shape", [(30, 6), (30, 200), (9, 50)])
def test_fewer_and_more_features_than_examples(shape):
    rng = np.random.default_rng(0)
    y = np.arange(shape[0]) % 3
    x = 3 + rng.normal(size=shape) * np.linspace(0.1, 4, shape[1]) + 0.5 * rng.normal(size=(3, shape[1]))[y]
    x = x.astype(np.float32)
    test = x + 0.3 * rng.normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(probabilities(lda(x, y), test), scikit(x, y, test), atol=1e-3)


def test_imbalance_constants_copies_and_a_class_of_one():
    rng = np.random.default_rng(1)
    y = np.array([0] * 12 + [1] * 5 + [2])
    x = rng.normal(size=(18, 30)).astype(np.float32) + y[:, None]
    x[:, 3], x[:, 4] = 7, x[:, 5]
    with pytest.warns(UserWarning, match="Only one sample"):
        expected = scikit(x, y, x)
    np.testing.assert_allclose(probabilities(lda(x, y), x), expected, atol=1e-4)


def test_two_examples_of_each_class_shrink_as_all_together():
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(10, 128))
    y, wanted = np.repeat(np.arange(10), 2), np.arange(200) % 10
    x = (centres[y] + rng.normal(size=(20, 128))).astype(np.float32)
    test = (centres[wanted] + rng.normal(size=(200, 128))).astype(np.float32)
    ours = np.mean(np.argmax(lda(x, y).predict(test), 1) == wanted)
    theirs = np.mean(scikit(x, y, test).argmax(1) == wanted)
    assert ours > 0.9 > theirs + 0.1  # whose shrinkage is 0


def test_names_and_absent_classes():
    rng = np.random.default_rng(3)
    y = np.arange(12) % 2 + 1
    x = rng.normal(size=(12, 4)).astype(np.float32) + 2 * y[:, None]
    found = lda(x, y, num_classes=4)
    np.testing.assert_allclose(probabilities(found, x)[:, [0, 3]], 0)
    named = lda(x, np.array(["", "cat", "dog"])[y])
    assert named.classes == ("cat", "dog")
    np.testing.assert_allclose(probabilities(named, x), probabilities(found, x)[:, 1:3], rtol=1e-6)


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.eye(3), [0, 1, 2], "examples of every class are one, or all equal"),
        (np.eye(2)[[0, 0, 1, 1]], [0, 0, 1, 1], "examples of every class are one, or all equal"),
        (np.eye(3), [1, 1, 1], "all 3 labels are 1"),
        (np.full((3, 2), np.inf), [0, 1, 1], "NaN or infinite, in 3 of 3 rows"),
    ],
)
def test_what_it_refuses(features, labels, message):
    with pytest.raises(ProbeError, match=message):
        lda(features, labels)
