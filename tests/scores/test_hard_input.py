"""What every score says of labels and features that are hard: a right number, or one clear error."""

import jax
import numpy as np
import pytest

from tljax import scores

RNG = np.random.default_rng(0)
Y = np.arange(24) % 3
X = (np.eye(3)[Y] @ RNG.normal(size=(3, 8)) * 2 + RNG.normal(size=(24, 8))).astype(np.float32)

OF_FEATURES = {
    "gbc": scores.gbc,
    "h_score": scores.h_score,
    "knn": scores.knn,
    "lfc": scores.lfc,
    "logme": scores.logme,
    "logme restricted": lambda x, y: scores.logme(x, y, form="restricted"),
    "logme fixed point": lambda x, y: scores.logme(x, y, form="fixed_point"),
    "logme published": lambda x, y: scores.logme(x, y, form="published"),
    "nleep": lambda x, y: scores.nleep(x, y, per_class=1),
    "pactran": scores.pactran,
    "parc": scores.parc,
    "ridge": scores.ridge,
    "ridge likelihood": lambda x, y: scores.ridge(x, y, measure="likelihood"),
    "sfda": scores.sfda,
    "shrinkage_h_score": scores.shrinkage_h_score,
    "transrate": lambda x, y: scores.transrate(x, y, normalize=True),
}
SCALE_FREE = {
    "h_score", "knn", "lfc", "logme", "logme restricted", "parc", "ridge", "ridge likelihood", "shrinkage_h_score",
    "transrate",
}  # fmt: skip
every = pytest.mark.parametrize("name", OF_FEATURES)


@pytest.mark.one_in(7)
@every
def test_classes_that_are_absent_and_names_do_not_matter(name: str) -> None:
    score = OF_FEATURES[name]
    plain = score(X, Y)
    assert score(X, np.array([3, 7, 90])[Y]) == plain
    assert score(X, np.array(["ant", "bee", "cat"])[Y]) == plain


@pytest.mark.one_in(7)
@every
def test_one_example_a_class(name: str) -> None:
    x, y = X[:8], np.arange(8)
    if name == "parc":
        with pytest.raises(scores.ScoreError, match="differ in class"):
            OF_FEATURES[name](x, y)
    else:
        assert np.isfinite(OF_FEATURES[name](x, y))


@every
def test_features_that_do_not_vary(name: str) -> None:
    x = np.ones((24, 8), np.float32)
    if name == "nleep":
        with pytest.raises(scores.ScoreError, match="do not vary"):
            OF_FEATURES[name](x, Y)
    else:
        assert np.isfinite(OF_FEATURES[name](x, Y))


@pytest.mark.slow
@every
def test_zero_and_duplicate_columns_and_far_more_columns_than_rows(name: str) -> None:
    score = OF_FEATURES[name]
    for x in (
        np.concatenate([X, 0 * X], axis=1),
        np.concatenate([X, X], axis=1),
        np.concatenate([X, RNG.normal(size=(24, 120))], axis=1),
    ):
        assert np.isfinite(score(x.astype(np.float32), Y))


def test_a_mixture_of_components_with_few_examples_in_any_unit() -> None:
    x = np.concatenate([X, X], axis=1).astype(np.float32)
    found = [scores.nleep(scale * x, Y) for scale in (1, 30, 1000)]
    np.testing.assert_allclose(found, found[0], atol=1e-6)


@every
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_none(name: str, bad: float) -> None:
    x = X.copy()
    x[3, 1] = bad
    with pytest.raises(scores.ScoreError, match="1 of 24 examples hold NaN or infinity"):
        OF_FEATURES[name](x, Y)


@every
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, Y[:5], "one label each"),
        (X, np.zeros(24, int), "compares classes"),
        (X[0], Y, r"\[N, D\]"),
        (X, Y + 0.5, "with a fraction"),
    ],
    ids=["too few labels", "one class", "a vector", "numbers"],
)
def test_shapes_and_labels_that_do_not_fit(name: str, x: np.ndarray, y: np.ndarray, message: str) -> None:
    with pytest.raises(scores.ScoreError, match=message):
        OF_FEATURES[name](x, y)


@pytest.mark.parametrize("name", sorted(SCALE_FREE))
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_scores_whose_formula_has_no_unit_do_not_change_with_it(name: str, scale: float) -> None:
    np.testing.assert_allclose(OF_FEATURES[name](scale * X, Y), OF_FEATURES[name](X, Y), rtol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("wide", [False, True], ids=["tall", "wide"])
@pytest.mark.parametrize("name", [n for n in OF_FEATURES if n not in ("nleep", "pactran")])
def test_float32_is_float64_to_five_digits(name: str, wide: bool) -> None:
    """On features like those of a network: positive, many near zero, with a decaying spectrum and an offset."""
    rng, y = np.random.default_rng(1), np.arange(60) % 5
    d = 90 if wide else 30
    x = np.eye(5)[y] @ rng.normal(size=(5, d)) + rng.normal(size=(60, d)) @ np.diag(np.logspace(0, -2, d))
    x = np.maximum(x + 0.3, 0).astype(np.float32)
    single = OF_FEATURES[name](x, y)
    with jax.enable_x64(True):
        double = OF_FEATURES[name](x.astype(np.float64), y)
    np.testing.assert_allclose(single, double, rtol=1e-5, atol=1e-6)
