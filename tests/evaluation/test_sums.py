"""Sums that keep what float32 rounds away."""

import jax
import jax.numpy as jnp
import numpy as np

from tljax.evaluation import sums


def scanned(values):
    return jax.jit(lambda xs: jax.lax.scan(lambda s, x: (sums.add(s, x), None), sums.zero(xs.shape[1:]), xs)[0])(values)


def test_a_million_addends():
    values = np.full((1_000_000, 2), [0.1, 1e-3], "float32")
    total = scanned(values)
    exact = values.astype("float64").sum(0)
    np.testing.assert_allclose(sums.value(total), exact, rtol=1e-7)
    plain = jax.lax.scan(lambda s, x: (s + x, None), jnp.zeros(2), values)[0]
    assert abs(plain[0] / exact[0] - 1) > 1e-4  # what would have come out


def test_large_and_small_in_any_order():
    rng = np.random.default_rng(0)
    values = rng.permutation(np.concatenate([rng.normal(size=500), 1e6 * rng.normal(size=500), [-3e7, 3e7]]))
    values = values.astype("float32")
    exact = values.astype("float64").sum()
    np.testing.assert_allclose(sums.value(scanned(values)), exact, rtol=1e-6)
    parts = [scanned(part) for part in np.split(values[:1000], 4)] + [scanned(values[1000:])]
    joined = parts[0]
    for part in parts[1:]:
        joined = sums.join(joined, part)
    np.testing.assert_allclose(sums.value(joined), exact, rtol=1e-6)


def test_infinity_and_nan_stay():
    for bad in (np.inf, -np.inf, np.nan):
        np.testing.assert_equal(float(sums.value(scanned(np.array([1, bad, 2], "float32")))), bad)
