"""Calibration from all logits at once, against golden values, the streaming metric and a search."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from tljax.evaluation import MetricError, calibration_error, classification
from tljax.probes import temperature

GOLDEN = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "calibration.json").read_text())["cases"]
RNG = np.random.default_rng(0)
LOGITS, LABELS = 3 * RNG.normal(size=(120, 4)), RNG.integers(0, 4, 120)


@pytest.mark.slow
@pytest.mark.parametrize("case", GOLDEN)
def test_golden_values(case):
    p, y, expected = (np.array(GOLDEN[case][key]) for key in ("probabilities", "labels", "expected"))
    expected = expected.item()
    assert calibration_error(np.log(p), y) == pytest.approx(expected["ece15"], abs=1e-12)
    assert calibration_error(np.log(p), y, equal="mass") == pytest.approx(expected["adaptive_ece15"], abs=1e-12)
    metric = classification(p.shape[1])
    found = metric.compute(metric.update(metric.init(), jnp.asarray(np.log(p), jnp.float32), jnp.asarray(y, jnp.int32)))
    names = {"accuracy", "macro_recall", "macro_precision", "macro_f1", "nll", "brier"}
    for ours, theirs in {n: n for n in names}.items() | {"worst_recall": "worst_class_recall", "ece": "ece15"}.items():
        assert float(found[ours]) == pytest.approx(expected[theirs], abs=2e-6), ours


@pytest.mark.slow
def test_equal_width_is_the_streaming_metric():
    metric = classification(4, bins=10)
    z = jnp.asarray(LOGITS, jnp.float32)
    found = metric.compute(metric.update(metric.init(), z, jnp.asarray(LABELS, jnp.int32)))
    assert calibration_error(LOGITS, LABELS, bins=10) == pytest.approx(float(found["ece"]), abs=1e-6)


def test_equal_mass_by_hand():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6], [0.45, 0.55]])
    # sorted by confidence: 0.55 right, 0.6 wrong, 0.7 right | 0.8 wrong, 0.9 right
    gaps = 3 * abs(2 / 3 - (0.55 + 0.6 + 0.7) / 3), 2 * abs(1 / 2 - 0.85)
    assert calibration_error(np.log(p), [0, 1, 0, 0, 1], bins=2, equal="mass") == pytest.approx(sum(gaps) / 5)


def test_neither_order_nor_an_offset_matters():
    order = RNG.permutation(120)
    for equal in ("width", "mass"):
        value = calibration_error(LOGITS, LABELS, equal=equal)
        assert calibration_error(LOGITS[order] + 7.0, LABELS[order], equal=equal) == pytest.approx(value)


def test_more_bins_than_examples_and_nan():
    assert calibration_error(LOGITS[:3], LABELS[:3], bins=15, equal="mass") >= 0
    assert np.isnan(calibration_error(np.where(LOGITS > 5, np.nan, LOGITS), LABELS))


def test_a_temperature_helps_whoever_is_too_sure():
    rng = np.random.default_rng(3)
    true = rng.normal(size=(4000, 3))
    y = np.array([rng.choice(3, p=np.exp(row) / np.exp(row).sum()) for row in true])
    found = float(temperature(4 * true[:2000], y[:2000]))
    assert found == pytest.approx(4, rel=0.15)
    before, after = (calibration_error(4 * true[2000:] / t, y[2000:]) for t in (1, found))
    assert after < before / 2


@pytest.mark.parametrize(
    ("logits", "labels", "options"),
    [
        (LOGITS[0], LABELS[:1], {}),
        (LOGITS[:0], LABELS[:0], {}),
        (LOGITS, LABELS[:5], {}),
        (LOGITS, LABELS + 1, {}),
        (LOGITS, LABELS * 1.0, {}),
        (LOGITS, LABELS, {"bins": 0}),
        (LOGITS, LABELS, {"equal": "size"}),
    ],
)
def test_what_does_not_fit_raises(logits, labels, options):
    with pytest.raises(MetricError):
        calibration_error(logits, labels, **options)
