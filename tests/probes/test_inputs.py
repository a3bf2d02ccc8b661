"""What every probe refuses, and how it says so; and names as labels."""

import jax
import numpy as np
import pytest

from tljax.probes import Names, ProbeError, centroid, knn, lda, logistic, ridge
from tljax.probes.inputs import class_labels, scaling

X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
Y = [0, 1, 0, 1, 0, 1]
PROBES = (ridge, logistic, knn, centroid, lda)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.__name__)
@pytest.mark.parametrize(
    ("features", "labels", "options", "message"),
    [
        (np.where(X > 1, np.nan, X), Y, {}, "features have values that are NaN or infinite, in . of 6 rows"),
        (X, [2] * 6, {}, "tells classes apart; all 6 labels are 2"),
        (X, ["a"] * 6, {}, "tells classes apart; all 6 labels are 'a'"),
        (X, [0, 1, 2] * 2, {"num_classes": 2}, "labels go from 0 to 2; expected 0..1"),
        (X, ["a", "b"] * 3, {"num_classes": 4}, "num_classes is 4, and the labels are 2 names"),
        (X, [0, 1], {}, r"6 rows of features and labels of the shape \(2,\)"),
        (X, np.array(["a", "b", None] * 2, object), {}, "all integers or all names; among them stands None"),
        (X[:0], [], {}, r"features should be .*found .*\(0, 3\)"),
        (X[:, 0], Y, {}, r"features should be .*found .*\(6,\)"),
        (X.astype(str), Y, {}, "features should be numbers.*found <U"),
    ],
    ids=range(10),
)
def test_one_clear_error(probe, features, labels, options, message):
    with pytest.raises(ProbeError, match=message):
        probe(features, labels, **options)


def test_names_are_a_constant_to_jax():
    head = centroid(X, ["b", "a"] * 3)
    assert head.classes == ("a", "b")
    assert len(jax.tree.leaves(head)) == 2
    assert jax.jit(lambda head: head)(head).classes == ("a", "b")
    assert class_labels([True, True, False], 3)[1] == Names((0, 1))


@pytest.mark.parametrize("factor", [1.0, 1e25])
def test_scales(factor):
    x = jax.numpy.asarray(X * factor)
    spread = (X.astype(float) * factor).std(0)
    np.testing.assert_allclose(scaling(x, "features"), spread, rtol=1e-5)
    np.testing.assert_allclose(scaling(x, "global"), np.sqrt(np.mean(spread**2)), rtol=1e-5)
    still = x.at[:, 1].set(1e4)
    np.testing.assert_allclose(scaling(still, "features")[1], 1)


def test_ridge_in_units_of_the_features():
    sizes = np.array([1e-3, 1.0, 1e4], np.float32)
    plain, scaled = ridge(X / X.std(0), Y), ridge(X * sizes, Y, scale="features")
    np.testing.assert_allclose(scaled.loo, plain.loo, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(scaled.predict(X * sizes), plain.predict(X / X.std(0)), rtol=1e-3, atol=1e-3)
