"""Forgetting, CKA and weight distance, against their definitions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.evaluation import EvaluationError, before_head, cka, forgetting, tradeoff, weight_distance
from tljax.merging import MergingError
from tljax.models import mlp, resnet

RNG = np.random.default_rng(0)


def hsic_cka(a, b):
    """From the N x N kernels, as the definition has it."""
    n = len(a)
    h = np.eye(n) - 1 / n
    k, m = h @ (a @ a.T) @ h, h @ (b @ b.T) @ h
    return np.trace(k @ m) / math.sqrt(np.trace(k @ k) * np.trace(m @ m))


@pytest.mark.parametrize(("d", "e"), [(3, 5), (40, 4), (60, 80), (1, 1)])
def test_cka_is_its_definition(d, e):
    a = RNG.normal(size=(50, d)) + 3
    b = a[:, :1] @ RNG.normal(size=(1, e)) + RNG.normal(size=(50, e))
    assert cka(a, b) == pytest.approx(hsic_cka(a, b), rel=1e-9)
    assert cka(a, b) == pytest.approx(cka(b, a), rel=1e-9)


def test_cka_does_not_see_turns_moves_and_sizes():
    a, b = RNG.normal(size=(30, 6)), RNG.normal(size=(30, 4))
    turn = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
    assert cka(100 * a @ turn - 2, b) == pytest.approx(cka(a, b))
    assert cka(a, a @ turn) == pytest.approx(1)


def test_cka_of_nothing_is_nan():
    assert math.isnan(cka(np.ones((5, 2)), RNG.normal(size=(5, 2))))
    assert math.isnan(cka(np.full((5, 2), np.nan), RNG.normal(size=(5, 2))))
    for a, b in [((5, 2), (4, 2)), ((5,), (5, 2)), ((1, 2), (1, 2))]:
        with pytest.raises(EvaluationError):
            cka(np.ones(a), np.ones(b))


def test_weight_distance_by_model_groups():
    model = resnet(8, num_classes=3, width=4)
    before = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    after = jax.tree.map(lambda leaf: leaf * 1.5, before)
    found = weight_distance(before, after, model.groups)
    assert list(found) == [str(group) for group in model.groups]
    assert all(value == pytest.approx(0.5) or value == 0.0 for value in found.values())  # biases are zero, and stay
    np.testing.assert_allclose(list(weight_distance(before, before, model.groups).values()), 0)


def test_weight_distance_by_hand():
    before = {"backbone": {"w": jnp.array([[3.0], [4.0]]), "batch_stats": {"mean": jnp.zeros(2)}, "n": jnp.int32(3)}}
    after = {"backbone": {"w": jnp.array([[3.0], [7.0]]), "batch_stats": {"mean": jnp.ones(2)}, "n": jnp.int32(9)}}
    assert weight_distance(before, after) == {"backbone/**": pytest.approx(0.6)}
    assert weight_distance({"a": jnp.zeros(2)}, {"a": jnp.ones(2)}, ["a"]) == {"a": math.inf}
    with pytest.raises(EvaluationError, match=r"'a' is \(2,\) before and \(3,\) after"):
        weight_distance({"a": jnp.ones(2)}, {"a": jnp.ones(3)}, ["a"])
    with pytest.raises(EvaluationError, match="'a' is missing"):
        weight_distance({"a": jnp.ones(2)}, {"b": jnp.ones(2)}, ["a"])


@pytest.fixture(scope="module")
def source():
    """A model that tells the sign of two numbers, and data."""
    x = RNG.normal(size=(200, 4)).astype("float32")
    y = ((x[:, 0] > 0) + 2 * (x[:, 1] > 0)).astype("int32")
    model = mlp((16,), num_classes=4)
    params = model.init(jax.random.key(0), x)
    kernel = np.zeros((4, 16), np.float32)
    kernel[0, :2], kernel[1, 2:4] = (1, -1), (1, -1)  # features: |x0|+, |x0|-, |x1|+, |x1|-
    head = np.zeros((16, 4), np.float32)
    head[:4] = [[-1, 1, -1, 1], [1, -1, 1, -1], [-1, -1, 1, 1], [1, 1, -1, -1]]
    params = {
        "backbone": {"block_00": {"dense": {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(16)}}},
        "head": {"kernel": jnp.asarray(head), "bias": jnp.zeros(4)},
    }
    return model, params, (x[:100], y[:100]), (x[100:], y[100:])


def with_kernel(params, kernel):
    bias = params["backbone"]["block_00"]["dense"]["bias"]
    return {"backbone": {"block_00": {"dense": {"kernel": jnp.asarray(kernel), "bias": bias}}}, "head": {"other": 1.0}}


def test_what_is_wiped_out_is_forgotten_by_either_head(source):
    model, params, train, test = source
    kernel = np.array(params["backbone"]["block_00"]["dense"]["kernel"])
    kernel[1] = 0  # the second sign is no longer told
    found = forgetting(model, params, with_kernel(params, kernel), test, train=train)
    assert found.before == 1.0
    half = np.mean(np.where(test[0][:, 0] > 0, 1, 0) == test[1])  # argmax takes the first of two that tie
    assert found.after == pytest.approx(half)
    assert found.forgotten == pytest.approx(1 - half)
    assert found.refit_before > 0.9
    assert found.refit_after < 0.7
    assert 0.2 < found.cka < 0.9


def test_features_that_only_turned_are_not_lost_to_a_new_head(source):
    model, params, train, test = source
    kernel = np.roll(np.array(params["backbone"]["block_00"]["dense"]["kernel"]), 7, axis=1)
    found = forgetting(model, params, with_kernel(params, kernel), test, train=train)
    assert found.after < 0.5
    assert found.refit_after == pytest.approx(found.refit_before, abs=0.02)
    assert found.cka == pytest.approx(1)


def test_without_the_head_the_new_ones_are_compared(source):
    model, params, train, test = source
    found = forgetting(model, params, params, test, train=train, head=None)
    assert math.isnan(found.before)
    assert found.forgotten == 0.0
    with pytest.raises(EvaluationError, match="train="):
        forgetting(model, params, params, test, head=None)


def test_a_run_that_diverged_leaves_no_number(source):
    model, params, train, test = source
    found = forgetting(model, params, with_kernel(params, np.full((4, 16), np.inf, np.float32)), test, train=train)
    assert found.refit_before > 0.9
    assert math.isnan(found.refit_after)
    assert math.isnan(found.cka)


def test_backbones_must_fit(source):
    model, params, _, test = source
    with pytest.raises(EvaluationError, match=r"\(4, 16\) before and \(4, 9\) after"):
        forgetting(model, params, with_kernel(params, np.zeros((4, 9))), test)
    with pytest.raises(EvaluationError, match="missing after fine-tuning"):
        before_head(params, {"head": params["head"]})


def test_the_tradeoff_visits_the_line():
    start, tuned = {"w": jnp.array([0.0, 1.0])}, {"w": jnp.array([1.0, 3.0])}
    found = tradeoff(start, tuned, lambda p: {"first": p["w"][0], "second": p["w"][1]})
    assert found["alphas"] == [round(0.1 * i, 1) for i in range(11)]
    np.testing.assert_allclose(found["first"], found["alphas"], rtol=1e-6)
    np.testing.assert_allclose(found["second"], 1 + 2 * np.array(found["alphas"]), rtol=1e-6)
    with pytest.raises(MergingError):
        tradeoff(start, {"v": jnp.zeros(2)}, lambda p: {})
