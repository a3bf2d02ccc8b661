"""Every score against an independent implementation, and what must hold whatever the features."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scores.score_cases import GOLDEN, Case, case, classes, numbers

from tljax import scores
from tljax.scores.h_score import shrinkage
from tljax.scores.spectrum import spectrum


def plain_logme(x: np.ndarray, targets: np.ndarray, **options: Any) -> float:
    return scores.logme(x, targets.astype(x.dtype), regression=True, center=False, **options)


SCORES: dict[str, Callable[[Case], float]] = {
    "leep": lambda c: scores.leep(c.probabilities, c.y),
    "nce": lambda c: scores.nce(c.probabilities.argmax(1), c.y),
    "logme_exact": lambda c: scores.logme(c.x, c.y, center=False),
    "logme_exact_centered": lambda c: scores.logme(c.x, c.y),
    "logme_iter11": lambda c: scores.logme(c.x, c.y, center=False, form="fixed_point"),
    "logme_iter11_anchor_wide_bug": lambda c: scores.logme(c.x, c.y, center=False, form="published"),
    "ledoit_wolf_shrinkage": lambda c: float(shrinkage(jnp.asarray(c.x), spectrum(jnp.asarray(c.x)))),
    "hscore": lambda c: scores.h_score(c.x, c.y),
    "hscore_shrunk": lambda c: scores.shrinkage_h_score(c.x, c.y),
    "gbc_spherical": lambda c: scores.gbc(c.x, c.y),
    "gbc_diagonal": lambda c: scores.gbc(c.x, c.y, covariance="diagonal"),
    "transrate_eps1e-4_weighted": lambda c: scores.transrate(c.x, c.y),
    "transrate_eps1e-4_unweighted": lambda c: scores.transrate(c.x, c.y, weights="equal"),
    "transrate_eps1e-2_weighted_tracenorm": lambda c: scores.transrate(c.x, c.y, epsilon=1e-2, normalize=True),
    "parc_nopca": lambda c: scores.parc(c.x, c.y),
    "lfc": lambda c: scores.lfc(c.x, c.y),
    "sfda": lambda c: scores.sfda(c.x, c.y),
    "pactran_gauss_lda10": lambda c: -scores.pactran(c.x, c.y, strength=10.0, prior=1000.0),
    "pactran_gauss_lda1": lambda c: -scores.pactran(c.x, c.y, strength=1.0, prior=100.0),
    "pactran_gauss_lda0.1": lambda c: -scores.pactran(c.x, c.y, strength=0.1, prior=10.0),
    **{
        f"knn{k}_loo_{metric}": partial(
            lambda c, k, metric: scores.knn(c.x, c.y, k=k, metric=metric), k=k, metric=metric
        )
        for k in (1, 5)
        for metric in ("euclidean", "cosine")
    },
    **{
        f"ridge_loo_lam{strength:g}": partial(
            lambda c, strength: scores.ridge(c.x, c.y, strengths=[strength]), strength=strength
        )
        for strength in (0.1, 1, 10)
    },
}


def cases() -> list[Any]:
    """One pair is left out: with an intercept the evidence of features that interpolate has no maximum (see below)."""
    pairs = [(n, s) for n, e in GOLDEN["classification"].items() for s in e["scores"] if s in SCORES]
    pairs.remove(("wide", "logme_exact_centered"))
    return [pytest.param(*pair, marks=[] if pair[0] == "wide" else pytest.mark.slow) for pair in pairs]


def wanted(name: str, score: str) -> float:
    found = GOLDEN["classification"][name]["scores"][score]
    return found["score"] if isinstance(found, dict) else found


def test_every_golden_score_is_compared() -> None:
    there = {name for entry in GOLDEN["classification"].values() for name in entry["scores"]}
    assert there == set(SCORES)


@pytest.mark.one_in(5)
@pytest.mark.parametrize(("name", "score"), cases())
def test_golden_values_in_float32(name: str, score: str) -> None:
    # The search for PACTran's head ends where float32 no longer tells its steps apart.
    tolerance = 1e-4 if score.startswith("pactran") else 2e-5
    np.testing.assert_allclose(SCORES[score](case(name)), wanted(name, score), rtol=tolerance)


@pytest.mark.slow
def test_golden_values_in_float64() -> None:
    with jax.enable_x64(True):
        for parameter in cases():
            name, score = parameter.values
            tolerance = 1e-6 if score.startswith("pactran") else 1e-9
            np.testing.assert_allclose(
                SCORES[score](case(name, np.float64)), wanted(name, score), rtol=tolerance, err_msg=f"{name} {score}"
            )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reg", "reg_wide"])
def test_logme_of_a_regression(name: str) -> None:
    x, targets = (a.astype(np.float32) for a in numbers(**GOLDEN["regression"][name]["recipe"]))
    golden = GOLDEN["regression"][name]["scores"]
    np.testing.assert_allclose(plain_logme(x, targets), golden["logme_exact"], rtol=1e-5)
    np.testing.assert_allclose(plain_logme(x, targets, form="fixed_point"), golden["logme_iter11"], rtol=1e-5)
    found = plain_logme(x, targets, form="published")
    np.testing.assert_allclose(found, golden["logme_iter11_anchor_wide_bug"], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_nleep_from_given_means(ratio: int) -> None:
    c = classes(**GOLDEN["nleep"]["recipe"])
    order = np.random.default_rng(11).permutation(len(c.y))
    found = scores.nleep(
        c.x.astype(np.float32), c.y, per_class=ratio, iterations=10, tolerance=0.0, init=order[: 3 * ratio]
    )
    np.testing.assert_allclose(found, GOLDEN["nleep"]["scores"][f"ratio{ratio}_iter10"], rtol=1e-5)


def evidence(x: np.ndarray, t: np.ndarray, log_alpha: float, log_beta: float) -> float:
    """The log density of the targets, from its definition."""
    covariance = np.eye(len(t)) * np.exp(-log_beta) + x @ x.T * np.exp(-log_alpha)
    return float(
        -0.5 * (len(t) * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + t @ np.linalg.solve(covariance, t))
    )


@pytest.mark.parametrize("name", ["wide", pytest.param("imbalanced", marks=pytest.mark.slow)])
def test_logme_is_the_greatest_evidence_of_the_contrasts(name: str) -> None:
    c = case(name, np.float64)
    n = len(c.y)
    contrasts = np.linalg.svd(np.eye(n) - 1 / n)[0][:, : n - 1]
    x, targets = contrasts.T @ c.x, contrasts.T @ np.eye(c.y.max() + 1)[c.y]
    best = []
    for t in targets.T:
        # Where alpha vanishes beside beta, beta has a best value of its own: 25 lines of a grid come close enough.
        grid = [evidence(x, t, a, b) for b in np.linspace(-3, 12, 40) for a in np.linspace(-3, 12, 40)]
        best.append(max(grid) / (n - 1))
    found = scores.logme(case(name).x, c.y, form="restricted")
    assert np.mean(best) - 1e-5 <= found <= np.mean(best) + 0.02


def test_evidence_without_bound_is_that_of_the_contrasts() -> None:
    """The golden value of the case that interpolates is where rounding errors of the residual stop the search."""
    c = case("wide", np.float64)
    n, x, t = len(c.y), c.x - c.x.mean(0), np.eye(4)[c.y] - 0.25
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    u, energy = u[:, : n - 1], s[: n - 1] ** 2

    def at(log_r: float) -> float:
        ratio = energy / np.exp(log_r)
        q = ((u.T @ t) ** 2 / (1 + ratio)[:, None]).sum(0)
        return float(np.mean(-0.5 * (np.log(2 * np.pi) + 1 + np.log(q / n) + np.log1p(ratio).sum() / n)))

    edge = np.log(energy[0]) - 40
    assert at(edge - 20) - 0.2 > at(edge) > wanted("wide", "logme_exact_centered")
    np.testing.assert_allclose(scores.logme(c.x, c.y), scores.logme(c.x, c.y, form="restricted"), rtol=1e-6)


@pytest.mark.slow
def test_the_published_form_prefers_width_to_worth() -> None:
    """Where N < D its missing eigenvalues reward features that say less."""
    rng, y = np.random.default_rng(0), np.arange(100) % 10
    good = np.eye(10)[y] @ rng.normal(size=(10, 110)) + 1.5 * rng.normal(size=(100, 110))
    weak = np.eye(10)[y] @ rng.normal(size=(10, 400)) * 0.1 + 1.5 * rng.normal(size=(100, 400))
    assert scores.logme(weak, y, form="published") > scores.logme(good, y, form="published")
    for form in ("exact", "restricted"):
        assert scores.logme(weak, y, form=form) < scores.logme(good, y, form=form)
    assert scores.knn(weak, y) < scores.knn(good, y)


def test_scale_and_turning_do_not_matter_where_the_formula_has_neither() -> None:
    c = case("wide")
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 40)))[0].astype(np.float32)
    for score in (scores.logme, scores.shrinkage_h_score, scores.lfc):
        np.testing.assert_allclose(score(1000 * c.x, c.y), score(c.x, c.y), rtol=1e-4)
        np.testing.assert_allclose(score(c.x @ turn, c.y), score(c.x, c.y), rtol=1e-4)
    np.testing.assert_allclose(scores.logme(c.x + 7, c.y), scores.logme(c.x, c.y), rtol=1e-3)


@pytest.mark.slow
def test_the_properties_of_the_golden_file() -> None:
    wanted, c = GOLDEN["properties"], case("balanced")
    twice = np.concatenate([c.x, c.x[:, :4]], axis=1)
    mixed = c.x @ np.float32(np.eye(16) + 0.1)
    same = np.tile(c.x[:15], (4, 1)), np.repeat(np.arange(4), 15)
    found = {
        "leep_unused_source_class_equal": [
            scores.leep(np.pad(c.probabilities, ((0, 0), (0, more))), c.y) for more in (0, 1)
        ],
        "leep_perfect_onehot": scores.leep(np.eye(4)[c.y], c.y),
        "nce_perfect": scores.nce(c.y, c.y),
        "nce_constant_source": scores.nce(np.zeros_like(c.y), c.y),
        "logme_scale_1_1e3_1em3": [scores.logme(k * c.x, c.y, center=False) for k in (1.0, 1e3, 1e-3)],
        "logme_duplicated_columns": scores.logme(twice, c.y, center=False),
        "hscore_invariant_to_invertible_map": [scores.h_score(x, c.y) for x in (c.x, mixed)],
        "hscore_wide_saturates_at_C_minus_1": scores.h_score(case("wide").x, case("wide").y),
        "hscore_duplicated_columns": scores.h_score(twice, c.y),
        "gbc_identical_classes": scores.gbc(*same),
    }
    assert set(found) == set(wanted)
    for name, value in found.items():
        np.testing.assert_allclose(value, wanted[name], rtol=2e-5, atol=1e-6, err_msg=name)


def test_classes_are_names_and_may_have_gaps() -> None:
    c = case("wide")
    names = np.array(["ant", "bee", "cat", "dog"])[c.y]
    assert scores.logme(c.x, names) == scores.logme(c.x, c.y) == scores.logme(c.x, 10 * c.y)


def test_source_classes_without_mass_do_not_matter() -> None:
    c = case("wide")
    more = np.concatenate([c.probabilities, np.zeros((len(c.y), 1), np.float32)], axis=1)
    np.testing.assert_allclose(scores.leep(more, c.y), scores.leep(c.probabilities, c.y), rtol=1e-6)


@pytest.mark.one_in(8)
@pytest.mark.parametrize("score", [s for s in SCORES if s not in ("leep", "nce", "parc_nopca") and "eps1e-2" not in s])
def test_one_example_a_class_and_constant_features_give_numbers(score: str) -> None:
    x = np.tile(np.float32([[1, 0, 5]]), (6, 1))
    x[:, 1] = np.arange(6)
    y = np.arange(6) if "knn" not in score else np.arange(6) // 3
    assert np.isfinite(SCORES[score](Case(x, y, x)))
    assert np.isfinite(SCORES[score](Case(np.ones_like(x), np.arange(6) // 3, x)))


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scores.logme(np.full((4, 2), np.nan), [0, 1, 0, 1]), "features of 4 of 4 examples hold NaN"),
        (lambda: scores.h_score(np.zeros((4, 2)), [0, 1, 0]), r"need one label each, \[4\]"),
        (lambda: scores.h_score(np.zeros(4), [0, 1, 0, 1]), r"must be \[N, D\]"),
        (lambda: scores.gbc(np.zeros((2, 2)), ["a", "a"]), "compares classes"),
        (lambda: scores.lfc(np.zeros((2, 2)), [0.5, 1.0]), "a regression has no classes"),
        (lambda: scores.leep([[0.5, 0.7], [1.0, 0.0]], [0, 1]), "sum to 1"),
        (lambda: scores.leep([[1.5, -0.5], [1.0, 0.0]], [0, 1]), "at least 0"),
        (lambda: scores.nce([0, 1], [0, 1, 1]), "need one label each"),
        (lambda: scores.knn(np.eye(3), [0, 1, 1], k=3), "k from 1 to 2"),
        (lambda: scores.parc(np.eye(3), [0, 1, 2]), "differ in class"),
        (lambda: scores.nleep(np.ones((4, 2)), [0, 1, 0, 1]), "do not vary"),
        (lambda: scores.transrate(np.eye(3), [0, 1, 1], epsilon=0), "epsilon must be positive"),
        (lambda: scores.logme(np.eye(3), [0, 1, 1], form="best"), "'fixed_point'"),
    ],
)
def test_bad_input_is_told(call: Callable[[], float], message: str) -> None:
    with pytest.raises(scores.ScoreError, match=message):
        call()
