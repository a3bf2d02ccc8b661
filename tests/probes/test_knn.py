"""k nearest neighbours, against scikit-learn."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.probes import ProbeError, knn

neighbors = pytest.importorskip("sklearn.neighbors")
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 60).astype("int32")
FEATURES = (RNG.normal(size=(60, 6)) + np.eye(6)[LABELS] * 2 + 3).astype("float32")
QUERIES = (RNG.normal(size=(33, 6)) + 3).astype("float32")


def predict(features=FEATURES, labels=LABELS, queries=QUERIES, **options):
    return np.asarray(knn(features, labels, num_classes=4, **options).predict(queries))


def scikit(k, metric, weights="uniform", n=60):
    model = neighbors.KNeighborsClassifier(k, metric=metric, weights=weights, algorithm="brute")
    model.fit(FEATURES[:n].astype("float64"), LABELS[:n])
    found = np.zeros((len(QUERIES), 4))
    found[:, model.classes_] = model.predict_proba(QUERIES.astype("float64"))
    return found


@pytest.mark.one_in(3)
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 5, 60])
def test_agrees_with_scikit_learn(k, metric):
    np.testing.assert_allclose(predict(k=k, metric=metric), scikit(k, metric), atol=1e-6)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_temperature_agrees_with_scikit_learns_weights(metric):
    expected = scikit(7, metric, weights=lambda distance: np.exp(-distance / 0.3))
    np.testing.assert_allclose(predict(k=7, metric=metric, temperature=0.3), expected, atol=2e-5)


def test_tiny_temperatures_do_not_overflow():
    sharp = predict(k=9, temperature=1e-6)
    assert np.isfinite(sharp).all()
    np.testing.assert_allclose(sharp, predict(k=1), atol=1e-5)


@pytest.mark.slow
def test_many_chunks(monkeypatch):
    module = sys.modules["tljax.probes.knn"]

    whole = predict(k=4)
    monkeypatch.setattr(module, "_CHUNK", 10)
    jax.clear_caches()
    np.testing.assert_allclose(predict(k=4), whole, atol=1e-6)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_weight_0_takes_examples_out(metric):
    weight = np.zeros(60, "float32")
    weight[:20] = 1
    padded = FEATURES.copy()
    padded[20:] = np.nan
    found = predict(padded, k=5, metric=metric, weight=weight)
    np.testing.assert_allclose(found, scikit(5, metric, n=20), atol=1e-6)


def test_k_is_capped_at_the_examples_there_are():
    np.testing.assert_allclose(predict(FEATURES[:3], LABELS[:3], k=5), scikit(3, "cosine", n=3), atol=1e-6)
    weight = (np.arange(60) < 3).astype("float32")
    np.testing.assert_allclose(predict(k=5, weight=weight), scikit(3, "cosine", n=3), atol=1e-6)
    np.testing.assert_allclose(predict(k=5, weight=np.zeros(60)), 0.25)


def test_one_program_for_subsets_of_one_length():
    calls = []

    @jax.jit
    def run(weight, temperature):
        calls.append(1)
        return knn(FEATURES, LABELS, num_classes=4, weight=weight).predict(QUERIES)

    for count in (3, 10, 60):
        run((jnp.arange(60) < count).astype(jnp.float32), 0.1)
    assert len(calls) == 1


def test_far_from_the_origin():
    near, far = predict(metric="euclidean"), predict(FEATURES + 1000, queries=QUERIES + 1000, metric="euclidean")
    assert (near != far).any(1).mean() < 0.05  # float32 keeps 3 decimals of a number near 1000


def test_bad_features_show():
    broken = QUERIES.copy()
    broken[0, 0] = np.nan
    found = predict(queries=broken)
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1:]).all()


def test_zero_vectors_and_ties_are_defined():
    found = knn(jnp.zeros((3, 2)), jnp.array([2, 1, 1]), k=1)
    np.testing.assert_array_equal(found.predict(jnp.ones((1, 2))), [[0, 0, 1]])  # equally near: the first


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": 0}, "k must be 1 or more"),
        ({"temperature": 0.0}, "temperature above 0"),
        ({"metric": "manhattan"}, "'manhattan'"),
        ({"labels": LABELS[:5]}, r"60 rows of features and labels of the shape \(5,\)"),
        ({"labels": LABELS.astype("float32")}, "integers or names; found float32"),
        ({"labels": LABELS * 0}, "all 60 labels are 0"),
        ({"queries": QUERIES[:, :3]}, r"\[M, 6\], one row or more; found \(33, 3\)"),
        ({"features": FEATURES[:0], "labels": LABELS[:0]}, "not empty; found float32"),
        ({"features": np.where(FEATURES > 5, np.nan, FEATURES)}, r"NaN or infinite, in \d+ of 60 rows"),
        ({"weight": np.ones(3)}, r"\(3,\)"),
    ],
)
def test_wrong_input_raises(given, message):
    with pytest.raises(ProbeError, match=message):
        predict(**given)
