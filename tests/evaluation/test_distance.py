"""The proxy A-distance against scikit-learn, and what it must be where it is known."""

import numpy as np
import pytest

from tljax.evaluation import EvaluationError, a_distance
from tljax.probes import ProbeError

RNG = np.random.default_rng(0)
SOURCE = RNG.normal(size=(80, 4))
TARGET = RNG.normal(size=(60, 4)) * [1, 2, 1, 1] + [0.8, 0, 0, 0]


@pytest.mark.slow
def test_it_is_the_error_of_logistic_regression_on_the_other_half():
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(5)
    source, target = SOURCE[rng.permutation(80)[:60]], TARGET[rng.permutation(60)]
    x, y = np.concatenate([source, target]), np.repeat([0, 1], 60)
    x = x / x.std(0)
    halves = [np.r_[0:30, 60:90], np.r_[30:60, 90:120]]
    errors = []
    for mine, other in (halves, halves[::-1]):
        head = linear.LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(x[mine], y[mine])
        errors.append(1 - head.score(x[other], y[other]))
    expected = 2 * (1 - 2 * np.mean(errors))
    assert 0.3 < expected < 1.5
    np.testing.assert_allclose(a_distance(SOURCE, TARGET, seed=5), expected, atol=4 / 120 + 1e-6)  # one on the border


def test_bounds_and_invariances():
    few = SOURCE[:60]  # one shape for all, which is compiled once
    assert a_distance(few, few + 100) == 2
    assert a_distance(few, few) <= 0.2
    assert a_distance(np.ones((60, 4)), np.ones((60, 4))) == 0
    found = a_distance(SOURCE, TARGET)
    assert found == a_distance(SOURCE, TARGET)
    assert abs(found - a_distance(1e3 * SOURCE + 5, 1e3 * TARGET + 5)) < 0.1
    assert abs(found - a_distance(TARGET, SOURCE)) < 0.5  # other halves


@pytest.mark.slow  # two more programs to compile
def test_more_columns_than_examples_and_few_examples():
    wide = RNG.normal(size=(2, 20, 50))
    assert a_distance(wide[0], wide[1] + 3) > 1.8
    assert 0 <= a_distance(SOURCE[:4], TARGET[:5]) <= 2


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (SOURCE, TARGET[:, :3], r"found \(80, 4\) and \(60, 3\)"),
        (SOURCE[0], TARGET, r"needs features \[N, D\]"),
        (SOURCE[:3], TARGET, "four examples or more"),
        (np.full((8, 4), np.nan), TARGET, "finite features"),
    ],
)
def test_bad_input(source, target, message):
    with pytest.raises(EvaluationError, match=message):
        a_distance(source, target)


def test_a_strength_that_is_none():
    with pytest.raises(ProbeError, match="strengths"):
        a_distance(SOURCE, TARGET, strength=0.0)
