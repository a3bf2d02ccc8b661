"""Penalties of fine-tuning as functions of arrays: golden values, gradients, and what must not break them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adaptation_inputs import fs, golden, gs, gs2, y

from tljax.objectives import (
    LabelError,
    LayerError,
    RelationshipError,
    SpectrumError,
    batch_spectral_shrinkage,
    bss,
    cross_entropy_losses,
    direct_relationship,
    distillation_losses,
    feature_map_distances,
    reverse_relationship,
)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# Feature maps are NCHW in the golden file.
MAPS = np.sin(0.3 * np.arange(24)).reshape(2, 3, 2, 2).transpose(0, 2, 3, 1)
START_MAPS = np.cos(0.5 * np.arange(24)).reshape(2, 3, 2, 2).transpose(0, 2, 3, 1)
ATTENTION = softmax(np.array([0.1, 0.2, 0.3]))

CASES = {
    "bss_k1": lambda a: batch_spectral_shrinkage(a(fs)),
    "bss_k2": lambda a: batch_spectral_shrinkage(a(fs), k=2),
    "kd_T3_batchmean": lambda a: jnp.mean(distillation_losses(a(gs), a(gs2))),
    "cotuning_relationship[1,2]": lambda a: direct_relationship(a(softmax(gs2)), jnp.asarray(y))[1, 2],
    "cotuning_loss(input=gs,target=softmax(gs2))": lambda a: jnp.mean(cross_entropy_losses(a(gs), a(softmax(gs2)))),
    "delta_behavioral": lambda a: jnp.sum(feature_map_distances(a(MAPS), a(START_MAPS))),
    "delta_attention(att=softmax([.1,.2,.3]))": lambda a: jnp.sum(
        feature_map_distances(a(MAPS), a(START_MAPS), attention=a(ATTENTION))
    ),
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", CASES)
def test_golden(name):
    with jax.enable_x64(True):
        found = CASES[name](lambda x: jnp.asarray(x, jnp.float64))
        assert found.dtype == jnp.float64
        assert float(found) == pytest.approx(golden(name), rel=1e-6, abs=1e-8)
    assert float(CASES[name](lambda x: jnp.asarray(x, jnp.float32))) == pytest.approx(golden(name), rel=1e-4, abs=1e-6)


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("function", "at"),
    [
        (lambda f: batch_spectral_shrinkage(f, k=2), fs),
        (lambda f: batch_spectral_shrinkage(f, k=2), fs[:3]),
        (lambda z: jnp.mean(distillation_losses(z, jnp.asarray(gs2))), gs),
        (lambda z: jnp.mean(distillation_losses(z, jnp.asarray(gs2), temperature=2.0, rescaled=True)), gs),
        (lambda m: jnp.sum(feature_map_distances(m, jnp.asarray(START_MAPS))), MAPS),
        (lambda m: jnp.sum(feature_map_distances(m, jnp.asarray(START_MAPS), attention=jnp.asarray(ATTENTION))), MAPS),
    ],
    ids=["bss", "bss of a small batch", "kd", "kd rescaled", "delta", "delta with attention"],
)
def test_gradients_are_finite_differences(function, at):
    with jax.enable_x64(True):
        found, value, step = np.asarray(jax.grad(function)(jnp.asarray(at))), jax.jit(function), 1e-6
        for place in list(np.ndindex(at.shape))[::3]:
            move = np.zeros(at.shape)
            move[place] = step
            slope = (float(value(jnp.asarray(at + move))) - float(value(jnp.asarray(at - move)))) / (2 * step)
            assert found[place] == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_bss_is_numpys_spectrum_and_a_small_batch_has_as_many_values_as_rows():
    features = np.random.default_rng(0).normal(size=(4, 9)).astype("float32")
    values = np.linalg.svd(features, compute_uv=False)
    for k in (1, 3, 4):
        assert float(batch_spectral_shrinkage(jnp.asarray(features), k=k)) == pytest.approx(
            (values[-k:] ** 2).sum(), rel=1e-5
        )


@pytest.mark.parametrize(
    "features",
    [np.eye(4, 6), np.zeros((4, 6)), np.ones((4, 6)), np.eye(4, 6) * 1e-20],
    ids=["all equal", "all zero", "rank one", "tiny"],
)
@pytest.mark.parametrize("k", [1, 3])
def test_bss_has_finite_gradients_at_equal_and_vanishing_values(features, k):
    features = jnp.asarray(features, jnp.float32)
    value, slope = jax.value_and_grad(lambda f: batch_spectral_shrinkage(f, k=k))(features)
    assert np.isfinite(np.append(slope, value)).all()
    # A homogeneous function of degree two: <gradient, F> is twice the value, whatever vectors stand for equal values.
    assert float(jnp.sum(slope * features)) == pytest.approx(2 * float(value), abs=1e-5)


def test_bss_does_not_depend_on_the_order_or_on_a_rotation():
    rng = np.random.default_rng(1)
    features, turn = rng.normal(size=(5, 3)), np.linalg.qr(rng.normal(size=(3, 3)))[0]
    with jax.enable_x64(True):
        value = float(batch_spectral_shrinkage(jnp.asarray(features), k=2))
        for other in (features[::-1], features @ turn):
            assert float(batch_spectral_shrinkage(jnp.asarray(other.copy()), k=2)) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("shape", "k", "message"), [((3, 5), 4, "3 singular values"), ((3, 5), 0, "k=0"), ((4,), 1, "B, D")]
)
def test_bss_names_what_is_wrong(shape, k, message):
    with pytest.raises(SpectrumError, match=message):
        batch_spectral_shrinkage(jnp.zeros(shape), k=k)


def test_bss_needs_a_singular_value_or_more():
    with pytest.raises(LabelError, match=r"bss\(k=0\): k=0; expected a number above 0"):
        bss(k=0)


@pytest.mark.slow
def test_distillation_is_torchs_and_zero_with_zero_gradient_at_agreement():
    torch = pytest.importorskip("torch")
    student, teacher = torch.tensor(gs, requires_grad=True), torch.tensor(gs2)
    for t in (1.0, 4.0):
        log_q = torch.log_softmax(student / t, -1)
        expected = torch.nn.functional.kl_div(log_q, torch.softmax(teacher / t, -1), reduction="batchmean") * t**2
        (slope,) = torch.autograd.grad(expected, student)
        with jax.enable_x64(True):
            value, own = jax.value_and_grad(
                lambda z, t=t: jnp.mean(distillation_losses(z, jnp.asarray(gs2), temperature=t, rescaled=True))
            )(jnp.asarray(gs))
        assert float(value) == pytest.approx(expected.item(), rel=1e-10)
        np.testing.assert_allclose(own, slope, rtol=1e-9, atol=1e-12)
    same = jnp.asarray(gs, jnp.float32)
    assert not np.any(jax.grad(lambda z: jnp.sum(distillation_losses(z, same)))(same).round(6))
    sure = jnp.array([[200.0, -200.0]])
    assert np.isfinite(jax.grad(lambda z: jnp.sum(distillation_losses(z, sure, temperature=1.0)))(-sure)).all()


def test_rescaled_gradients_do_not_vanish_with_the_temperature():
    with jax.enable_x64(True):

        def size(t, rescaled):
            loss = lambda z: jnp.sum(distillation_losses(z, jnp.asarray(gs2), temperature=t, rescaled=rescaled))  # noqa: E731
            return float(jnp.linalg.norm(jax.grad(loss)(jnp.asarray(gs))))

        assert size(1e3, True) == pytest.approx(size(1e2, True), rel=0.02)
        assert size(1e3, False) == pytest.approx(size(1e2, False) / 100, rel=0.02)


def test_distillation_names_what_is_wrong():
    with pytest.raises(LabelError, match=r"logits \[B, C\] and teacher_logits \[B, C\]; found \[2, 3\] and \[2, 4\]"):
        distillation_losses(jnp.zeros((2, 3)), jnp.zeros((2, 4)))
    with pytest.raises(LabelError, match=r"temperature=0[.]0; expected a number above 0"):
        distillation_losses(jnp.zeros((2, 3)), jnp.zeros((2, 3)), temperature=0.0)


def test_feature_maps_at_the_start_pull_nowhere():
    maps = jnp.asarray(MAPS, jnp.float32)
    for attention in (None, jnp.asarray(ATTENTION, jnp.float32)):
        value, slope = jax.value_and_grad(lambda m, a=attention: jnp.sum(feature_map_distances(m, maps, attention=a)))(
            maps
        )
        assert not np.any(np.append(slope, value))


def test_even_attention_is_the_mean_over_places():
    now, start = jnp.asarray(MAPS, jnp.float32), jnp.asarray(START_MAPS, jnp.float32)
    even = feature_map_distances(now, start, attention=jnp.full(3, 1 / 3))
    np.testing.assert_allclose(even * 4, feature_map_distances(now, start), rtol=1e-6)
    tokens = lambda m: m.reshape(2, 4, 3)  # noqa: E731
    np.testing.assert_allclose(feature_map_distances(tokens(now), tokens(start)), feature_map_distances(now, start))


def test_feature_maps_that_do_not_fit():
    with pytest.raises(LayerError, match=r"\(2, 3\) and \(2, 4\)"):
        feature_map_distances(jnp.zeros((2, 3)), jnp.zeros((2, 4)))
    with pytest.raises(LayerError, match=r"\[3\], one number a channel; found \(4,\)"):
        feature_map_distances(jnp.zeros((2, 3)), jnp.zeros((2, 3)), attention=jnp.ones(4))


@pytest.mark.slow
def test_direct_relationship_by_hand():
    p, labels = softmax(np.random.default_rng(2).normal(size=(9, 5))), np.array([2, 0, 1, 1, 0, 2, 2, 0, 1])
    by_hand = np.stack([p[labels == c].mean(0) for c in range(3)])
    np.testing.assert_allclose(
        direct_relationship(jnp.asarray(p, jnp.float32), jnp.asarray(labels)), by_hand, rtol=1e-5
    )


def test_the_reverse_relationship_is_bayes_rule_on_a_joint_table():
    joint = np.random.default_rng(3).dirichlet(np.ones(12)).reshape(4, 3)  # categories by classes
    found = reverse_relationship(
        jnp.asarray(joint / joint.sum(1, keepdims=True), jnp.float32), jnp.asarray(joint.sum(1), jnp.float32)
    )
    np.testing.assert_allclose(found, (joint / joint.sum(0)).T, rtol=1e-5)


P = np.full((3, 2), 0.5, "float32")


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: direct_relationship(jnp.asarray(2 * P), jnp.array([0, 1, 0])), "every row should be a distribution"),
        (lambda: direct_relationship(jnp.asarray(P), jnp.array([0, 2, 0])), r"no examples of \[1\]"),
        (lambda: direct_relationship(jnp.asarray(P), jnp.array([0, 2, 1]), num_classes=2), "labels 0 to 2"),
        (lambda: direct_relationship(jnp.asarray(P), jnp.array([0.0, 1, 1])), "integer labels"),
        (lambda: direct_relationship(jnp.asarray(P), jnp.array([0, 1])), r"\(3, 2\) and \(2,\)"),
        (lambda: reverse_relationship(jnp.asarray(P), jnp.ones(2)), r"found \(3, 2\) and \(2,\)"),
        (lambda: reverse_relationship(jnp.asarray(P), -jnp.ones(3)), "0 or more"),
        (lambda: reverse_relationship(jnp.array([[1.0, 0.0]] * 2), jnp.ones(2)), r"no category leads to .* \[1\]"),
        (lambda: reverse_relationship(jnp.asarray(P * np.nan), jnp.ones(3)), "every row"),
    ],
)  # fmt: skip
def test_relationships_name_what_is_wrong(call, message):
    with pytest.raises(RelationshipError, match=message):
        call()
