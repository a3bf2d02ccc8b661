"""Options that are no numbers or are traced, and arrays that no softmax, kernel or norm can take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adaptation_inputs import gs, gt, y

from tljax import objectives as o
from tljax.objectives.checks import fitting
from tljax.objectives.contract import TermError

NAN = float("nan")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: o.mcd(weight=NAN), TermError, r"mcd\(weight=nan\): weight should be a finite number; found nan"),
        (lambda: o.afn(delta=np.float32("inf")), TermError, "delta should be a finite number; found inf"),
        (lambda: o.vrex(("a", "b"), penalty=NAN), TermError, "penalty should be a finite number"),
        (lambda: o.warm_up(high=NAN), TermError, r"warm_up\(high=nan\): high should"),
        (lambda: o.dann(strength=NAN), TermError, "strength should be a finite number"),
        (lambda: o.mdd(strength=jnp.float32(NAN)), o.ScheduleError, "should be finite, 0 or more; found nan"),
        (lambda: jnp.float32(NAN) * o.mcc(), TypeError, "scaled by a finite number"),
        (lambda: o.dan(kernel=o.Gaussians(())), o.DomainError, r"dan: a kernel has one scale or more.*found Gaussians"),
        (lambda: o.jan(kernels=(o.Gaussians((0.0,)), o.Gaussians())), o.DomainError, "above 0"),
        (lambda: o.dan(kernel=o.Gaussians(variance=-1.0)), o.DomainError, "above 0"),
        (lambda: o.swd(projections=2.5), o.DomainError, "whole number of projections.*found projections=2.5"),
        (lambda: o.batch_spectral_shrinkage(gs, k=1.5), o.SpectrumError, "k=1.5; features"),
    ],
)
def test_what_is_no_number(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: o.mdd(margin=0), o.LabelError, r"mdd\(margin=0\): margin=0; expected a number above 0"),
        (lambda: o.mcd(balance=-1), o.LabelError, r"mcd\(balance=-1\): balance=-1; expected 0 or more"),
        (lambda: o.mcd(weight=-1), o.LabelError, "weight=-1; expected 0 or more"),
        (lambda: o.adda(weight=-0.1), o.LabelError, "weight=-0.1; expected 0 or more"),
        (lambda: o.afn(delta=-1), o.LabelError, "delta=-1; expected a number above 0"),
        (lambda: o.information_maximization(diversity=-1), o.LabelError, "diversity=-1; expected 0 or more"),
        (lambda: o.dann(strength=-1), o.ScheduleError, "strength should be finite, 0 or more; found -1"),
    ],
)
def test_what_would_turn_a_method_round(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "loss",
    [
        o.entropies, o.information_loss, o.minimum_class_confusion, o.batch_nuclear_norm, o.class_imbalance,
        lambda g: o.distillation_losses(g, g), lambda g: o.consistency_losses(g, g),
        lambda g: o.pseudo_label_losses(g, g), lambda g: o.classifier_discrepancy(g, g),
        lambda g: o.margin_disparity(g, g, g, g),
    ],
)  # fmt: skip
def test_the_softmax_of_one_logit_says_nothing(loss):
    with pytest.raises(o.LabelError, match=r"C (>= 2|2 or more).*found .*\b1[\])]"):
        loss(jnp.zeros((4, 1)))


def test_lengths_that_differ_are_told_before_the_classes():
    with pytest.raises(o.LabelError, match=r"a \[B, C\] and b \[B, C\]; found \[2, 3\] and \[2, 1\]"):
        fitting("it", a=(jnp.ones((2, 3)), "B C"), b=(jnp.ones((2, 1)), "B C"))


@pytest.mark.parametrize("size", [1e10, 1e18])
def test_huge_logits_stay_numbers_when_compiled(size):
    for seed in range(3):
        logits = size * np.random.default_rng(seed).normal(size=(8, 3)).astype("float32")
        confusion = jax.jit(jax.value_and_grad(o.minimum_class_confusion))(logits)
        apart = jax.jit(jax.value_and_grad(lambda g: jnp.mean(o.distillation_losses(g, -g, temperature=2.3))))(logits)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((confusion, apart)))


@pytest.mark.parametrize(
    "of",
    [
        lambda v: o.minimum_class_confusion(gs, temperature=v),
        lambda v: jnp.mean(o.distillation_losses(gs, gt[: len(gs)], temperature=v)),
        lambda v: jnp.mean(o.entropies(gs, epsilon=v)),
        lambda v: jnp.mean(o.cross_entropy_losses(gs, y, label_smoothing=v)),
        lambda v: o.warm_up(alpha=v, high=v)(100),
    ],
)
def test_a_sweep_of_an_option_in_one_program(of):
    values = jnp.array([0.25, 0.5, 1.0])
    np.testing.assert_allclose(jax.jit(jax.vmap(of))(values), [of(float(v)) for v in values], rtol=1e-5)


def test_features_of_sequences_are_refused():
    sequences = jnp.ones((2, 5, 3))
    with pytest.raises(o.LabelError, match=r"the feature norm needs features \[B, D\]; found \[2, 5, 3\]"):
        o.adaptive_feature_norm(sequences)
    with pytest.raises(
        o.LabelError, match=r"multilinear_map needs features \[B, D\] .* found \[2, 5, 3\] and \[2, 4\]"
    ):
        o.multilinear_map(sequences, jnp.ones((2, 4)))
    with pytest.raises(o.LabelError, match="randomized_map needs"):
        o.randomized_map(sequences, jnp.ones((2, 4)), (jnp.ones((3, 6)), jnp.ones((4, 6))))


@pytest.mark.parametrize("form", ["product", "square"])
def test_a_row_of_nan_that_does_not_count(form):
    padded = jnp.concatenate([jnp.asarray(gs[:4]), jnp.full((2, gs.shape[1]), jnp.nan)])
    weight = jnp.array([1.0, 1, 1, 1, 0, 0])
    value, slope = jax.value_and_grad(lambda g: o.irm_penalty(g, y[:6], weight, form=form))(padded)
    np.testing.assert_allclose(value, o.irm_penalty(gs[:4], y[:4], form=form), rtol=1e-5)
    assert np.isfinite(slope).all()
