"""Ridge regression against leaving out for real, and in the corners where formulas break."""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.probes import ProbeError, ridge

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))

import make_ridge  # noqa: E402

STORED = json.loads((GOLDEN / "ridge.json").read_text())


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", make_ridge.CASES)
@pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])
def test_leave_one_out_is_leaving_out(name, wide):
    x, y = make_ridge.case(**make_ridge.CASES[name])
    np.testing.assert_allclose(x.sum(), STORED[name]["input_sum"], rtol=1e-12)
    with jax.enable_x64(wide):
        for entry in STORED[name]["strengths"]:
            found = ridge(x if wide else x.astype(np.float32), y, strengths=entry["strength"])
            assert found.loo.dtype == (jnp.float64 if wide else jnp.float32)
            rtol = 1e-9 if wide else 2e-4
            loo = np.asarray(found.loo, float)
            weighted = (loo.ravel() * np.cos(np.arange(1, loo.size + 1))).sum()
            np.testing.assert_allclose(weighted, entry["loo_weighted"], rtol=rtol, atol=rtol)
            np.testing.assert_allclose(loo[0], entry["first"], rtol=rtol, atol=rtol)
            np.testing.assert_allclose(found.errors, [entry["mse"]], rtol=rtol)
            np.testing.assert_allclose(found.strength, entry["strength"], rtol=1e-5)
            np.testing.assert_allclose(np.linalg.norm(found.weights), entry["weights_norm"], rtol=rtol)
            np.testing.assert_allclose(found.bias, entry["bias"], rtol=rtol, atol=rtol)
            assert (loo.argmax(1) == y).mean() == entry["accuracy"]


def test_the_golden_file_is_what_its_script_writes():
    assert json.dumps(make_ridge.scores()["tiny"]["strengths"][0]["accuracy"]) == json.dumps(
        STORED["tiny"]["strengths"][0]["accuracy"]
    )
    np.testing.assert_allclose(make_ridge.scores()["wide"]["strengths"][1]["mse"],
                               STORED["wide"]["strengths"][1]["mse"], rtol=1e-9)  # fmt: skip


@pytest.mark.one_in(2)
@pytest.mark.parametrize("shape", [(9, 3), (12, 30), (8, 8), (8, 7)])
@pytest.mark.parametrize("strength", [1e-4, 1.0, 1e4])
def test_in_single_precision_however_near_interpolation(shape, strength):
    rng = np.random.default_rng(0)
    x, t = 5 + rng.normal(size=shape), rng.normal(size=(shape[0], 2))
    rows = []
    for i in range(len(x)):
        keep = np.arange(len(x)) != i
        w, b = make_ridge.fitted(x[keep], t[keep], strength)
        rows.append(x[i] @ w + b)
    found = ridge(x.astype(np.float32), t.astype(np.float32), strengths=[strength])
    np.testing.assert_allclose(found.loo, rows, rtol=5e-3, atol=5e-3)
    w, b = make_ridge.fitted(x, t, strength)
    np.testing.assert_allclose(found.weights, w, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(found.bias, b, rtol=5e-3, atol=5e-3)


@pytest.mark.slow
def test_the_strength_with_the_least_error_is_chosen():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 30)).astype(np.float32)
    t = (x[:, :1] + rng.normal(size=(40, 1))).astype(np.float32)  # noise: little strength fits it
    found = ridge(x, t)
    assert found.strengths.shape == found.errors.shape == (13,)
    squared = np.sum((x - x.mean(0)) ** 2) / 30
    np.testing.assert_allclose(found.strengths, squared * 10.0 ** np.linspace(-3, 3, 13), rtol=1e-4)
    best = int(np.argmin(found.errors))
    assert 0 < best < 12
    np.testing.assert_allclose(found.strength, found.strengths[best])
    np.testing.assert_allclose(np.mean((t - found.loo) ** 2), found.errors[best], rtol=1e-4)
    alone = ridge(x, t, strengths=float(found.strength))
    np.testing.assert_allclose(alone.weights, found.weights, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("factor", "shift"), [(1e6, 0.0), (1e-12, 0.0), (1e25, 0.0), (3.0, 100.0)])
def test_the_units_of_the_features_do_not_matter(factor, shift):
    x, y = make_ridge.case(**make_ridge.CASES["imbalanced"])
    plain, other = ridge(x.astype(np.float32), y), ridge((x * factor + shift).astype(np.float32), y)
    np.testing.assert_allclose(other.loo, plain.loo, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(np.asarray(other.weights, float) * factor, plain.weights, rtol=2e-3, atol=2e-3)


def test_features_that_say_nothing_and_classes_without_examples():
    found = ridge(np.ones((6, 3), np.float32), [0, 0, 0, 0, 2, 2], num_classes=4)
    np.testing.assert_allclose(found.weights, 0, atol=1e-6)
    np.testing.assert_allclose(found.bias, [1 / 3, -1, -1 / 3, -1], rtol=1e-5)
    np.testing.assert_allclose(found.loo[0], [0.2, -1, -0.2, -1], rtol=1e-5)  # the mean of the five others
    x, y = make_ridge.case(**make_ridge.CASES["tiny"])
    more = ridge(x.astype(np.float32), y, num_classes=5, strengths=1.0)
    np.testing.assert_allclose(more.weights[:, 3:], 0, atol=1e-6)
    np.testing.assert_allclose(more.bias[3:], -1, rtol=1e-5)
    np.testing.assert_allclose(more.bias[:3], STORED["tiny"]["strengths"][1]["bias"], rtol=1e-3)


@pytest.mark.slow
def test_several_labels_and_half_precision():
    x = jnp.asarray(np.random.default_rng(2).normal(size=(20, 4)), jnp.bfloat16)
    y = np.stack([np.asarray(x[:, 0] > 0), np.asarray(x[:, 1] > 0)], 1)
    found = ridge(x, y)
    assert found.weights.dtype == jnp.float32
    assert np.mean((np.asarray(found.predict(x)) > 0) == y) > 0.8


@pytest.mark.parametrize(
    ("features", "labels", "options", "message"),
    [
        (np.ones(3), [0, 1, 1], {}, r"features should be \[N, D\]"),
        (np.ones((1, 3)), [0], {}, "two examples or more"),
        (np.ones((2, 3)), [0, 1, 1], {}, r"2 rows of features and labels of the shape \(3,\)"),
        (np.full((2, 3), np.nan), [0, 1], {}, "features have values that are NaN"),
        (np.ones((2, 3)), [0.0, np.inf], {}, "targets have values that are NaN or infinite"),
        (np.ones((2, 3)), [0, 2], {"num_classes": 2}, r"labels go from 0 to 2; expected 0..1"),
        (np.ones((2, 3)), [-1, 1], {}, "labels go from -1 to 1"),
        (np.ones((2, 3)), [[0, 2], [1, 0]], {}, r"labels go from 0 to 2; expected 0..1"),
        (np.ones((2, 3)), [0, 1], {"strengths": [1.0, 0.0]}, "positive and finite"),
        (np.ones((2, 3)), [0, 1], {"strengths": []}, "one or more"),
        (np.ones((2, 3)), [0, 1], {"strengths": np.nan}, "positive and finite"),
    ],
)
def test_what_it_refuses(features, labels, options, message):
    with pytest.raises(ProbeError, match=message):
        ridge(features, labels, **options)


@pytest.mark.slow
def test_a_mean_far_from_zero_adds_no_direction():
    rng = np.random.default_rng(4)
    x, y = (rng.normal(size=(30, 64)) + 3e4).astype(np.float32), rng.integers(0, 3, 30)
    found = ridge(x, y).loo
    with jax.enable_x64(True):
        wide = ridge(x.astype(np.float64), y).loo
    np.testing.assert_allclose(found, wide, atol=1e-5)
