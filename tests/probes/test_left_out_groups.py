"""Leaving out whole groups, against leaving them out for real."""

import pathlib
import sys

import jax
import numpy as np
import pytest

from tljax.probes import ProbeError, ridge

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "golden"))

import make_ridge


def left_out(x, t, groups, strength):
    """The normal equations in the smaller of the two spaces, solved without each group."""
    found = np.zeros_like(t)
    for name in np.unique(groups):
        keep = groups != name
        mean, offset = x[keep].mean(0), t[keep].mean(0)
        part = x[keep] - mean
        dual = np.linalg.solve(part @ part.T + strength * np.eye(len(part)), t[keep] - offset)
        found[~keep] = (x[~keep] - mean) @ (part.T @ dual) + offset
    return found


def copies(shape, seed, noise, views=3):
    """Examples in `views` versions each, one after the other; one of them has a single one."""
    rng = np.random.default_rng(seed)
    base = 3 + rng.normal(size=(shape[0], shape[1]))
    x = np.repeat(base, views, axis=0)
    groups = np.repeat(np.arange(shape[0]), views)
    x, groups = x[:-2] + noise * rng.normal(size=x[:-2].shape), groups[:-2]
    t = rng.normal(size=(shape[0], 2))[groups]
    order = rng.permutation(len(x))
    return x[order], t[order], groups[order]


@pytest.mark.one_in(2)
@pytest.mark.parametrize("shape", [(8, 3), (8, 40)])
@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("strength", [1e-2, 1.0, 1e3])
def test_it_is_leaving_out(shape, noise, strength):
    x, t, groups = copies(shape, 0, noise)
    expected = left_out(x, t, groups, strength)
    with jax.enable_x64(True):
        wide = ridge(x, t, strengths=strength, groups=groups)
        np.testing.assert_allclose(wide.loo, expected, rtol=1e-8, atol=1e-8)
    found = ridge(x.astype(np.float32), t.astype(np.float32), strengths=strength, groups=groups)
    np.testing.assert_allclose(found.loo, expected, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(found.errors, [np.mean((t - expected) ** 2)], rtol=2e-3)


@pytest.mark.parametrize("strength", [1e-4, 1e-3])
def test_exact_copies_near_interpolation(strength):
    """The block itself is nothing but the strength there: 1 - h in single precision would be noise."""
    x, t, groups = copies((10, 30), 1, 0.0)
    found = ridge(x.astype(np.float32), t.astype(np.float32), strengths=strength, groups=groups)
    expected = left_out(x.astype(np.float32).astype(float), t, groups, strength)
    np.testing.assert_allclose(found.loo, expected, rtol=5e-3, atol=5e-3)


@pytest.mark.slow
def test_copies_leak_without_groups():
    rng = np.random.default_rng(2)
    x, y = np.repeat(rng.normal(size=(20, 50)), 2, axis=0).astype(np.float32), np.repeat(rng.integers(0, 2, 20), 2)
    alone, together = ridge(x, y), ridge(x, y, groups=np.repeat(np.arange(20), 2))
    accuracy = [float(np.mean(np.argmax(found.loo, 1) == y)) for found in (alone, together)]
    assert accuracy[0] == 1  # the labels are noise
    assert accuracy[1] < 0.8


def test_groups_of_one_are_leaving_one_out():
    x, y = make_ridge.case(**make_ridge.CASES["imbalanced"])
    plain = ridge(x.astype(np.float32), y)
    found = ridge(x.astype(np.float32), y, groups=[f"row {i}" for i in range(len(x))])
    np.testing.assert_allclose(found.loo, plain.loo, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.errors, plain.errors, rtol=1e-3)


def test_a_group_that_holds_a_whole_class():
    x, y = make_ridge.case(**make_ridge.CASES["tiny"])
    t = 2.0 * np.eye(3)[y] - 1
    groups = np.where(y == 0, -1, np.arange(len(y)))
    found = ridge(x.astype(np.float32), y, groups=groups, strengths=1.0)
    np.testing.assert_allclose(found.loo, left_out(x, t, groups, 1.0), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([0, 1], r"4 rows of features and groups of the shape \(2,\)"),
        (["a"] * 4, "all 4 examples are of the group 'a'"),
    ],
)
def test_what_it_refuses(groups, message):
    with pytest.raises(ProbeError, match=message):
        ridge(np.eye(4), [0, 1, 0, 1], groups=groups)
