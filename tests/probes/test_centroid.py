"""Nearest class means, against distances written out."""

import numpy as np
import pytest

from tljax.probes import ProbeError, centroid

RNG = np.random.default_rng(0)
Y = np.arange(40) % 4
X = (100 + RNG.normal(size=(40, 6)) + 2 * np.eye(6)[Y]).astype(np.float32)
TEST = (100 + RNG.normal(size=(50, 6))).astype(np.float32)


def test_euclidean():
    neighbors = pytest.importorskip("sklearn.neighbors")
    expected = neighbors.NearestCentroid().fit(X.astype(float), Y).predict(TEST.astype(float))
    scores = np.asarray(centroid(X, Y, metric="euclidean").predict(TEST))
    np.testing.assert_array_equal(scores.argmax(1), expected)


def test_cosine():
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    means = np.stack([unit[c == Y].mean(0) for c in range(4)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    scores = np.asarray(centroid(X, Y).predict(TEST))
    np.testing.assert_allclose(scores, TEST @ means.T, rtol=1e-5)
    near, huge = centroid(X - 100, Y), centroid((X - 100) * 1e30, Y)
    np.testing.assert_allclose(huge.weights, near.weights, atol=1e-5)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_one_example_a_class_names_and_absent_classes(metric):
    found = centroid(X[:4], Y[:4], num_classes=6, metric=metric)
    assert np.asarray(found.predict(X[:4])).argmax(1).tolist() == [0, 1, 2, 3]
    assert np.isfinite(np.asarray(found.predict(TEST))).all()
    assert np.asarray(found.predict(TEST)).argmax(1).max() < 4
    named = centroid(X[:4], ["d", "c", "b", "a"], metric=metric)
    assert [named.classes[i] for i in np.asarray(named.predict(X[:4])).argmax(1)] == ["d", "c", "b", "a"]


def test_what_it_refuses():
    with pytest.raises(ProbeError, match="metric is 'cosine' or 'euclidean'; found 'manhattan'"):
        centroid(X, Y, metric="manhattan")
    with pytest.raises(ProbeError, match="all 40 labels are 0"):
        centroid(X, Y * 0)
