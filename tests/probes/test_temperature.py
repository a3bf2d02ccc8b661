"""Temperatures, against SciPy's minimiser."""

import numpy as np
import pytest
import scipy.optimize

from tljax.probes import ProbeError, temperature


def loss(a, z, y, smoothing=1.0):
    n, c = z.shape
    q = (n * np.eye(c)[y] + smoothing / c) / (n + smoothing)
    p = a * z - np.log(np.exp(a * z).sum(1, keepdims=True))
    return -(q * p).sum()


@pytest.mark.parametrize("smoothing", [0.0, 1.0, 7.5])
@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])
def test_it_is_the_likeliest(smoothing, size):
    rng = np.random.default_rng(3)
    z = rng.normal(size=(50, 4))
    y = (z + rng.normal(size=z.shape)).argmax(1)
    z = size * z
    best = scipy.optimize.minimize_scalar(
        lambda t: loss(1 / np.exp(t), z, y, smoothing), bounds=(-6, 6), method="bounded", options={"xatol": 1e-9}
    )
    found = temperature(z.astype(np.float32), y, smoothing=smoothing)
    np.testing.assert_allclose(found, np.exp(best.x), rtol=1e-4)


def test_without_a_mistake_it_is_finite():
    z, y = np.eye(4, dtype=np.float32), np.arange(4)
    sure = float(1 / temperature(z, y))
    assert all(loss(sure, z, y) < loss(sure * k, z, y) for k in (0.98, 1.02))
    np.testing.assert_allclose(temperature(z, y, smoothing=0), 1e-3, rtol=1e-3)
    np.testing.assert_allclose(temperature(-z, y), 1e3, rtol=1e-3)


def test_a_class_that_is_ruled_out_changes_nothing():
    rng = np.random.default_rng(4)
    z = rng.normal(size=(30, 3)).astype(np.float32)
    y = (z + rng.normal(size=z.shape)).argmax(1)
    wide = np.concatenate([z, np.full((30, 1), np.finfo(np.float32).min / 2)], 1).astype(np.float32)
    np.testing.assert_allclose(temperature(wide, y), temperature(z, y), rtol=1e-4)


@pytest.mark.parametrize(
    ("logits", "labels", "options", "message"),
    [
        (np.ones(3), [0, 1, 1], {}, r"\[N, C\] and labels \[N\] int; found \(3,\)"),
        (np.ones((3, 2)), [0, 1], {}, r"found \(3, 2\) and int64 \(2,\)"),
        (np.ones((2, 2)), [0, 2], {}, "labels go from 0 to 2; expected 0..1"),
        (np.full((2, 2), np.nan), [0, 1], {}, "may not be NaN"),
        (np.ones((2, 2)), [0, 1], {"smoothing": -1.0}, "smoothing is -1.0"),
    ],
)
def test_what_it_refuses(logits, labels, options, message):
    with pytest.raises(ProbeError, match=message):
        temperature(logits, labels, **options)
