"""Metrics of one kind beside another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.evaluation import MetricError, auroc, classification, combine, multilabel, regression

RNG = np.random.default_rng(0)
LOGITS, LABELS = RNG.normal(size=(30, 3)).astype("float32"), RNG.integers(0, 3, 30)


@pytest.mark.slow
def test_combined_is_each_alone():
    parts = classification(3), auroc(3, capacity=30)
    both = combine(*parts)
    found = jax.jit(lambda z, y: both.compute(both.update(both.init(), z, y)))(LOGITS, LABELS)
    alone = [jax.jit(lambda z, y, m=m: m.compute(m.update(m.init(), z, y)))(LOGITS, LABELS) for m in parts]
    assert found.keys() == alone[0].keys() | alone[1].keys()
    for one in alone:
        for name, value in one.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-6)


@pytest.mark.slow
def test_combined_merges():
    both = combine(classification(3), auroc(3, capacity=30))
    both = type(both)(*map(jax.jit, both))
    a, b = (both.update(both.init(), LOGITS[i], LABELS[i]) for i in (slice(0, 12), slice(12, None)))
    whole = both.compute(both.update(both.init(), LOGITS, LABELS))
    merged = both.compute(both.merge(a, b))
    assert int(merged["count"]) == 30
    np.testing.assert_allclose(merged["auroc"], whole["auroc"], rtol=1e-6)
    np.testing.assert_array_equal(merged["confusion"], whole["confusion"])


def test_one_name_for_two_things_raises():
    both = combine(classification(3), classification(3, bins=10))
    with pytest.raises(MetricError, match="accuracy"):
        both.compute(both.init())
    with pytest.raises(MetricError, match="at least one"):
        combine()


def measured(metric, logits, labels):
    found = jax.jit(lambda z, y: metric.compute(metric.update(metric.init(), z, y)))(
        jnp.asarray(logits), jnp.asarray(labels)
    )
    return jax.tree.map(np.asarray, found)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_with_64_bits_every_metric_is_what_it_is_without(dtype):
    labels, logits = LABELS, LOGITS.astype(dtype)
    cases = [
        (classification(3), labels),
        (multilabel(3), np.eye(3, dtype=int)[labels]),
        (regression(3), LOGITS[::-1].astype(dtype)),
        (auroc(3, capacity=32), labels),
    ]
    for metric, y in cases:
        narrow = measured(metric, logits.astype(np.float32), y.astype(np.float32) if y.dtype.kind == "f" else y)
        with jax.enable_x64(True):
            wide = measured(metric, logits, y)
        for name, value in narrow.items():
            np.testing.assert_allclose(wide[name], value, rtol=1e-6, err_msg=name)
