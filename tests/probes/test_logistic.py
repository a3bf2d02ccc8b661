"""Logistic regression, against scikit-learn's Newton steps in double precision."""

import warnings

import jax
import numpy as np
import pytest

from tljax.probes import ProbeError, logistic, ridge, temperature

datasets = pytest.importorskip("sklearn.datasets")
linear_model = pytest.importorskip("sklearn.linear_model")


def scikit(x, y, strength, weight=None):
    model = linear_model.LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-10, max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the last Newton steps of separable data are below what doubles resolve
        return model.fit(x.astype(float), y, sample_weight=weight)


def objective(weights, bias, x, y, strength, weight=None):
    """Mean loss and penalty as scikit-learn minimises them, in double precision."""
    z = x.astype(float) @ np.asarray(weights, float) + np.asarray(bias, float)
    top = z.max(1, keepdims=True)
    loss = np.log(np.exp(z - top).sum(1)) + top[:, 0] - z[np.arange(len(y)), y]
    w = np.ones(len(y)) if weight is None else weight
    squares = np.sum(np.square(np.asarray(weights, float))) * (2 if z.shape[1] == 2 else 1)
    return (w @ loss + squares / (2 * strength)) / w.sum()


def columns(model):
    """The coefficients of every class, from those of two classes too."""
    coef, intercept = model.coef_.T, model.intercept_
    return (coef, intercept) if coef.shape[1] > 1 else (coef * [-0.5, 0.5], intercept * [-0.5, 0.5])


def probabilities(found, x):
    return np.asarray(jax.nn.softmax(found.predict(x), axis=-1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wine", pytest.param("breast_cancer", marks=pytest.mark.slow)])
def test_raw_features_of_very_different_scale(name):
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x = x.astype(np.float32)
    found = logistic(x, y, strengths=[1.0, 1e-3, 100.0])
    assert np.asarray(found.converged).all()
    for i, strength in enumerate([1.0, 1e-3, 100.0]):
        model = scikit(x, y, strength)
        coef, intercept = columns(model)
        best = objective(coef, intercept, x, y, strength)
        np.testing.assert_allclose(objective(found.weights[i], found.bias[i], x, y, strength), best, rtol=1e-4)
        np.testing.assert_allclose(found.loss[i], best, rtol=1e-4)
        np.testing.assert_allclose(probabilities(found, x)[i], model.predict_proba(x.astype(float)), atol=5e-3)
        np.testing.assert_allclose(found.weights[i], coef, atol=5e-3 * np.abs(coef).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((30, 300), id="D >> N, separable"),
        pytest.param((60, 5), marks=pytest.mark.slow, id="N > D"),
    ],
)
def test_wide_and_tall(shape):
    rng = np.random.default_rng(0)
    y = np.arange(shape[0]) % 3
    x = (rng.normal(size=shape) + 0.7 * rng.normal(size=(3, shape[1]))[y] + 3).astype(np.float32)
    test = (x + 0.5 * rng.normal(size=shape)).astype(np.float32)
    strengths = [1e-4, 1.0, 1e4]
    found = logistic(x, y, strengths=strengths)
    assert np.asarray(found.converged).all()
    np.testing.assert_allclose(np.asarray(found.weights).sum(-1), 0, atol=1e-3)
    for i, strength in enumerate(strengths):
        model = scikit(x, y, strength)
        np.testing.assert_allclose(probabilities(found, test)[i], model.predict_proba(test.astype(float)), atol=3e-3)
        alone = logistic(x, y, strengths=strength)
        assert alone.weights.shape == (shape[1], 3)
        np.testing.assert_allclose(probabilities(alone, test), probabilities(found, test)[i], atol=1e-3)


@pytest.mark.slow
def test_weights_subsets_and_accelerators(monkeypatch):
    rng = np.random.default_rng(1)
    y = np.arange(40) % 4
    x = (rng.normal(size=(40, 8)) + rng.normal(size=(4, 8))[y]).astype(np.float32)
    subsets = np.stack([rng.permutation(40)[:25] for _ in range(3)])
    weight = np.stack([np.bincount(rows, minlength=40) for rows in subsets]).astype(float)
    drawn = logistic(x, y, subsets=subsets, strengths=[0.1, 10.0])
    weighted = logistic(x, y, weight=weight, strengths=[0.1, 10.0])
    assert drawn.weights.shape == weighted.weights.shape == (3, 2, 8, 4)
    np.testing.assert_allclose(weighted.weights, drawn.weights, atol=2e-3)
    np.testing.assert_allclose(weighted.loss, drawn.loss, rtol=1e-4)
    uneven = rng.random(40)
    found, model = logistic(x, y, weight=uneven, strengths=2.0), scikit(x, y, 2.0, uneven)
    np.testing.assert_allclose(probabilities(found, x), model.predict_proba(x.astype(float)), atol=1e-3)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    batched = logistic(x, y, subsets=subsets, strengths=[0.1, 10.0])
    np.testing.assert_allclose(batched.weights, drawn.weights, atol=2e-3)
    assert np.asarray(batched.converged).all()


@pytest.mark.slow
def test_units_of_the_features_are_units_of_the_strength():
    rng = np.random.default_rng(2)
    y = np.arange(30) % 3
    x = rng.normal(size=(30, 5)) + np.eye(5)[y]
    plain = logistic(x.astype(np.float32), y)
    for factor in (1e-12, 1e6):
        other = logistic((x * factor).astype(np.float32), y, strengths=factor**-2.0)
        np.testing.assert_allclose(np.asarray(other.weights, float) * factor, plain.weights, atol=2e-4)
    sizes = np.array([1e-3, 1.0, 10.0, 1e4, 1.0])
    scaled = logistic((x * sizes).astype(np.float32), y, scale="features")
    standard = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    np.testing.assert_allclose(scaled.predict(x * sizes), logistic(standard, y).predict(standard), atol=1e-3)
    whole = logistic((1e5 * x).astype(np.float32), y, scale="global")
    np.testing.assert_allclose(whole.predict(1e5 * x), logistic(x, y, scale="global").predict(x), atol=1e-3)


@pytest.mark.slow
def test_what_is_said_of_absent_classes_copies_and_constants():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(12, 4)).astype(np.float32)
    y = np.arange(12) % 2 + 1
    x[:, 2], x[:, 3] = 5, x[:, 0]
    found = logistic(x, y, num_classes=5)
    assert bool(found.converged)
    np.testing.assert_array_equal(probabilities(found, x)[:, [0, 3, 4]], 0)
    model = scikit(x, y, 1.0)
    np.testing.assert_allclose(probabilities(found, x)[:, 1:3], model.predict_proba(x.astype(float)), atol=1e-4)
    named = logistic(x, np.array(["", "ox", "yak"])[y])
    assert named.classes == ("ox", "yak")
    assert np.isfinite(temperature(found.predict(x), y))
    still = logistic(np.ones((6, 3)), [0, 0, 0, 0, 1, 1])
    np.testing.assert_allclose(probabilities(still, np.ones((1, 3))), [[2 / 3, 1 / 3]], rtol=1e-5)
    one = logistic(x[:3], ["a", "b", "c"])  # one example a class
    assert np.argmax(one.predict(x[:3]), -1).tolist() == [0, 1, 2]


@pytest.mark.slow
def test_a_subset_that_lacks_a_class():
    rng = np.random.default_rng(4)
    y = np.arange(30) % 3
    x = (rng.normal(size=(30, 4)) + np.eye(4)[y]).astype(np.float32)
    weight = (y != 2).astype(float)
    found = logistic(x, y, weight=weight)
    model = scikit(x[y != 2], y[y != 2], 1.0)
    np.testing.assert_allclose(probabilities(found, x)[:, :2], model.predict_proba(x.astype(float)), atol=1e-3)
    np.testing.assert_array_equal(probabilities(found, x)[:, 2], 0)


@pytest.mark.slow
def test_it_says_so_where_it_has_not_converged():
    x, y = datasets.load_wine(return_X_y=True)
    found = logistic(x.astype(np.float32), y, steps=2)
    assert not bool(found.converged)
    assert int(found.steps) == 2


@pytest.mark.slow
def test_every_head_predicts_alike():
    x, y = np.eye(4, dtype=np.float32), [0, 1, 0, 1]
    for head in (ridge(x, y), logistic(x, y)):
        assert head.predict(x).shape == (4, 2)
        assert head.classes == (0, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strengths": [1.0, 0.0]}, "strengths are C, the inverse of the penalty, one or more, positive"),
        ({"tolerance": 0.0}, "tolerance should be above 0"),
        ({"steps": 0}, "steps 1 or more"),
        ({"weight": np.ones(3)}, r"weight is \[4\] or \[S, 4\]"),
        ({"weight": np.zeros(4)}, "not 0 everywhere"),
        ({"weight": -np.ones(4)}, "0 or more"),
        ({"weight": np.ones(4), "subsets": [[0, 1]]}, "not both"),
        ({"subsets": [[0, 4]]}, "row numbers 0 to 4; expected 0..3"),
        ({"scale": "rows"}, "scale is None, 'global' or 'features'; found 'rows'"),
        ({"features": np.full((4, 2), np.nan)}, "NaN or infinite"),
        ({"labels": ["a"] * 4}, "all 4 labels are 'a'"),
        ({"labels": [0.5, 1.0, 2.0, 3.0]}, "integers or names; found float64"),
    ],
)
def test_what_it_refuses(options, message):
    given = {"features": np.eye(4), "labels": [0, 1, 0, 1]} | options
    with pytest.raises(ProbeError, match=message):
        logistic(given.pop("features"), given.pop("labels"), **given)
