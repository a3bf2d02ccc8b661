"""Many ridge probes in one program, against one at a time."""

import jax
import numpy as np
import pytest

from tljax.probes import ProbeError, ridge, ridge_paths

RNG = np.random.default_rng(0)
Y = np.arange(60) % 3
X = (RNG.normal(size=(60, 20)) + 0.8 * RNG.normal(size=(3, 20))[Y] + 5).astype(np.float32)
TEST, KNOWN = X[45:], Y[45:]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("size", [12, 36], ids=["fewer examples than features", "more"])
@pytest.mark.parametrize("strengths", [None, [0.3, 30.0]])
def test_each_is_what_ridge_finds(size, strengths):
    subsets = np.stack([np.random.default_rng(seed).permutation(45)[:size] for seed in range(3)])
    found = ridge_paths(X, Y, subsets, test_features=TEST, test_labels=KNOWN, strengths=strengths)
    assert found.errors.dtype == np.float32
    for i, rows in enumerate(subsets):
        for j, strength in enumerate(np.asarray(found.strengths[i])):
            alone = ridge(X[rows], Y[rows], strengths=strength)
            np.testing.assert_allclose(found.errors[i, j], alone.errors[0], rtol=1e-3)
            hits = np.argmax(alone.loo, 1) == Y[rows]
            np.testing.assert_allclose(found.loo_accuracy[i, j], hits.mean(), atol=1e-6)
            right = np.argmax(alone.predict(TEST), 1) == KNOWN
            np.testing.assert_allclose(found.test_accuracy[i, j], right.mean(), atol=1e-6)
        chosen = ridge(X[rows], Y[rows], strengths=strengths)
        np.testing.assert_allclose(found.strengths[i, found.chosen[i]], chosen.strength, rtol=1e-4)


def test_batched_as_on_an_accelerator(monkeypatch):
    subsets = np.arange(24).reshape(2, 12)
    one = ridge_paths(X, Y, subsets, test_features=TEST, test_labels=KNOWN)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    many = ridge_paths(X, Y, subsets, test_features=TEST, test_labels=KNOWN)
    for a, b in zip(one, many):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_names_absent_classes_copies_and_constants():
    names = np.array(["ant", "bee", "cat"])[Y]
    subsets = [[0, 1, 3, 4], [0, 3, 1, 1]]  # no cat; a bee twice
    plain = ridge_paths(X, Y, subsets, test_features=TEST, test_labels=KNOWN, num_classes=5)
    named = ridge_paths(X, names, subsets, test_features=TEST, test_labels=names[45:])
    np.testing.assert_allclose(plain.test_accuracy, named.test_accuracy)
    assert np.isfinite(np.asarray(plain.errors)).all()
    still = ridge_paths(np.ones((6, 2)), [0, 1, 0, 1, 0, 1], [[0, 1, 2, 3]])
    np.testing.assert_allclose(still.errors, 16 / 9, rtol=1e-5)  # the mean of the three others is -1/3 off 1
    assert np.isnan(np.asarray(still.test_accuracy)).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"subsets": [0, 1]}, r"row numbers \[S, n\], n of 2 or more; found int64 \(2,\)"),
        ({"subsets": [[0, 60]]}, "row numbers 0 to 60; expected 0..59"),
        ({"features": np.where(X > 6, np.nan, X)}, "features have values that are NaN"),
        ({"test_features": TEST[:, :3]}, r"test_features should be \[M, 20\]"),
        ({"test_labels": KNOWN + 3}, "is none of the 3 classes"),
        ({"labels": Y * 0}, "all 60 labels are 0"),
        ({"strengths": [-1.0]}, "positive and finite"),
    ],
)
def test_what_it_refuses(given, message):
    options = {"features": X, "labels": Y, "subsets": [[0, 1, 2]], "test_features": TEST, "test_labels": KNOWN} | given
    arrays = [options.pop(name) for name in ("features", "labels", "subsets")]
    with pytest.raises(ProbeError, match=message):
        ridge_paths(*arrays, **options)
