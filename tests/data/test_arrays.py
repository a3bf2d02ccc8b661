"""A data set that exists is sound: each kind of bad data gives one error that says what and where."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tljax.data import DataError, Dataset, class_indices, require_every_class

X = np.linspace(0, 1, 24, dtype=np.float32).reshape(6, 4)
Y = np.array([0, 1, 2, 1, 0, 2])
NAMES = ("cat", "cow", "dog")


def test_dtypes_are_brought_to_the_few_that_are_kept() -> None:
    pixels = np.array([[0, 51, 255]], np.uint8)
    np.testing.assert_allclose(Dataset(pixels, np.array([0])).x, [[0, 0.2, 1]], rtol=1e-6)
    for x in (X.astype(np.float64), X.astype(np.float16), np.asarray(jnp.asarray(X, jnp.bfloat16)), X.tolist()):
        assert Dataset(x, Y).x.dtype == np.float32  # type: ignore[arg-type]
    tokens = Dataset(np.arange(12, dtype=np.int64).reshape(6, 2), Y)
    assert tokens.x.dtype == np.int32
    assert Dataset(X, Y.astype(np.uint8)).y.dtype == np.int32
    assert Dataset(X, Y.astype(np.float64), NAMES).y.tolist() == Y.tolist()
    assert Dataset(X, Y.astype(bool)).classes == ("0", "1")


def test_what_y_holds_is_told_by_its_shape_and_the_classes() -> None:
    assert Dataset(X, Y).task == "classes"
    assert Dataset(X, Y).classes == ("0", "1", "2")
    soft = Dataset(X, np.full((6, 3), 1 / 3), NAMES)
    assert (soft.task, soft.outputs, soft.y.dtype) == ("labels", 3, np.float32)
    assert Dataset(X, Y.astype(float)).task == "regression"
    assert Dataset(X, Y, ()).y.dtype == np.float32
    assert [Dataset(X, np.zeros(s), ()).outputs for s in ((6,), (6, 1), (6, 5))] == [1, 1, 5]


def _with(array: np.ndarray, index: tuple, value: float) -> np.ndarray:
    array = array.astype(np.float64)
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("x", "y", "classes", "words"),
    [
        (X[:0], Y[:0], None, r"'pets' is empty: x is \[0, 4\]"),
        (X, Y[:5], None, "'pets': x holds 6 examples and y 5 labels"),
        (_with(X, (2, 1), np.nan), Y, None, r"1 value of x is not finite in float32; the first is nan at x\[2, 1\]"),
        (_with(_with(X, (5, 0), np.inf), (3, 3), -np.inf), Y, None, r"2 values of x .* first is -inf at x\[3, 3\]"),
        (_with(X, (1, 0), 1e300), Y, None, r"1e\+300 at x\[1, 0\]"),
        (X, _with(Y, (4,), np.nan), (), r"1 value of y is not finite .* y\[4\]"),
        (X, _with(Y, (4,), np.nan), NAMES, r"1 value of y is not finite .* y\[4\]"),
        (X, _with(Y, (4,), 0.5), NAMES, r"a class must be an integer; y\[4\] is 0.5. For regression give classes=\(\)"),
        (
            X,
            _with(Y, (4,), 3).astype(int),
            NAMES,
            r"1 label lies outside 0 .. 2 \(3 classes\); the first is 3 at y\[4\]",
        ),
        (X, _with(_with(Y, (4,), -1), (5,), 9).astype(int), NAMES, r"2 labels lie outside .* first is -1 at y\[4\]"),
        (X, -1 - Y, None, "6 labels lie outside 0 .. 0"),
        (X, Y * 10**9, None, "the largest label is 2000000000; is y a class"),
        (X, np.full((6, 3), 1.5), NAMES, r"18 labels lie outside 0 .. 1, .* first is 1.5 at y\[0, 0\]"),
        (X, np.zeros((6, 2)), NAMES, r"with 3 classes y must be \[N\] integers or \[N, 3\] .* found \[6, 2\]"),
        (X, np.zeros((6, 2, 2)), (), r"y must be \[N\] or \[N, K\]; found \[6, 2, 2\]"),
        (X.astype(object), Y, None, "x must hold numbers; found dtype object"),
        (X, np.array(list("abcdef")), None, "y must hold numbers; found dtype <U1"),
        (X.astype(complex), Y, None, "x must hold numbers; found dtype complex128"),
        (X[:, 0], Y, None, r"x must be \[N, ...\] with at least one feature axis; found \[6\]"),
        (X[:, :0], Y, None, r"an example has no values: x is \[6, 0\]"),
        (np.float32(1), Y, None, "found a scalar"),
        ([[1.0], [1.0, 2.0]], Y[:2], None, "x is no rectangular array"),
        (np.full((6, 1), 2**40), Y, None, "do not fit into int32"),
        (X, Y, ("cat", "dog", "cat"), "two classes are called 'cat'"),
        (X, Y, "cat", "classes must be a list of names; found the text 'cat'"),
    ],
)
def test_bad_data_is_refused_with_one_clear_error(x, y, classes, words) -> None:
    with pytest.raises(DataError, match=words) as caught:
        Dataset(x, y, classes, "pets")
    assert str(caught.value).startswith("data set 'pets'")


def test_large_finite_values_are_no_error_although_their_sum_overflows() -> None:
    assert Dataset(np.full((3, 4), 3e38), np.array([0, 1, 0])).x.max() == np.float32(3e38)


def test_take_keeps_classes_and_checks_indices() -> None:
    data = Dataset(X, Y, NAMES, "pets")
    part = data.take(np.array([5, -6], np.uint8 if False else np.int64), "part")
    assert part.y.tolist() == [2, 0]
    assert (part.name, part.classes) == ("part", NAMES)
    np.testing.assert_array_equal(part.x, X[[5, 0]])
    for wrong, words in (([6], "there is none at 6"), ([0.5], "indices must be a list"), ([], "is empty")):
        with pytest.raises(DataError, match=words):
            data.take(wrong)


def test_only_relabels_in_the_order_given() -> None:
    data = Dataset(X, Y, NAMES, "pets")
    part = data.only("dog,cat")
    assert part.classes == ("dog", "cat")
    assert part.y.tolist() == [1, 0, 1, 0]
    np.testing.assert_array_equal(part.x, X[[0, 2, 4, 5]])
    assert data.only([1, "dog"]).classes == ("cow", "dog")
    with pytest.raises(DataError, match="it holds regression"):
        Dataset(X, Y, ()).only("0")
    with pytest.raises(DataError, match="no example of 'dog'"):
        data.take([0, 1]).only("dog")


@pytest.mark.parametrize(
    ("spec", "names", "wanted"),
    [
        ("0-4", "0123456789", [0, 1, 2, 3, 4]),
        ("0,2,5", "0123456789", [0, 2, 5]),
        ("7, 5-6", "56789", [2, 0, 1]),  # numbers are names where all names are numbers
        ([5, "9"], "56789", [0, 4]),
        ("2-1", ("2-1", "3-4"), [0]),  # a name wins over a range
        ("a,b", ("a", "a,b"), [1]),  # and over a list
        ("1-2,a", "abc", [1, 2, 0]),
    ],
)
def test_class_syntax(spec, names, wanted) -> None:
    assert class_indices(spec, tuple(names)) == wanted


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("dgo", "no class 'dgo'; the nearest of the 3 classes: 'dog'"),
        ("3", "no class '3'; the nearest of the 3 classes: 'cat', 'cow', 'dog'"),
        ("0-3", "no class '3'"),
        ("2-0", "runs backwards"),
        ("0,cat", "class 'cat' is chosen twice"),
        (" , ", "no class is chosen"),
        ([], "no class is chosen"),
        ("-1", "no class '-1'"),
    ],
)
def test_wrong_class_syntax_is_explained(spec, words) -> None:
    with pytest.raises(DataError, match=words):
        class_indices(spec, NAMES)


@given(st.data())
def test_only_and_take_commute(data) -> None:
    y = np.array(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=30)))
    whole = Dataset(np.arange(len(y), dtype=np.float32)[:, None], y, tuple("abcde"))
    chosen = data.draw(st.permutations(sorted({"abcde"[i] for i in y})))
    part = whole.only(chosen)
    for x, label in zip(part.x[:, 0].astype(int), part.y):
        assert chosen[label] == "abcde"[y[x]]
    assert part.counts().tolist() == [int((y == "abcde".index(name)).sum()) for name in chosen]


def test_absent_classes_are_named() -> None:
    require_every_class(Dataset(X, Y, NAMES))
    require_every_class(Dataset(X, Y, ()))
    with pytest.raises(DataError, match="'pets' has no example of class 'cat', 'cow', so it cannot be learned"):
        require_every_class(Dataset(X[:2], np.array([2, 2]), NAMES, "pets"))
    many = Dataset(X, Y, tuple(f"c{i}" for i in range(20)))
    with pytest.raises(DataError, match="'c3', 'c4', 'c5', 'c6', 'c7' and 12 more"):
        require_every_class(many)


def test_one_line_tells_the_set() -> None:
    assert Dataset(X, Y, NAMES, "pets").describe() == "pets: 6 examples of 4, 3 classes (2 to 2 each)"
    assert Dataset(X, Y, (), "t").describe() == "t: 6 examples of 4, 1 target (0 to 2)"
    labels = Dataset(X, np.eye(6)[:, :2], ("a", "b"), "m")
    assert labels.describe() == "m: 6 examples of 4, 2 labels (1 to 1 each)"
    with pytest.raises(DataError, match="no classes to count"):
        Dataset(X, Y, ()).counts()


def test_replacing_the_inputs_checks_them_again() -> None:
    with pytest.raises(DataError, match="nan"):
        dataclasses.replace(Dataset(X, Y), x=X * np.nan)
