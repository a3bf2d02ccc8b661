"""The losses of adversarial adaptation on arrays: golden values, derivatives, symmetries, hard input."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adaptation_inputs import fs, ft, golden, gs, gs2, gt, gt2
from jax.test_util import check_grads

from tljax.objectives import (
    LabelError,
    SpectrumError,
    class_imbalance,
    classifier_discrepancy,
    conditional_adversarial,
    domain_adversarial,
    entropy_weights,
    margin_disparity,
    multilinear_map,
    randomized_map,
    regression_disparity,
    spectral_penalty,
)


def softmax(g):
    return jax.nn.softmax(jnp.asarray(g))


def mapped(f, g):
    return multilinear_map(jnp.asarray(f), softmax(g))


def told(h):
    """The logits of the golden file's discriminator."""
    return h @ jnp.cos(jnp.arange(h.shape[1], dtype=h.dtype))


def cdan(fs, ft, gs, gt, entropy=False):
    p = jnp.concatenate([softmax(gs), softmax(gt)]) if entropy else None
    return conditional_adversarial(told(mapped(fs, gs)), told(mapped(ft, gt)), probabilities=p)


VALUES = {
    "dann(d=sigmoid(f.cos(j)))": lambda: domain_adversarial(told(jnp.asarray(fs)), told(jnp.asarray(ft))),
    "cdan_multilinear": lambda: cdan(fs, ft, gs, gt),
    "cdan_multilinear+E": lambda: cdan(fs, ft, gs, gt, entropy=True),
    "cdan_map[0,:] sum j*h_j": lambda: mapped(fs, gs)[0] @ jnp.arange(20, dtype=mapped(fs, gs).dtype),
    "mdd_cls_margin4": lambda: margin_disparity(gs, gs2, gt, gt2),
    "mdd_reg_margin1_l1": lambda: regression_disparity(gs, gs2, gt, gt2),
    "mcd_discrepancy": lambda: classifier_discrepancy(gt, gt2),
    "mcd_entropy": lambda: class_imbalance(gt),
    "bsp": lambda: spectral_penalty(fs, ft),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", VALUES)
def test_golden_values(name):
    assert float(VALUES[name]()) == pytest.approx(golden(name), rel=1e-4)
    with jax.enable_x64(True):
        assert float(VALUES[name]()) == pytest.approx(golden(name), rel=1e-6)


GRADIENTS = {
    "dann": (lambda s, t: domain_adversarial(told(s), told(t)), (fs, ft)),
    "cdan": (lambda s, t: cdan(s, t, gs, gt, entropy=True), (fs, ft)),
    "mdd": (lambda s, t: margin_disparity(gs, s, gt, t), (gs2, gt2)),
    # Shifted: at 0 an absolute value has no derivative.
    "regression": (lambda s, t: regression_disparity(gs, s, gt, t), (gs2 + 0.1, gt2)),
    "discrepancy": (classifier_discrepancy, (gt, gt2)),
    "imbalance": (class_imbalance, (gt,)),
    "bsp": (spectral_penalty, (fs, ft)),
    "bsp_3": (partial(spectral_penalty, k=3), (fs, ft)),
}


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_match_finite_differences(name):
    loss, inputs = GRADIENTS[name]
    with jax.enable_x64(True):
        check_grads(loss, tuple(map(jnp.asarray, inputs)), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", GRADIENTS)
def test_the_order_of_examples_within_a_domain_does_not_matter(name):
    turn = np.array([3, 0, 5, 1, 4, 2])
    with jax.enable_x64(True):
        if name == "cdan":
            left, right = cdan(fs, ft, gs, gt, True), cdan(fs[turn], ft, gs[turn], gt, True)
        elif name == "mdd":
            left, right = margin_disparity(gs, gs2, gt, gt2), margin_disparity(gs[turn], gs2[turn], gt, gt2)
        elif name == "regression":
            left, right = regression_disparity(gs, gs2, gt, gt2), regression_disparity(gs, gs2, gt[turn], gt2[turn])
        else:
            loss, inputs = GRADIENTS[name]
            left, right = loss(*map(jnp.asarray, inputs)), loss(*(jnp.asarray(x[turn]) for x in inputs))
    assert float(left) == pytest.approx(float(right), rel=1e-12)


def test_the_multilinear_map_is_class_major():
    h = np.asarray(mapped(fs, gs)).reshape(6, 4, 5)
    for c in range(4):
        np.testing.assert_allclose(h[:, c], np.asarray(softmax(gs))[:, c : c + 1] * fs, rtol=1e-5, atol=1e-6)


def test_the_randomized_map_keeps_inner_products_in_the_mean():
    keys = jax.random.split(jax.random.key(0), 2)
    maps = jax.random.normal(keys[0], (5, 40_000)), jax.random.normal(keys[1], (4, 40_000))
    f, p = jnp.asarray(fs, jnp.float32), softmax(gs).astype(jnp.float32)
    exact, found = multilinear_map(f, p), randomized_map(f, p, maps)
    np.testing.assert_allclose(found @ found.T, exact @ exact.T, atol=0.1)
    by_hand = (fs @ np.asarray(maps[0])) * (np.asarray(p) @ np.asarray(maps[1])) / np.sqrt(40_000)
    np.testing.assert_allclose(found, by_hand, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_entropy_weights_sum_to_the_number_of_examples_of_both_domains():
    p = np.concatenate([softmax(gs), softmax(gt)])
    assert float(entropy_weights(p).sum()) == pytest.approx(12, rel=1e-6)
    padded = entropy_weights(p, jnp.array([1.0] * 9 + [0.0] * 3))
    assert float(padded[:9].sum()) == pytest.approx(9, rel=1e-6)
    np.testing.assert_allclose(padded[:9], entropy_weights(p[:9]), rtol=1e-6)
    sure = entropy_weights(jnp.array([[1.0, 0.0], [0.5, 0.5]]))
    assert float(sure[0] / sure[1]) == pytest.approx(2 / 1.5, rel=1e-4)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", ["dann", "cdan", "mdd", "regression", "discrepancy", "imbalance"])
def test_padding_does_not_count(name):
    real = jnp.array([1.0] * 4 + [0.0] * 2)
    bad = np.where(np.arange(6)[:, None] < 4, gs, np.nan)
    short, full = gs[:4], bad
    losses = {
        "dann": lambda s, w: domain_adversarial(s[:, 0], ft[:, 0], source_weight=w),
        "cdan": lambda s, w: conditional_adversarial(
            s[:, 0], ft[:, 0], probabilities=jnp.concatenate([softmax(s), softmax(gt)]),
            weight=None if w is None else jnp.concatenate([w, jnp.ones(6)]),
        ),
        "mdd": lambda s, w: margin_disparity(s, s * 2, gt, gt2, weights=(w, None)),
        "regression": lambda s, w: regression_disparity(s, s * 2, gt, gt2, weights=(w, None)),
        "discrepancy": lambda s, w: classifier_discrepancy(s, s * 2, w),
        "imbalance": class_imbalance,
    }  # fmt: skip
    expected = float(losses[name](short, None))
    assert float(losses[name](full, real)) == pytest.approx(expected, rel=1e-5)


def test_the_largest_singular_values_count():
    squares = [np.linalg.svd(f, compute_uv=False) ** 2 for f in (fs, ft)]
    for k in (1, 2, 5):
        assert float(spectral_penalty(fs, ft, k=k)) == pytest.approx(sum(s[:k].sum() for s in squares), rel=1e-5)
    with pytest.raises(SpectrumError, match=r"spectral_penalty: k=9; features .* have 5 singular values"):
        spectral_penalty(fs, ft, k=9)


@pytest.mark.slow
def test_singular_values_that_are_equal_or_zero_have_finite_gradients():
    for matrix in (np.eye(3), np.zeros((4, 3)), np.ones((2, 5)), np.eye(3)[:1]):
        x = jnp.asarray(matrix, jnp.float32)
        slope = jax.grad(spectral_penalty)(x, x)
        assert np.isfinite(slope).all()
        largest = np.linalg.svd(matrix)[1][0]
        assert float(np.linalg.norm(slope)) == pytest.approx(2 * largest, abs=1e-5)  # 2 s u v', of norm 2 s


@pytest.mark.slow
def test_the_margin_has_a_finite_gradient_where_the_second_head_is_sure():
    sure = jnp.array([[60.0, 0.0], [0.0, 60.0]])
    for second in (sure, -sure):
        value, slopes = jax.value_and_grad(margin_disparity, argnums=(1, 3))(sure, second, sure, second)
        assert np.isfinite(value)
        assert all(np.isfinite(slope).all() for slope in slopes)
    assert float(margin_disparity(sure, sure, sure, -sure)) == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_heads_that_agree_have_no_discrepancy_and_no_gradient_blows_up():
    value, slope = jax.value_and_grad(classifier_discrepancy)(jnp.asarray(gt), jnp.asarray(gt))
    assert float(value) == 0
    assert np.isfinite(slope).all()
    one_class = jnp.tile(jnp.array([[200.0, 0.0, 0.0]]), (4, 1))
    value, slope = jax.value_and_grad(class_imbalance)(one_class)
    assert float(value) == pytest.approx(-2 / 3 * np.log(1e-6), rel=1e-4)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("logit", [1e4, -1e4])
def test_discriminators_that_are_sure_lose_nothing_to_rounding(logit):
    value, slope = jax.value_and_grad(domain_adversarial)(jnp.array([logit]), jnp.zeros(1))
    assert float(value) == pytest.approx(0.5 * (max(-logit, 0) + np.log(2)), rel=1e-5)
    assert float(slope[0]) == pytest.approx(0.0 if logit > 0 else -0.5)


def test_disparity_of_a_second_head_that_is_sure_is_exact_in_float32():
    first, second = jnp.asarray(gs, "float32"), 12 * jax.nn.one_hot(jnp.argmax(gs, axis=1), gs.shape[1])
    run = jax.value_and_grad(lambda g: margin_disparity(first, first, first, g))
    with jax.enable_x64(True):
        expected = jax.value_and_grad(lambda g: margin_disparity(*[jnp.asarray(first, "float64")] * 3, g))(
            jnp.asarray(second, "float64")
        )
    for found, exact in zip(run(second), expected):
        np.testing.assert_allclose(found, exact, rtol=2e-5)


def test_losses_name_the_shapes_they_need():
    column, row, table = jnp.zeros((4, 1)), jnp.zeros(4), jnp.zeros((4, 3))
    for call, message in (
        (lambda: domain_adversarial(column, row), r"source \[N\] and target \[M\]; found \[4, 1\] and \[4\]"),
        (lambda: classifier_discrepancy(table, table[:3]), r"first \[B, C\] and second \[B, C\]; found"),
        (lambda: class_imbalance(row), r"class_imbalance needs logits \[B, C\]; found \[4\]"),
        (lambda: margin_disparity(table, table, table, table[:2]), r"second_target \[M, C\]; found"),
        (lambda: spectral_penalty(row, table), r"source \[N, D\] and target \[M, D\]; found \[4\] and \[4, 3\]"),
    ):
        with pytest.raises(LabelError, match=message):
            call()


def test_half_precision_is_widened():
    f = jnp.asarray(fs, jnp.bfloat16)
    g = jnp.asarray(gs, jnp.bfloat16)
    for value in (
        spectral_penalty(f, f),
        class_imbalance(g),
        classifier_discrepancy(g, g),
        margin_disparity(g, g, g, g),
    ):
        assert value.dtype == jnp.float32
