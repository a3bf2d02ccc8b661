"""AUROC, against scikit-learn and by counting pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.evaluation import MetricError, auroc

sk = pytest.importorskip("sklearn.metrics")


N = 300  # rows and capacity of nearly all tests, so that few programs serve them


def jitted(metric):
    return type(metric)(*map(jax.jit, metric))


def measure(classes, logits, labels, capacity=N):
    missing = N - len(labels)
    logits = np.pad(logits, ((0, missing), (0, 0)), constant_values=np.nan)
    weight = (np.arange(N) < len(labels)).astype("float32")
    labels = np.pad(labels, ((0, missing),) + ((0, 0),) * (labels.ndim - 1))
    metric = jitted(auroc(classes, capacity=capacity))
    return jax.device_get(metric.compute(metric.update(metric.init(), logits, labels, weight)))


def data(n, classes, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n).astype("int32")
    logits = rng.normal(size=(n, classes)).astype("float32") + np.eye(classes, dtype="float32")[labels]
    return (logits.round() if ties else logits), labels


def by_pairs(score, true):
    own, other = score[true], score[~true]
    return (own[:, None] > other[None]).mean() + 0.5 * (own[:, None] == other[None]).mean()


@pytest.mark.one_in(2)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [2, 30, 300])
def test_binary_agrees_with_scikit_learn(n, ties):
    logits, labels = data(n, 2, ties=ties)
    labels[:2] = [0, 1]
    value = sk.roc_auc_score(labels, logits[:, 1] - logits[:, 0])
    found = measure(2, logits, labels)
    assert found["auroc"] == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(found["class_auroc"], value, rtol=1e-6)
    one = measure(1, logits[:, 1:], labels)
    assert one["auroc"] == pytest.approx(sk.roc_auc_score(labels, logits[:, 1]), rel=1e-6)


@pytest.mark.parametrize("ties", [False, True])
def test_one_versus_rest_agrees_with_scikit_learn(ties):
    logits, labels = data(200, 5, ties=ties)
    p = np.asarray(jax.nn.softmax(logits.astype("float32")), "float64")
    p /= p.sum(1, keepdims=True)
    # Equal log-probabilities and equal probabilities are the same ties up to rounding; score by the former.
    log_p = np.asarray(jax.nn.log_softmax(logits))
    found = measure(5, logits, labels)
    each = [by_pairs(log_p[:, c], labels == c) for c in range(5)]
    np.testing.assert_allclose(found["class_auroc"], each, rtol=1e-6)
    assert found["auroc"] == pytest.approx(
        sk.roc_auc_score(labels, p, multi_class="ovr", average="macro"), rel=1e-6 if not ties else 2e-3
    )


def test_multilabel_agrees_with_scikit_learn():
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(80, 4)).round(1).astype("float32"), rng.integers(0, 2, (80, 4))
    found = measure(4, logits, labels)
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(labels, logits, average="macro"), rel=1e-6)


@pytest.mark.parametrize("size", [1, 7])
def test_streaming_and_padding(size):
    logits, labels = data(50, 3, ties=True)
    metric = jitted(auroc(3, capacity=N))
    sums = metric.init()
    for start in range(0, 50, size):
        z, y = logits[start : start + size], labels[start : start + size]
        rows = np.arange(size) % len(y)
        weight = (np.arange(size) < len(y)).astype("float32")
        z = np.where(weight[:, None] > 0, z[rows], np.nan)
        sums = metric.update(sums, z, np.where(weight > 0, y[rows], -1), weight)
    assert int(sums.examples) == 50
    whole = measure(3, logits, labels)
    np.testing.assert_array_equal(metric.compute(sums)["class_auroc"], whole["class_auroc"])


def test_shards_add_up():
    logits, labels = data(40, 2, ties=True)
    metric = jitted(auroc(2, capacity=N))
    a, b = (
        metric.update(metric.init(), logits[:13], labels[:13]),
        metric.update(metric.init(), logits[13:], labels[13:]),
    )
    whole = measure(2, logits, labels)
    for sums in (metric.merge(a, b), metric.merge(b, a)):
        assert float(metric.compute(sums)["auroc"]) == pytest.approx(whole["auroc"], rel=1e-6)
    twice = metric.merge(metric.merge(a, b), metric.merge(a, b))
    assert float(metric.compute(twice)["auroc"]) == pytest.approx(whole["auroc"], rel=1e-6)
    for _ in range(3):
        twice = metric.merge(twice, twice)
    full = twice
    assert int(full.examples) == 640
    assert np.isnan(metric.compute(full)["auroc"])


def test_more_than_the_capacity_is_no_number():
    logits, labels = data(20, 2)
    for capacity, held in ((19, False), (20, True)):
        assert np.isfinite(measure(2, logits, labels, capacity=capacity)["auroc"]) == held


def test_undefined_classes_are_left_out_of_the_mean():
    logits, labels = data(40, 5)
    labels = np.where(labels == 4, 0, labels)
    found = measure(5, logits, labels)
    assert np.isnan(found["class_auroc"][4])
    assert found["auroc"] == pytest.approx(found["class_auroc"][:4].mean(), rel=1e-6)
    alone = measure(5, logits, np.zeros(40, "int32"))
    assert np.isnan(alone["auroc"])
    assert np.isnan(measure(5, logits[:0], labels[:0])["auroc"])


def test_infinite_scores_rank_and_nan_shows():
    score = np.array([-np.inf, 0.0, np.inf, np.inf, np.inf], "float32")[:, None]
    labels = np.array([0, 1, 0, 1, 1])
    found = measure(1, score, labels)
    assert found["auroc"] == pytest.approx(by_pairs(score[:, 0], labels == 1))
    score[1] = np.nan
    assert np.isnan(measure(1, score, labels)["auroc"])
    logits, labels = data(20, 3)
    labels[0] = 3
    assert np.isnan(measure(3, logits, labels)["auroc"])


def test_wrong_input_raises():
    metric = auroc(3, capacity=5)
    with pytest.raises(MetricError, match=r"auroc\(3\) needs logits \[B, 3\]"):
        metric.update(metric.init(), jnp.zeros((4, 2)), jnp.zeros(4, int))
    with pytest.raises(MetricError, match="capacity"):
        auroc(3, capacity=0)
