"""Regression metrics, against scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.evaluation import MetricError, regression

sk = pytest.importorskip("sklearn.metrics")


def measure(metric, predictions, targets, weight=None):
    sums = jax.jit(metric.update)(metric.init(), predictions, targets, weight)
    return jax.device_get(jax.jit(metric.compute)(sums))


def stream(metric, predictions, targets, size):
    update, sums = jax.jit(metric.update), metric.init()
    for start in range(0, len(targets), size):
        p, t = predictions[start : start + size], targets[start : start + size]
        pad = ((0, size - len(t)),) + ((0, 0),) * (t.ndim - 1)
        weight = np.pad(np.ones(len(t), "float32"), pad[0])
        p = np.pad(p, ((0, size - len(t)), (0, 0)), constant_values=np.nan)
        sums = update(sums, p, np.pad(t, pad, constant_values=np.inf), weight)
    return jax.device_get(jax.jit(metric.compute)(sums))


def expected(predictions, targets):
    p, t = predictions.astype("float64"), targets.astype("float64")
    return {
        "mae": sk.mean_absolute_error(t, p),
        "rmse": sk.root_mean_squared_error(t, p),
        "r2": sk.r2_score(t, p),
    }


def data(n, k, *, mean=0.0, scale=1.0, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    targets = (mean + scale * rng.normal(size=(n, k))).astype("float32")
    return (targets + scale * noise * rng.normal(size=(n, k))).astype("float32"), targets


@pytest.mark.one_in(2)
@pytest.mark.parametrize("size", [1, 16, 1000])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"mean": 1e4},
        {"mean": -1e6, "scale": 10.0},
        {"scale": 1e-6},
        {"noise": 3.0},
    ],
    ids=str,
)
def test_agrees_with_scikit_learn(given, size):
    predictions, targets = data(500 if size > 1 else 60, 3, **given)
    found = stream(regression(3), predictions, targets, size)
    for name, value in expected(predictions, targets).items():
        assert found[name] == pytest.approx(value, rel=2e-5), name
    np.testing.assert_allclose(
        found["output_r2"],
        sk.r2_score(targets.astype("float64"), predictions.astype("float64"), multioutput="raw_values"),
        rtol=2e-5,
    )


def test_targets_that_drift_away_from_the_first_batch():
    predictions, targets = data(2000, 1, scale=1.0)
    drift = np.linspace(0, 100, 2000, dtype="float32")[:, None]
    predictions, targets = predictions + drift, targets + drift
    found = stream(regression(), predictions, targets, 10)
    assert 1 - found["r2"] == pytest.approx(1 - expected(predictions, targets)["r2"], rel=1e-3)
    assert found["rmse"] == pytest.approx(expected(predictions, targets)["rmse"], rel=1e-5)


def test_flat_targets_and_integers():
    predictions, targets = data(50, 1)
    assert measure(regression(), predictions, targets[:, 0]) == measure(regression(), predictions, targets)
    whole = np.arange(5)
    assert measure(regression(), whole[:, None].astype("float32"), whole)["r2"] == 1.0


def test_constant_targets_are_as_in_scikit_learn():
    flat = np.full((8, 1), 3.3, "float32")
    exact = measure(regression(), flat, flat)
    assert (exact["r2"], exact["rmse"]) == (1.0, 0.0)
    assert exact["r2"] == sk.r2_score(flat, flat)
    off = flat + np.arange(8, dtype="float32")[:, None]
    assert measure(regression(), off, flat)["r2"] == 0.0 == sk.r2_score(flat, off)


def test_one_example_has_no_r2():
    found = measure(regression(), np.array([[1.0]], "float32"), np.array([3.0], "float32"))
    assert (found["mae"], found["rmse"], found["count"]) == (2.0, 2.0, 1)
    assert np.isnan(found["r2"])


def test_no_example_has_nothing():
    found = measure(regression(), np.ones((2, 1), "float32"), np.ones(2, "float32"), np.zeros(2))
    assert found["count"] == 0
    assert all(np.isnan(found[name]) for name in ("mae", "rmse", "r2"))


@pytest.mark.slow
def test_shards_add_up_in_any_grouping():
    predictions, targets = data(100, 2, mean=1e3)
    metric = type(regression(2))(*map(jax.jit, regression(2)))
    empty = metric.init()
    a, b, c = (metric.update(empty, p, t) for p, t in zip(np.split(predictions, [5, 60]), np.split(targets, [5, 60])))
    for sums in (
        metric.merge(metric.merge(a, b), c),
        metric.merge(empty, metric.merge(c, metric.merge(empty, metric.merge(a, b)))),
        metric.merge(metric.merge(b, c), metric.merge(a, empty)),
    ):
        found = metric.compute(sums)
        for name, value in expected(predictions, targets).items():
            assert float(found[name]) == pytest.approx(value, rel=2e-5), name


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_numbers_show(bad):
    predictions, targets = data(10, 1)
    predictions[3] = bad
    found = measure(regression(), predictions, targets)
    assert (found["count"], found["invalid"]) == (10, 1)
    assert all(np.isnan(found[name]) for name in ("mae", "rmse", "r2"))


@pytest.mark.parametrize(("predictions", "targets"), [((4, 2), (4, 2)), ((4, 1), (3,)), ((4,), (4,))])
def test_wrong_shapes_raise(predictions, targets):
    metric = regression()
    with pytest.raises((MetricError, ValueError), match=r"found predictions|predictions \[B, 1\]"):
        metric.update(metric.init(), jnp.zeros(predictions), jnp.zeros(targets))
