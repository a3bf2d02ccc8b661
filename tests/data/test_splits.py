"""Splits are disjoint, exhaustive and stratified; few-shot subsets are nested."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tljax.data import DataError, k_shot, stratified_split


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    parts=st.sampled_from([(0.8, 0.2), (0.5, 0.5), (0.7, 0.2, 0.1), (1.0,), (0.95, 0.05)]),
    seed=st.integers(0, 2**32 - 1),
)
def test_split(sizes: list[int], parts: tuple[float, ...], seed: int) -> None:
    assume(sum(sizes) and all(n == 0 or n >= len(parts) for n in sizes))
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    indices = stratified_split(y, parts, seed=seed)
    np.testing.assert_array_equal(np.sort(np.concatenate(indices)), np.arange(len(y)))
    forced = any(n * share < 1 for n in sizes if n for share in parts)  # a class too small to be divided so
    for part, share in zip(indices, parts):
        assert np.all(np.diff(part) > 0)
        counts = np.bincount(y[part], minlength=len(sizes))
        for n, count in zip(sizes, counts):
            assert count >= (n > 0)
        if not forced:
            assert abs(len(part) - share * len(y)) <= 1
            assert np.all(np.abs(counts - share * np.array(sizes)) < 2)


def test_rounding_does_not_add_up_over_many_classes() -> None:
    train, test = stratified_split(np.repeat(np.arange(100), 7), (0.8, 0.2), seed=0)
    assert (len(train), len(test)) == (560, 140)


def test_seeds_differ_and_every_example_is_held_out_as_often() -> None:
    y = np.repeat([0, 1], [30, 10])
    tests = np.stack([np.isin(np.arange(40), stratified_split(y, (0.8, 0.2), seed=s)[1]) for s in range(400)])
    assert len(np.unique(tests, axis=0)) > 390
    # Binomial with p = 0.2: 80 of 400, standard deviation 8.
    assert np.all(np.abs(tests.sum(0) - 80) < 40)


def test_targets_and_multiple_labels_have_no_strata() -> None:
    for y in (np.linspace(0, 1, 50, dtype=np.float32), np.eye(5, dtype=np.float32).repeat(10, 0)):
        train, test = stratified_split(y, (0.8, 0.2), seed=0)
        assert (len(train), len(test)) == (40, 10)


@pytest.mark.parametrize(
    ("y", "fractions", "words"),
    [
        ([0, 0, 1], (0.5, 0.5), "cannot be split into 2 parts, .* every class: class 'dog' has 1$"),
        ([0, 0, 1, 1], (0.6, 0.2, 0.2), "class 'cat' has 2$"),
        ([], (0.5, 0.5), "there are none"),
        ([0, 1], (0.5, 0.4), r"positive with sum 1; found \(0.5, 0.4\)"),
        ([0, -2], (0.5, 0.5), "a class must be 0 or more; the first that is not is -2"),
        ([0, 1], (1.2, -0.2), "positive with sum 1"),
    ],
)
def test_impossible_splits(y: list[int], fractions: tuple[float, ...], words: str) -> None:
    with pytest.raises(DataError, match=words):
        stratified_split(np.array(y, np.int32), fractions, seed=0, classes=("cat", "dog"))


@settings(deadline=None, max_examples=40)
@given(sizes=st.lists(st.integers(3, 40), min_size=1, max_size=12), seed=st.integers(0, 2**32 - 1))
def test_k_shot_is_stratified_and_nested(sizes: list[int], seed: int) -> None:
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    most = k_shot(y, 3, seed=seed)
    assert len(set(most.tolist())) == 3 * len(sizes)
    for k in (1, 2):
        fewer = k_shot(y, k, seed=seed)
        np.testing.assert_array_equal(y[fewer], np.tile(np.arange(len(sizes)), k))
        np.testing.assert_array_equal(fewer, most[: len(fewer)])


def test_k_shot_draws_every_example_as_often() -> None:
    y = np.repeat([0, 1], [20, 10])
    drawn = np.bincount(np.concatenate([k_shot(y, 2, seed=s) for s in range(500)]), minlength=30)
    # 2 of 20 and 2 of 10, 500 times: 50 and 100, standard deviations 7 and 9.
    assert np.all(np.abs(drawn[:20] - 50) < 35)
    assert np.all(np.abs(drawn[20:] - 100) < 45)


def test_k_shot_of_a_split_is_unrelated_to_the_split() -> None:
    # The subset of the whole set under the split's own seed is no prefix of either part.
    y = np.zeros(1000, np.int64)
    _, test = stratified_split(y, (0.5, 0.5), seed=3)
    share = np.isin(k_shot(y, 400, seed=3), test).mean()
    assert abs(share - 0.5) < 0.1


@pytest.mark.parametrize(
    ("y", "k", "words"),
    [
        (
            [0, 0, 1],
            2,
            r"2 labels per class were asked for, but there are fewer examples of class 'dog' \(1\), 'owl' \(0\)",
        ),
        ([0, 1], 1, r"fewer examples of class 'owl' \(0\)"),
        ([0, 1, -1], 1, "a class must be 0 or more"),
        (np.zeros(0, int), 1, r"fewer examples of class 'cat' \(0\)"),
        ([0, 1, 2], 0, "must be 1 or more; found 0"),
        ([0.5, 1], 1, "one class per example"),
        ([[0, 1]], 1, "one class per example"),
    ],
)
def test_impossible_k_shot(y: object, k: int, words: str) -> None:
    with pytest.raises(DataError, match=words):
        k_shot(np.array(y), k, seed=0, classes=("cat", "dog", "owl"))


def test_splits_are_the_ones_of_earlier_versions() -> None:
    y = np.arange(20) % 3
    assert stratified_split(y, (0.7, 0.3), seed=1)[1].tolist() == [0, 1, 5, 12, 13, 14]
    assert k_shot(y, 2, seed=1).tolist() == [18, 7, 14, 6, 10, 17]
