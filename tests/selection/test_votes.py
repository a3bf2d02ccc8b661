"""Votes against definitions written out, and what must not change them."""

import jax
import numpy as np
import pytest

from tljax import probes, scores
from tljax.selection.subsets import stratified_subsets
from tljax.selection.votes import Votes, prepare, votes_of

N, CLASSES = 24, 3


def examples(d: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(CLASSES).repeat(N // CLASSES)
    return (rng.normal(size=(N, d)) + 1.2 * np.eye(CLASSES, d)[y]).astype(np.float32), y


def votes(x: np.ndarray, y: np.ndarray, theta: np.ndarray | None = None) -> Votes:
    found = votes_of(prepare(x, theta), y, np.arange(len(y))[None], int(y.max()) + 1, whole=True)
    return Votes(*(float(vote[0]) for vote in found))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def nearest_others(x: np.ndarray, y: np.ndarray, k: int) -> float:
    right = 0
    for i in range(len(y)):
        cosines = unit(x) @ unit(x)[i]
        cosines[i] = -np.inf
        near = np.argsort(-cosines)[:k]
        counts = [(y[near] == c).sum() + sum(cosines[near][y[near] == c]) / 100 for c in range(CLASSES)]
        right += int(np.argmax(counts)) == y[i]
    return right / len(y)


def class_means_left_out(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    found = np.zeros((len(y), CLASSES))
    for i in range(len(y)):
        means = [unit(x)[(y == c) & (np.arange(len(y)) != i)].mean(0) for c in range(CLASSES)]
        found[i] = [unit(x)[i] @ m / np.linalg.norm(m) for m in means]
    return found


def likelihood(scores: np.ndarray, y: np.ndarray) -> float:
    logits = scores / float(probes.temperature(scores, y))
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return float(np.exp(logs[np.arange(N), y].mean()))


@pytest.mark.slow
@pytest.mark.parametrize("d", [10, 40])
def test_votes_are_what_their_definitions_say(d: int) -> None:
    x, y = examples(d)
    theta = np.asarray(jax.nn.softmax(x[:, :4]))
    found, length_one = votes(x, y, theta), unit(x)
    loo = np.asarray(probes.ridge(length_one, y).loo)
    assert found.ridge == pytest.approx(np.mean(loo.argmax(1) == y))
    assert found.ridge_likelihood == pytest.approx(likelihood(loo, y), abs=2e-4)
    means = class_means_left_out(x, y)
    assert found.centroid == pytest.approx(np.mean(means.argmax(1) == y))
    assert found.centroid_likelihood == pytest.approx(likelihood(means, y), abs=2e-4)
    assert found.nearest == pytest.approx(nearest_others(x, y, 1))
    assert found.neighbours == pytest.approx(nearest_others(x, y, 5))
    assert found.logme == pytest.approx(scores.logme(length_one, y, form="restricted"), abs=1e-4)
    assert found.h_score == pytest.approx(scores.shrinkage_h_score(length_one, y) / 2, abs=1e-4)
    assert found.leep == pytest.approx(scores.leep(theta, y), abs=1e-5)


def test_scale_and_rotation_of_the_features_change_nothing() -> None:
    x, y = examples()
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(10, 10)))[0]
    for other in (1e30 * x, 1e-30 * x, x @ turn):
        assert np.allclose(votes(x, y)[:-1], votes(other, y)[:-1], atol=1e-4)


@pytest.mark.slow
def test_a_class_with_one_example_is_not_asked_for() -> None:
    x, y = examples()
    kept = np.r_[0:16, 16]  # two classes of eight and one of a single example
    found = votes(x[kept], y[kept])
    loo = np.asarray(probes.ridge(unit(x[kept]), y[kept]).loo)
    assert found.ridge == pytest.approx(np.mean((loo.argmax(1) == y[kept])[:16]))
    assert np.isnan(votes(x[[0, 8, 16]], np.arange(3)).ridge)


def test_constant_features_know_nothing() -> None:
    _, y = examples()
    found = votes(np.ones((N, 10), np.float32), y)
    assert found.ridge <= 0.5
    assert found.ridge_likelihood == pytest.approx(1 / CLASSES, abs=0.02)


def test_subsets_are_stratified_and_widen_to_the_variance_of_all() -> None:
    y = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [40, 20, 2]))
    found = stratified_subsets(y, 400, seed=0)
    assert found.rows.shape == (400, 32)
    assert (np.sort(y[found.rows], 1) == found.labels).all()
    assert all(len(set(rows)) == 32 for rows in found.rows)
    values = np.random.default_rng(1).normal(size=len(y))
    same = y != 2  # both whole classes are halved
    means = np.array([values[rows[found.labels != 2]].mean() for rows in found.rows])
    within = sum(values[y == c].var(ddof=1) * (y == c).sum() for c in (0, 1)) / same.sum() ** 2
    assert means.var() == pytest.approx(within, rel=0.25)  # a half scatters around the whole as the whole does
    assert found.widening == pytest.approx(32 / 30)
    assert (stratified_subsets(y, 3, seed=0).rows == found.rows[:3]).all()


def test_a_large_common_mean_makes_no_signal_of_noise() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(CLASSES).repeat(N // CLASSES)
    for d in (10, 40):
        found = votes(100 + 1e-4 * rng.normal(size=(N, d)), y)
        assert found.ridge < 0.7
        assert found.ridge_likelihood < 0.45
