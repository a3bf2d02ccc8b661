"""Cross-entropies, against torch and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.objectives import (
    LabelError,
    Scene,
    StreamError,
    binary_cross_entropy,
    binary_cross_entropy_losses,
    cross_entropy,
    cross_entropy_losses,
)
from tljax.types import Batch, Output

RNG = np.random.default_rng(0)
B, C = 9, 5
LOGITS = (3 * RNG.normal(size=(B, C))).astype("float32")
HARD = RNG.integers(0, C, B).astype("int32")
SOFT = RNG.dirichlet(np.ones(C), B).astype("float32")
MANY = RNG.integers(0, 2, (B, C)).astype("int32")
WEIGHTS = RNG.uniform(0.2, 3, C).astype("float32")
POSITIVE = RNG.uniform(0.2, 3, C).astype("float32")


def scene(logits, labels, weight=None, stream="train"):
    output = Output(jnp.asarray(logits), jnp.zeros((len(logits), 2)))
    batch = Batch(jnp.zeros(len(logits)), labels, weight)
    return Scene({stream: output}, {stream: batch}, {}, lambda p, x: output, jnp.int32(0), jax.random.key(0))


def run(term, *args, **given):
    loss, _, metrics = term.apply(term.init(jax.random.key(0), s := scene(*args, **given)), s)
    return float(loss), {k: float(v) for k, v in metrics.items()}


def gradient(term, labels, weight=None):
    def loss(logits):
        s = scene(LOGITS, labels, weight)
        s = s._replace(outputs={"train": Output(logits, jnp.zeros((B, 2)))})
        return term.apply(term.init(jax.random.key(0), s), s)[0]

    return np.asarray(jax.grad(loss)(jnp.asarray(LOGITS)))


@pytest.mark.one_in(3)
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("labels", [HARD, SOFT], ids=["hard", "soft"])
def test_cross_entropy_is_torchs(labels, smoothing, weights):
    torch = pytest.importorskip("torch")
    logits = torch.tensor(LOGITS, requires_grad=True)
    targets = torch.tensor(labels if labels is SOFT else labels.astype("int64"))
    given = {
        "weight": None if weights is None else torch.tensor(weights),
        "label_smoothing": smoothing,
    }
    expected = torch.nn.CrossEntropyLoss(**given)(logits, targets)
    expected.backward()
    each = torch.nn.CrossEntropyLoss(**given, reduction="none")(logits, targets).detach().numpy()

    losses = cross_entropy_losses(LOGITS, labels, label_smoothing=smoothing, class_weights=weights)
    np.testing.assert_allclose(losses, each, rtol=2e-6, atol=1e-6)
    term = cross_entropy(label_smoothing=smoothing, class_weights=weights)
    assert run(term, LOGITS, labels)[0] == pytest.approx(expected.item(), rel=2e-6)
    np.testing.assert_allclose(gradient(term, labels), logits.grad.numpy(), rtol=2e-5, atol=1e-6)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("positive", [None, POSITIVE])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("labels", [MANY, SOFT], ids=["hard", "soft"])
def test_binary_cross_entropy_is_torchs(labels, weights, positive):
    torch = pytest.importorskip("torch")
    logits = torch.tensor(LOGITS, requires_grad=True)
    as_tensor = lambda w: None if w is None else torch.tensor(w)  # noqa: E731
    loss = torch.nn.BCEWithLogitsLoss(weight=as_tensor(weights), pos_weight=as_tensor(positive))
    expected = loss(logits, torch.tensor(labels.astype("float32")))
    expected.backward()
    term = binary_cross_entropy(class_weights=weights, positive_weights=positive)
    assert run(term, LOGITS, labels)[0] == pytest.approx(expected.item(), rel=2e-6)
    np.testing.assert_allclose(gradient(term, labels), logits.grad.numpy(), rtol=2e-5, atol=1e-7)


def test_cross_entropy_by_hand():
    # Row 1: log(1 + e) - 1 + ...; each row is -log softmax of the true class, written out.
    logits = jnp.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    expected = [np.log(1 + np.exp(-1)), np.log(1 + np.exp(2)), np.log(2)]
    np.testing.assert_allclose(cross_entropy_losses(logits, jnp.array([0, 0, 1])), expected, rtol=1e-6)
    loss, metrics = run(cross_entropy(class_weights=[1.0, 3.0]), logits, jnp.array([0, 0, 1]))
    assert loss == pytest.approx((expected[0] + expected[1] + 3 * expected[2]) / 5, rel=1e-6)
    assert metrics == {"cross_entropy": loss, "accuracy": pytest.approx(1 / 3)}


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("term", "labels"),
    [
        (cross_entropy(label_smoothing=0.1, class_weights=WEIGHTS), HARD),
        (cross_entropy(class_weights=WEIGHTS), SOFT),
        (binary_cross_entropy(positive_weights=POSITIVE), MANY),
    ],
)
@pytest.mark.parametrize("junk", [-7, 10_000])
def test_padding_changes_neither_loss_nor_gradient(term, labels, junk):
    kept = run(term, LOGITS[:6], labels[:6])
    weight = jnp.array([1.0] * 6 + [0.0] * 3)
    padded = labels.copy()
    padded[6:] = junk
    assert run(term, LOGITS, padded, weight) == kept
    slope = gradient(term, padded, weight)
    assert np.isfinite(slope).all()
    assert (slope[6:] == 0).all()
    assert (slope[:6] != 0).any()
    assert run(term, LOGITS, padded, jnp.zeros(B)) == (0.0, dict.fromkeys(kept[1], 0.0))


def test_weights_between_0_and_1_count_in_proportion():
    weight = jnp.array([2.0, 1.0, 0.5])
    losses = cross_entropy_losses(LOGITS[:3], HARD[:3])
    assert run(cross_entropy(), LOGITS[:3], HARD[:3], weight)[0] == pytest.approx(
        np.average(losses, weights=weight), rel=1e-6
    )


def test_soft_one_hot_is_hard():
    one_hot = jax.nn.one_hot(HARD, C)
    soft, hard = (run(cross_entropy(label_smoothing=0.2), LOGITS, y) for y in (one_hot, HARD))
    assert soft[0] == pytest.approx(hard[0])
    assert soft[1] == pytest.approx(hard[1])


def test_two_classes_as_one_logit():
    """Softmax over (0, z) is the sigmoid of z."""
    z, y = LOGITS[:, :1], HARD % 2
    two = jnp.concatenate([jnp.zeros_like(z), z], axis=1)
    np.testing.assert_allclose(binary_cross_entropy_losses(z, y), cross_entropy_losses(two, y), rtol=2e-5, atol=1e-6)


def test_bad_numbers_show():
    broken = LOGITS.copy()
    broken[0] = np.nan
    for term, labels in ((cross_entropy(), HARD), (binary_cross_entropy(), MANY)):
        loss, metrics = run(term, broken, labels)
        assert np.isnan(loss)
        assert np.isnan(metrics["accuracy"])
    for outside in (-1, C):
        labels = HARD.copy()
        labels[3] = outside
        losses = cross_entropy_losses(LOGITS, labels)
        assert np.isnan(losses[3])
        assert np.isfinite(np.delete(losses, 3)).all()


@pytest.mark.slow
def test_extreme_logits_stay_finite():
    logits = jnp.array([[1e4, -1e4], [-1e4, 1e4]])
    for losses in (
        cross_entropy_losses(logits, jnp.array([0, 0])),
        cross_entropy_losses(logits, jnp.array([0, 0]), label_smoothing=0.1),
        binary_cross_entropy_losses(logits, jnp.array([[1, 0], [1, 0]])),
    ):
        assert np.isfinite(losses).all()
        assert losses[1] > losses[0]
    masked = jnp.array([[0.0, 0.0, -jnp.inf]])
    assert float(cross_entropy_losses(masked, jnp.array([0]))[0]) == pytest.approx(np.log(2))


def test_half_precision_is_computed_in_float32():
    half = jnp.asarray(LOGITS, jnp.bfloat16)
    np.testing.assert_array_equal(
        cross_entropy_losses(half, HARD), cross_entropy_losses(half.astype(jnp.float32), HARD)
    )
    assert binary_cross_entropy_losses(half, MANY).dtype == jnp.float32


def test_reads_its_own_stream():
    term = cross_entropy(stream="target")
    assert term.streams == ("target",)
    _, metrics = run(term, LOGITS, HARD, stream="target")
    assert set(metrics) == {"target/cross_entropy", "target/accuracy"}
    with pytest.raises(StreamError, match=r"'target'.*'train'"):
        run(term, LOGITS, HARD)
    with pytest.raises(StreamError, match="needs labels"):
        run(cross_entropy(), LOGITS, None)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ((4, 3), np.zeros(5, "int32"), r"\(4, 3\).*\(5,\)"),
        ((4, 3), np.zeros((4, 1), "int32"), r"labels\[:, 0\]"),
        ((4, 3), np.zeros(4, "float32"), "integer labels"),
        ((4, 3), np.zeros((4, 3), "int32"), "binary_cross_entropy"),
        ((4, 3), np.zeros((4, 2), "float32"), r"\(4, 2\)"),
        ((4, 1), np.zeros(4, "int32"), "binary_cross_entropy"),
        ((4,), np.zeros(4, "int32"), r"\[B, C\]"),
        ((4, 3), np.zeros(4, bool), "bool"),
    ],
)
def test_wrong_labels_raise_at_trace_time(logits, labels, message):
    with pytest.raises(LabelError, match=message):
        jax.eval_shape(lambda z, y: cross_entropy_losses(z, y), jnp.zeros(logits), labels)


@pytest.mark.parametrize(("logits", "labels"), [((4, 3), (4,)), ((4, 1), (3,)), ((4, 3), (4, 1)), ((4,), (4,))])
def test_wrong_binary_labels_raise(logits, labels):
    with pytest.raises(LabelError, match="found logits"):
        binary_cross_entropy_losses(jnp.zeros(logits), jnp.zeros(labels))


def test_wrong_options_raise():
    with pytest.raises(LabelError, match=r"class_weights.*5 classes.*\(3,\)"):
        cross_entropy_losses(LOGITS, HARD, class_weights=[1.0, 1.0, 1.0])
    with pytest.raises(LabelError, match=r"0\.\.1, found 2"):
        cross_entropy_losses(LOGITS, HARD, label_smoothing=2)


def test_descriptions():
    assert str(cross_entropy()) == "cross_entropy()"
    assert str(cross_entropy(label_smoothing=0.1, stream="source")) == (
        "cross_entropy(label_smoothing=0.1, stream='source')"
    )
    assert str(binary_cross_entropy(positive_weights=np.full(9, 2.5))) == (
        "binary_cross_entropy(positive_weights=[2.5, 2.5, 2.5, 2.5, ...])"
    )
