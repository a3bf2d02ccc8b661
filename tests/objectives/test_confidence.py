"""Losses that raise confidence, and learning from one's own predictions: values of other programs, slopes, limits."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adaptation_inputs import golden, gs, gt, gt2
from loss_checks import agrees, slope_agrees, value_of

from tljax.objectives import (
    LabelError,
    Owned,
    Scene,
    ScheduleError,
    batch_nuclear_norm,
    bnm,
    consistency_losses,
    distillation_losses,
    entropies,
    entropy_minimization,
    fixmatch,
    information_loss,
    information_maximization,
    mcc,
    mean_teacher,
    minimum_class_confusion,
    pseudo_label_losses,
    ramp_up,
)
from tljax.objectives.fixmatch import confident
from tljax.types import Batch, Output

rng = np.random.default_rng(0)


def softmax(g):
    e = np.exp(g - g.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def confusion_by_hand(g, weighing=None, temperature=2.5):
    """The loss by loops over classes; `weighing` are the logits from which the weights come."""
    p, q = softmax(g / temperature), softmax((g if weighing is None else weighing) / temperature)
    sure = 1 + np.exp((q * np.log(q + 1e-5)).sum(1))
    w = len(g) * sure / sure.sum()
    m = np.array([[np.sum(w * p[:, a] * p[:, b]) for b in range(p.shape[1])] for a in range(p.shape[1])])
    m /= m.sum(1, keepdims=True)
    return (m.sum() - np.trace(m)) / p.shape[1]


def test_entropy_is_that_of_tllib_with_its_epsilon():
    p = softmax(gt)
    expected = [golden("entropy_mean(gt)"), -(p * np.log(p)).sum(1).mean()]
    agrees(lambda g: [jnp.mean(entropies(g, epsilon=e)) for e in (1e-5, 0.0)], expected, gt)


def test_minimum_class_confusion_is_that_of_tllib():
    expected = [golden("mcc_T1"), golden("mcc_T2.5")]
    agrees(lambda g: [minimum_class_confusion(g, temperature=t) for t in (1, 2.5)], expected, gt)
    np.testing.assert_allclose([confusion_by_hand(gt, temperature=t) for t in (1, 2.5)], expected, rtol=1e-9)


def test_fixmatch_is_that_of_tllib():
    loss = lambda strong, weak: jnp.mean(pseudo_label_losses(strong, weak, threshold=0.5))  # noqa: E731
    agrees(loss, golden("fixmatch_thr0.5_loss"), gt2, gt)
    share = float(jnp.mean(confident(gt, threshold=0.5)))
    assert share == pytest.approx(golden("fixmatch_thr0.5_maskmean"), rel=1e-6)


def test_consistency_is_that_of_tllib():
    agrees(lambda g, h: jnp.mean(consistency_losses(g, h)), golden("pi_l2_consistency_mean"), gt, gt2)


@pytest.mark.parametrize("step", [0, 5, 10])
def test_ramp_up_is_that_of_tllib(step):
    np.testing.assert_allclose(ramp_up(steps=10)(jnp.int32(step)), golden(f"sigmoid_warm_up({step},10)"), rtol=1e-6)
    assert ramp_up(high=0.1, steps=10).__name__ == "ramp_up(high=0.1, steps=10)"


@pytest.mark.real_data
def test_values_of_pytorch_adapt_on_features_of_digits(data_dir):
    values = json.loads((data_dir / "references/domain/values.json").read_text())
    g = np.load(data_dir / "references/domain/features.npz")["target_logits"]
    values["information"] = values["entropy"] + values["diversity"]

    @jax.jit
    def found(g):
        return {
            "mcc_T1": minimum_class_confusion(g, temperature=1.0),
            "mcc_T2.5": minimum_class_confusion(g),
            "bnm": -batch_nuclear_norm(g),
            "entropy": jnp.mean(entropies(g)),
            "information": information_loss(g),
        }

    for name, value in found(g).items():
        np.testing.assert_allclose(value, values[name], rtol=1e-4)


def test_gradients():
    def losses(g):
        sure = (
            jnp.mean(entropies(g)) + 2 * jnp.mean(entropies(g, epsilon=1e-5)) + 3 * information_loss(g, diversity=0.7)
        )
        told = jnp.sum(pseudo_label_losses(g, jnp.asarray(gt), threshold=0.5))
        return sure + 5 * batch_nuclear_norm(g) + told + 7 * jnp.mean(consistency_losses(g, jnp.asarray(gt)))

    slope_agrees(losses, gt2)


def test_weights_of_the_confusion_carry_no_gradient():
    with jax.enable_x64(True):
        slope = np.asarray(jax.jit(jax.grad(minimum_class_confusion))(jnp.asarray(gt)))
    direction, step = rng.normal(size=gt.shape), 1e-6
    up, down = (confusion_by_hand(gt + s * direction, weighing=gt) for s in (step, -step))
    np.testing.assert_allclose((slope * direction).sum(), (up - down) / (2 * step), rtol=1e-6)


def test_no_gradient_to_the_guide():
    slope = jax.grad(lambda weak: jnp.sum(pseudo_label_losses(jnp.asarray(gt2), weak, threshold=0.5)))(jnp.asarray(gt))
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    "loss",
    [minimum_class_confusion, batch_nuclear_norm, information_loss, lambda g: jnp.mean(entropies(g))],
    ids=["mcc", "bnm", "information", "entropy"],
)
def test_the_order_of_examples_and_of_classes_does_not_matter(loss):
    value, moved = loss(gt), gt[rng.permutation(6)][:, rng.permutation(4)]
    np.testing.assert_allclose(loss(moved), value, rtol=1e-5)
    np.testing.assert_allclose(loss(gt + 7), value, rtol=1e-5)


def test_limits():
    """Sure of examples of every class; and sure of nothing."""
    sure, none, each = 1e4 * np.eye(5)[[0, 1, 2, 3, 4, 0]], np.zeros((6, 5)), 1e4 * np.eye(5)

    def losses(sure, none, each):
        confused = [minimum_class_confusion(g) for g in (sure, none)]
        means = [jnp.mean(entropies(g)) for g in (sure, none)]
        return [*confused, *means, *map(information_loss, (none, each)), *map(batch_nuclear_norm, (none, sure))]

    expected = [0, 1 - 1 / 5, 0, np.log(5), 0, -np.log(5), np.sqrt(6 / 5) / 6, (np.sqrt(2) + 4) / 6]
    agrees(losses, expected, sure, none, each)


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    "loss",
    [minimum_class_confusion, batch_nuclear_norm, information_loss, lambda g: jnp.sum(entropies(g))],
    ids=["mcc", "bnm", "information", "entropy"],
)
def test_gradients_are_finite_in_the_corners(loss):
    corners = {
        "one singular value, the others 0": np.zeros((4, 4)),
        "equal singular values": np.eye(4),
        "a batch of one class, the others of probability 0": 1e4 * np.eye(4)[[0] * 4],
        "a batch of two classes": 30 * np.eye(4)[[0, 0, 1, 1]],
        "a batch of one example": 1e4 * np.eye(4)[[0]],
    }
    run = jax.jit(jax.value_and_grad(loss))
    for corner, logits in corners.items():
        value, slope = run(jnp.asarray(logits, "float32"))
        assert np.isfinite(value), corner
        assert np.isfinite(slope).all(), corner
        assert np.abs(slope).max() <= 2, corner


@pytest.mark.one_in(2)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_confusion_in_float32_where_probabilities_are_too_small_for_it(temperature):
    """A class that no example comes near; and logits so large that most probabilities are 0."""
    unseen = rng.normal(size=(9, 7)) - 60 * np.eye(7)[[3]]
    for logits in (unseen, 50 * rng.normal(size=(5, 12))):
        run = jax.value_and_grad(lambda g: minimum_class_confusion(g, temperature=temperature))
        with jax.enable_x64(True):
            expected, slope = run(jnp.asarray(logits))
        value, found = run(jnp.asarray(logits, "float32"))
        np.testing.assert_allclose(expected, confusion_by_hand(logits, temperature=temperature), rtol=1e-6)
        np.testing.assert_allclose(value, expected, atol=1e-5)
        np.testing.assert_allclose(found, slope, atol=1e-5)


def test_a_class_whose_logit_is_minus_infinity_is_a_class_that_is_not_there():
    masked = jnp.asarray(np.insert(gt, 2, -np.inf, axis=1), "float32")
    losses = (
        lambda g: jnp.mean(entropies(g)),
        information_loss,
        lambda g: jnp.mean(distillation_losses(g, jnp.roll(g, 1, axis=0))),
    )
    for loss in losses:
        value, slope = jax.value_and_grad(loss)(masked)
        there, other = jax.value_and_grad(loss)(jnp.asarray(gt, "float32"))
        np.testing.assert_allclose(value, there, rtol=1e-5)
        np.testing.assert_allclose(slope, np.insert(other, 2, 0, axis=1), atol=1e-6)
    value, slope = jax.value_and_grad(minimum_class_confusion)(masked)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()


def test_losses_name_the_shapes_they_need():
    for loss in (entropies, information_loss, minimum_class_confusion):
        with pytest.raises(LabelError, match=r"needs logits \[B, C\]; found \[4\]"):
            loss(jnp.zeros(4))


def test_options_are_checked_where_the_term_is_made():
    with pytest.raises(LabelError, match=r"mcc\(temperature=0\): temperature=0; expected a number above 0"):
        mcc(temperature=0)


def test_the_labelled_stream_that_mcc_goes_with_may_have_any_name():
    assert mcc(source="a", stream="b").joint == ("a", "b")
    assert set(mcc().joint) == {"train", "source", "target"}


@pytest.mark.slow
def test_the_nuclear_norm_has_its_smallest_slope_where_singular_values_are_zero():
    """At equal rows p the norm is |p| sqrt(B), and its smallest subgradient p / (|p| sqrt(B)) in each row."""
    g = jnp.tile(jnp.asarray([[0.3, -0.2, 1.0]]), (4, 1))
    p = softmax(np.asarray(g))
    direct = p / (np.linalg.norm(p[0]) * 2) / 4
    through = p * (direct - (p * direct).sum(1, keepdims=True))  # of the softmax
    np.testing.assert_allclose(jax.grad(batch_nuclear_norm)(g), through, atol=1e-6)


@pytest.mark.slow
def test_terms_are_their_losses():
    def check(term, expected, name, **streams):
        value, metrics = value_of(term, streams or {"target": (gt, gt)})
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        assert metrics[name] == value

    check(mcc(temperature=1.0), golden("mcc_T1"), "mcc")
    check(entropy_minimization(epsilon=1e-5), golden("entropy_mean(gt)"), "entropy_minimization")
    check(information_maximization(diversity=0.5), information_loss(gt, diversity=0.5), "information_maximization")
    check(bnm(), -np.linalg.svd(softmax(gt))[1].sum() / 6, "bnm")
    check(bnm(stream="source"), -np.linalg.svd(softmax(gs))[1].sum() / 6, "bnm", source=(gs, gs))
    views = {"weak": (gt, gt), "strong": (gt2, gt2)}
    check(fixmatch(threshold=0.5), golden("fixmatch_thr0.5_loss"), "fixmatch", **views)
    assert float(value_of(fixmatch(threshold=0.5), views)[1]["fixmatch/confident"]) == pytest.approx(4 / 6)
    assert mcc().joint == ("train", "source", "target")
    assert fixmatch().joint == entropy_minimization().joint == ()


def test_padding_does_not_count():
    long = np.concatenate([gt, np.full((2, 4), np.nan)])
    weight = jnp.asarray([1.0] * 6 + [0.0] * 2)
    np.testing.assert_allclose(information_loss(long, weight), information_loss(gt), rtol=1e-6)
    scene = Scene({"target": Output(jnp.asarray(long), None)}, {"target": Batch(None, None, weight)}, {}, None, 0, None)
    value = entropy_minimization().apply(Owned(), scene)[0]
    np.testing.assert_allclose(value, jnp.mean(entropies(gt)), rtol=1e-6)


def students(w, mean):
    return {
        "head": {"w": jnp.asarray(w), "count": jnp.int32(mean)},
        "backbone": {"norm": {"batch_stats": {"mean": jnp.asarray(mean)}}},
    }


def test_the_teacher_is_the_average_of_the_students():
    """By hand: w_t = a w_t-1 + (1 - a) w, a = min(decay, 1 - 1 / t); statistics and integers are the student's."""
    term, decay, x = mean_teacher(decay=0.7), 0.7, jnp.asarray(gs)
    evaluate = lambda params, x: Output(x * params["head"]["w"].astype(x.dtype), None)  # noqa: E731
    views = {"weak": Batch(x), "strong": Batch(jnp.asarray(gt))}
    teacher, owned = None, None
    for t, w in enumerate([1.0, 3.0, -2.0, 5.0, 4.0]):
        params = students(jnp.asarray(w, jnp.bfloat16), float(t))
        outputs = {"weak": Output(x, None), "strong": Output(jnp.asarray(gt), None)}
        scene = Scene(outputs, views, params, None, jnp.int32(t), jax.random.key(0), evaluate)
        owned = owned or term.init(jax.random.key(0), scene)
        value, state, metrics = term.apply(owned, scene)
        a = min(decay, 1 - 1 / (t + 1))
        teacher = w if teacher is None else a * teacher + (1 - a) * w
        owned = Owned((), state)
        assert state["head"]["w"].dtype == jnp.float32  # though the student's is bfloat16
        np.testing.assert_allclose(state["head"]["w"], teacher, rtol=1e-6)
        assert float(state["backbone"]["norm"]["batch_stats"]["mean"]) == t == int(state["head"]["count"])
        told = softmax(gs * float(jnp.asarray(teacher, jnp.bfloat16)))
        np.testing.assert_allclose(value, ((softmax(gt) - told) ** 2).sum(1).mean(), rtol=1e-5)
        agreement = (told.argmax(1) == gt.argmax(1)).mean()
        np.testing.assert_allclose(metrics["mean_teacher/agreement"], agreement, rtol=1e-6)


def test_only_examples_that_the_teacher_is_sure_of_count():
    sharp, threshold = 1.5 * gs, 0.8
    streams = {name: Output(jnp.asarray(gt, "float32"), None) for name in ("weak", "strong")}
    batches = {name: Batch(jnp.asarray(sharp, "float32")) for name in streams}
    evaluate = lambda params, x: Output(x * params["w"], None)  # noqa: E731
    scene = Scene(streams, batches, {"w": jnp.float32(1)}, None, jnp.int32(0), None, evaluate)
    term = mean_teacher(threshold=threshold)
    value, _, metrics = term.apply(term.init(jax.random.key(0), scene), scene)
    told = softmax(sharp)
    sure = told.max(1) > threshold
    assert 0 < sure.sum() < len(sure)
    np.testing.assert_allclose(value, (sure * ((softmax(gt) - told) ** 2).sum(1)).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["mean_teacher/confident"], sure.mean(), rtol=1e-6)
    assert "mean_teacher/confident" not in mean_teacher().apply(term.init(jax.random.key(0), scene), scene)[2]


def test_no_gradient_flows_through_the_teacher():
    term, evaluate = mean_teacher(weak="u", strong="u"), lambda params, x: Output(x * params["w"], None)
    x = jnp.asarray(gs, "float32")

    def loss(w, through):
        params = {"w": w}
        scene = Scene({"u": Output(through, None)}, {"u": Batch(x)}, params, None, jnp.int32(3), None, evaluate)
        return term.apply(Owned(state={"w": jnp.float32(1.5)}), scene)[0]

    w_slope, slope = jax.grad(loss, argnums=(0, 1))(jnp.float32(2.0), 2 * x)
    assert float(w_slope) == 0
    assert float(jnp.abs(slope).max()) > 0
    assert term.streams == ("u",)


@pytest.mark.parametrize(
    ("make", "error", "found"),
    [
        (lambda: minimum_class_confusion(gt, temperature=0), LabelError, "temperature=0"),
        (lambda: minimum_class_confusion(gt[0]), LabelError, r"\[4\]"),
        (lambda: batch_nuclear_norm(gt[None]), LabelError, r"\[1, 6, 4\]"),
        (lambda: pseudo_label_losses(gt, gt[:3]), LabelError, r"\[6, 4\] and \[3, 4\]"),
        (lambda: consistency_losses(gt, gt[:, :2]), LabelError, r"\[6, 4\] and \[6, 2\]"),
        (lambda: mean_teacher(decay=1.0), LabelError, r"decay=1\.0"),
        (lambda: mean_teacher(threshold=-0.1), LabelError, r"threshold=-0\.1"),
        (lambda: fixmatch(threshold=1.5), LabelError, r"threshold=1\.5"),
        (lambda: ramp_up(steps=0), ScheduleError, "steps=0"),
    ],
)
def test_mistakes(make, error, found):
    with pytest.raises(error, match=found):
        make()
