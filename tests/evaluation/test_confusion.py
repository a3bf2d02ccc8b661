"""Metrics of classes, against scikit-learn, golden values and by hand."""

import json
import pathlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.evaluation import MetricError, classification, multilabel
from tljax.evaluation.rates import rates

sk = pytest.importorskip("sklearn.metrics")
GOLDEN = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "classification_report.json").read_text())


def jitted(metric):
    """The same metric; jit finds again what it compiled for the same functions and shapes."""
    return type(metric)(*map(jax.jit, metric))


def measure(metric, logits, labels):
    """All at once, in one padded batch: of one size, so that few programs serve all tests."""
    return stream(metric, logits, labels, 200)


def stream(metric, logits, labels, size):
    """In batches of `size`, the last padded with junk."""
    logits, labels = jnp.asarray(logits), np.asarray(labels)
    metric = jitted(metric)
    sums = metric.init()
    for start in range(0, max(len(labels), 1), size):
        part, real = logits[start : start + size], labels[start : start + size]
        missing = size - len(real)
        junk = jnp.full((missing, logits.shape[1]), np.nan, logits.dtype)
        real = np.concatenate([real, np.full((missing, *labels.shape[1:]), 0, labels.dtype)])
        weight = (np.arange(size) < size - missing).astype("float32")
        sums = metric.update(sums, jnp.concatenate([part, junk]), real, weight)
    return jax.device_get(metric.compute(sums))


def softmax(logits):
    e = np.exp(logits.astype("float64") - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def ece_by_loop(p, labels, bins=15):
    """Bin by bin, from the definition."""
    confidence, right, error = p.max(1), p.argmax(1) == labels, 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


def expected(logits, labels, classes):
    """What scikit-learn says."""
    p, answers, all_classes = softmax(logits), logits.argmax(1), np.arange(classes)
    found = {
        "accuracy": sk.accuracy_score(labels, answers),
        "ece": ece_by_loop(p, labels),
        "nll": -np.log(p[np.arange(len(labels)), labels]).mean(),
        "brier": ((p - np.eye(classes)[labels]) ** 2).sum(1).mean(),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # absent classes, single labels
        found["confusion"] = sk.confusion_matrix(labels, answers, labels=all_classes)
        found["balanced_accuracy"] = sk.balanced_accuracy_score(labels, answers)
        if len(np.unique(labels)) > 1:
            np.testing.assert_allclose(found["nll"], sk.log_loss(labels, p, labels=all_classes), rtol=1e-9)
    for name, score in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
        for average in (None, "macro", "micro", "weighted"):
            found[f"{average or 'class'}_{name}"] = score(
                labels, answers, labels=all_classes, average=average, zero_division=0
            )
    present = np.bincount(labels, minlength=classes) > 0
    recall = np.where(present, found["class_recall"], np.inf)
    return found | {"worst_recall": recall.min(), "worst_class": recall.argmin()}


def data(n, classes, *, seed=0, ties=False, absent=()):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)).astype("float32") * 2
    if ties:
        logits = logits.round() + 0.0  # no -0.0, which top_k would rank below 0.0
    kept = [c for c in range(classes) if c not in absent]
    labels = rng.choice(kept, n).astype("int32")
    logits[np.arange(n), labels] += 1
    return logits, labels


CASES = {
    "plain": data(200, 10),
    "binary": data(77, 2),
    "ties": data(150, 10, ties=True),
    "absent classes": data(60, 10, absent=(0, 3, 7)),
    "one class present": data(20, 3, absent=(0, 2)),
    "one class": data(20, 1),
    "one example": data(1, 10),
    "few of many": data(7, 10),
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_scikit_learn(case):
    logits, labels = CASES[case]
    classes = logits.shape[1]
    found = measure(classification(classes), logits, labels)
    for name, value in expected(logits, labels, classes).items():
        np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=2e-6, err_msg=name)
    assert found["count"] == len(labels)
    assert found["invalid"] == 0
    np.testing.assert_array_equal(found["support"], np.bincount(labels, minlength=classes))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("size", [1, 64])
def test_streaming_is_all_at_once(size):
    logits, labels = data(130, 10, seed=1)
    metric = classification(10)
    whole, streamed = measure(metric, logits, labels), stream(metric, logits, labels, size)
    assert whole.keys() == streamed.keys()
    for name, value in whole.items():
        np.testing.assert_allclose(streamed[name], value, rtol=1e-5, err_msg=name)
    np.testing.assert_array_equal(streamed["confusion"], whole["confusion"])


@pytest.mark.slow
def test_top_k():
    logits, labels = data(100, 10, seed=2)
    found = measure(classification(10, top_k=(1, 3, 5)), logits, labels)
    for k in (1, 3, 5):
        value = sk.top_k_accuracy_score(labels, logits, k=k, labels=np.arange(10))
        assert found[f"top_{k}"] == pytest.approx(value)


def test_top_k_with_ties_ranks_by_class():
    logits, labels = data(100, 10, seed=3, ties=True)
    found = measure(classification(10, top_k=(1, 3, 5)), logits, labels)
    first = jax.lax.top_k(logits, 3)[1]  # the lower index first
    assert found["top_3"] == pytest.approx(float((first == labels[:, None]).any(1).mean()))
    assert found["top_1"] == found["accuracy"]


def test_top_k_of_no_fewer_classes_is_left_out():
    metric = classification(3, top_k=(1, 2, 3, 5))
    assert {name for name in jax.eval_shape(metric.compute, metric.init()) if "top" in name} == {"top_1", "top_2"}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("case", GOLDEN["cases"])
def test_golden(case):
    given = GOLDEN["cases"][case]
    p, labels = np.array(given["probabilities"]), np.array(given["labels"])
    found = measure(classification(p.shape[1]), np.log(p).astype("float32"), labels)
    for name, value in given["expected"].items():
        assert found[name] == pytest.approx(value, rel=2e-5, abs=1e-6), name


def test_ece_bins_are_open_below_and_closed_above():
    # Confidences of exactly 3/5 and 4/5 with 5 bins: each is the top of its bin.
    p = np.array([[0.8, 0.2], [0.6, 0.4], [0.65, 0.35], [1.0, 0.0]])
    with np.errstate(divide="ignore"):
        logits = np.log(p).astype("float32")
    metric = jitted(classification(2, bins=5))
    sums = metric.update(metric.init(), logits, jnp.array([0, 0, 0, 0]))
    np.testing.assert_array_equal(np.asarray(sums.bin_count)[[2, 3, 4]], [1, 2, 1])


def test_bad_logits_are_never_right():
    logits, labels = data(40, 3, seed=4)
    clean = measure(classification(3), logits, labels)
    for bad in (np.nan, np.inf):
        broken = logits.copy()
        broken[:5, :] = bad
        labels_to_0 = labels.copy()
        labels_to_0[:5] = 0  # argmax of NaN is 0
        found = measure(classification(3), broken, labels_to_0)
        right = (logits[5:].argmax(1) == labels[5:]).sum()
        assert found["accuracy"] == pytest.approx(right / 40)
        assert found["invalid"] == 5
        assert found["count"] == 40
        assert all(np.isnan(found[name]) for name in ("nll", "brier", "ece"))
        assert found["confusion"].sum() == 35
        assert found["support"].sum() == 40
        assert found["class_recall"][0] < 1
    one = logits.copy()
    one[0, 2] = np.nan  # a single NaN in the row
    assert measure(classification(3), one, labels)["invalid"] == 1
    masked = logits.copy()
    masked[:, 2] = -np.inf  # a class ruled out is an answer like any other
    labels = np.where(labels == 2, 0, labels)
    found = measure(classification(3), masked, labels)
    assert found["invalid"] == 0
    assert found["nll"] == pytest.approx(expected(logits[:, :2], labels, 2)["nll"], rel=1e-5)
    assert clean["invalid"] == 0


def test_labels_outside_show():
    logits, labels = data(10, 3, seed=5)
    for outside in (-1, 3):
        wrong = labels.copy()
        wrong[0] = outside
        found = measure(classification(3), logits, wrong)
        assert (found["count"], found["invalid"], found["support"].sum()) == (10, 1, 9)
        assert found["accuracy"] == pytest.approx((logits[1:].argmax(1) == labels[1:]).sum() / 10)
        assert np.isnan(found["nll"])


def test_nothing_but_padding_has_no_value():
    found = measure(classification(3), np.zeros((0, 3), "float32"), np.zeros(0, "int32"))
    assert found["count"] == 0
    assert found["worst_class"] == -1
    assert all(np.isnan(found[n]) for n in ("accuracy", "balanced_accuracy", "nll", "ece", "worst_recall"))
    assert found["macro_f1"] == 0


def test_counts_stay_exact_beyond_float32():
    metric = jitted(classification(2))
    logits, labels = jnp.array([[1.0, 0.0]]), jnp.array([0])
    sums = metric.update(metric.init(), logits, labels)
    for _ in range(24):
        sums = metric.merge(sums, sums)
    sums = metric.update(metric.update(sums, logits, labels), logits, jnp.array([1]))
    found = metric.compute(sums)
    np.testing.assert_array_equal(found["confusion"], [[2**24 + 1, 0], [1, 0]])
    assert found["count"] == 2**24 + 2
    assert float(found["nll"]) == pytest.approx(np.log1p(np.exp(-1)), rel=1e-6)


def test_shards_add_up():
    logits, labels = data(90, 3, seed=6)
    metric = jitted(classification(3))
    whole = measure(classification(3), logits, labels)
    parts = [metric.update(metric.init(), z, y) for z, y in zip(np.split(logits, [30, 60]), np.split(labels, [30, 60]))]
    merged = metric.merge(metric.merge(parts[2], parts[0]), parts[1])
    for name, value in metric.compute(merged).items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-5, err_msg=name)


def test_runs_in_a_scan():
    logits, labels = data(60, 3, seed=7)
    metric = classification(3)

    @jax.jit
    def run(logits, labels):
        body = lambda sums, batch: (metric.update(sums, *batch), None)  # noqa: E731
        return metric.compute(jax.lax.scan(body, metric.init(), (logits, labels))[0])

    found = run(logits.reshape(6, 10, 3), labels.reshape(6, 10))
    assert float(found["accuracy"]) == pytest.approx((logits.argmax(1) == labels).mean())


def test_half_precision_and_small_integer_labels():
    logits, labels = data(30, 3, seed=8)
    half = jnp.asarray(logits, jnp.bfloat16)
    found = measure(classification(3), half, labels.astype("uint8"))
    exact = measure(classification(3), half.astype(jnp.float32), labels)
    for name, value in exact.items():
        np.testing.assert_array_equal(found[name], value)


def test_equal_arguments_give_the_same_metric():
    assert classification(3) is classification(3, top_k=[5])
    assert classification(3) is not classification(4)
    assert multilabel(3) is multilabel(3, threshold=0.5)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        ((4, 3), np.zeros(4, "float32")),
        ((4, 3), np.zeros((4, 3), "float32")),
        ((4, 2), np.zeros(4, "int32")),
        ((4, 3), np.zeros(5, "int32")),
        ((4,), np.zeros(4, "int32")),
    ],
)
def test_wrong_shapes_raise(logits, labels):
    metric = classification(3)
    with pytest.raises(MetricError, match=r"needs logits \[B, 3\]"):
        metric.update(metric.init(), jnp.zeros(logits), labels)


def test_wrong_options_raise():
    for wrong in ({"num_classes": 0}, {"num_classes": 2, "bins": 0}, {"num_classes": 2, "top_k": (0,)}):
        with pytest.raises(MetricError, match="at least 1"):
            classification(**wrong)
    with pytest.raises(MetricError, match="threshold"):
        multilabel(2, threshold=1.0)
    with pytest.raises(MetricError, match="weight must be"):
        classification(2).update(classification(2).init(), jnp.zeros((3, 2)), jnp.zeros(3, int), jnp.ones(2))


@pytest.mark.slow
def test_rates_by_hand():
    found = rates(jnp.array([2, 0, 0]), jnp.array([4, 0, 1]), jnp.array([2, 3, 0]))
    np.testing.assert_allclose(found["class_precision"], [0.5, 0, 0])
    np.testing.assert_allclose(found["class_recall"], [1, 0, 0])
    np.testing.assert_allclose(found["class_f1"], [2 / 3, 0, 0])
    assert float(found["micro_f1"]) == pytest.approx(0.4)
    assert float(found["weighted_recall"]) == pytest.approx(0.4)
    assert (int(found["worst_class"]), float(found["worst_recall"])) == (1, 0.0)


# ---- several labels an example


def many(n, classes, seed=0, rate=0.3):
    rng = np.random.default_rng(seed)
    return 2 * rng.normal(size=(n, classes)).astype("float32"), (rng.uniform(size=(n, classes)) < rate).astype("int32")


@pytest.mark.one_in(2)
@pytest.mark.parametrize("threshold", [0.5, 0.2])
@pytest.mark.parametrize("case", [(80, 3), (50, 1), (1, 3), (40, 3, 0, 0.0)])
def test_multilabel_agrees_with_scikit_learn(case, threshold):
    logits, labels = many(*case)
    found = stream(multilabel(logits.shape[1], threshold=threshold), logits, labels, 200)
    p = 1 / (1 + np.exp(-logits.astype("float64")))
    answers = (p > threshold).astype(int)
    assert found["exact_match"] == pytest.approx((answers == labels).all(1).mean())
    assert found["accuracy"] == pytest.approx((answers == labels).mean())
    assert found["nll"] == pytest.approx(-np.log(np.where(labels == 1, p, 1 - p)).mean(), rel=1e-5)
    columns = [
        [score(labels[:, c], answers[:, c], zero_division=0) for c in range(labels.shape[1])]
        for score in (sk.precision_score, sk.recall_score, sk.f1_score)
    ]
    for name, column in zip(("precision", "recall", "f1"), columns):
        np.testing.assert_allclose(found[f"class_{name}"], column, rtol=1e-6)
    if labels.shape[1] > 1:
        for name, score in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
            for average in ("macro", "micro", "weighted"):
                value = score(labels, answers, average=average, zero_division=0)
                assert found[f"{average}_{name}"] == pytest.approx(value, rel=1e-6), name
        assert found["accuracy"] == pytest.approx(1 - sk.hamming_loss(labels, answers))


def test_multilabel_bad_logits_and_flat_labels():
    logits, labels = many(20, 1, seed=1)
    flat, column = measure(multilabel(1), logits, labels[:, 0]), measure(multilabel(1), logits, labels)
    assert flat.keys() == column.keys()
    assert all((flat[name] == column[name]).all() for name in flat)
    logits, labels = many(20, 3, seed=2)
    logits[0, 1] = np.nan
    found = measure(multilabel(3), logits, labels)
    right = ((logits > 0) == labels)[1:]
    assert found["invalid"] == 1
    assert found["accuracy"] == pytest.approx(right.sum() / 60)
    assert found["exact_match"] == pytest.approx(right.all(1).sum() / 20)
    assert np.isnan(found["nll"])
    np.testing.assert_array_equal(found["support"], labels.sum(0))
    with pytest.raises(MetricError, match=r"multilabel\(3\)"):
        measure(multilabel(3), logits, labels[:, 0])
