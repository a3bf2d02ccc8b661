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
    found = votes_of(prepare(x, theta), y, np.arange(len(y))[None], int(y.max()) + 1)
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


def nearest_means(x: np.ndarray, y: np.ndarray) -> float:
    right = 0
    for i in range(len(y)):
        means = [unit(x)[(y == c) & (np.arange(len(y)) != i)].mean(0) for c in range(CLASSES)]
        right += int(np.argmax([unit(x)[i] @ m / np.linalg.norm(m) for m in means])) == y[i]
    return right / len(y)


@pytest.mark.parametrize("d", [10, 40])
def test_votes_are_what_their_definitions_say(d: int) -> None:
    x, y = examples(d)
    theta = np.asarray(jax.nn.softmax(x[:, :4]))
    found = votes(x, y, theta)
    loo = np.asarray(probes.ridge(x, y).loo)
    assert found.ridge == pytest.approx(np.mean(loo.argmax(1) == y))
    logits = loo / float(probes.temperature(loo, y))
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert found.likelihood == pytest.approx(np.exp(logs[np.arange(N), y].mean()), abs=2e-4)
    assert found.nearest == pytest.approx(nearest_others(x, y, 1))
    assert found.neighbours == pytest.approx(nearest_others(x, y, 5))
    assert found.centroid == pytest.approx(nearest_means(x, y))
    assert found.logme == pytest.approx(scores.logme(x, y), abs=1e-5)
    assert found.h_score == pytest.approx(scores.shrinkage_h_score(x, y) / 2, abs=1e-5)
    assert found.leep == pytest.approx(scores.leep(theta, y), abs=1e-5)


def test_scale_shift_and_rotation_change_nothing_but_what_reads_angles() -> None:
    x, y = examples()
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(10, 10)))[0]
    first, turned, moved = votes(x, y), votes(30 * x @ turn, y), votes(x + 5, y)
    assert np.allclose(first[:-1], turned[:-1], atol=1e-4)
    for name in ("ridge", "likelihood", "logme", "h_score"):
        assert getattr(first, name) == pytest.approx(getattr(moved, name), abs=1e-4)


def test_padding_changes_nothing() -> None:
    x, y = examples(9)
    given = prepare(x, None)
    assert given.x.shape == (N, 12)
    wider = given._replace(x=np.pad(given.x, ((0, 0), (0, 4))))
    first, second = (votes_of(g, y, np.arange(N)[None], CLASSES) for g in (given, wider))
    assert np.allclose(first[:-1], second[:-1], atol=1e-5)


def test_a_class_with_one_example_is_not_asked_for() -> None:
    x, y = examples()
    kept = np.r_[0:16, 16]  # two classes of eight and one of a single example
    found = votes(x[kept], y[kept])
    loo = np.asarray(probes.ridge(x[kept], y[kept]).loo)
    assert found.ridge == pytest.approx(np.mean((loo.argmax(1) == y[kept])[:16]))
    assert np.isnan(votes(x[[0, 8, 16]], np.arange(3)).ridge)


def test_constant_features_know_nothing() -> None:
    _, y = examples()
    found = votes(np.ones((N, 10), np.float32), y)
    assert found.ridge <= 0.5
    assert found.likelihood == pytest.approx(1 / CLASSES, abs=0.02)


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
    assert stratified_subsets(np.arange(2).repeat(5000), 1, seed=0, most=100).rows.shape == (1, 100)
