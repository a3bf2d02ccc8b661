"""What labels found in a file stand for."""

import numpy as np
import pytest

from tljax.data import DataError
from tljax.data.labels import read_labels


def _read(train, **keywords):
    labels = read_labels({"train": np.asarray(train)}, **keywords)
    return labels.y["train"].tolist(), labels.classes


def test_text_in_natural_order() -> None:
    assert _read(["c10", "c2", "c10", "c1"]) == ([2, 1, 2, 0], ("c1", "c2", "c10"))
    assert _read(np.array([b"b", b"a"])) == ([1, 0], ("a", "b"))
    assert _read(["b", "a"], classes=("b", "a")) == ([0, 1], ("b", "a"))


def test_integers_are_classes_named_by_their_value() -> None:
    assert _read([3, 7, 3]) == ([0, 1, 0], ("3", "7"))
    assert _read(np.array([[10], [2]], np.uint8)) == ([1, 0], ("2", "10"))
    assert _read([True, False]) == ([1, 0], ("0", "1"))
    assert _read([1, 0], classes=("cat", "dog")) == ([1, 0], ("cat", "dog"))


def test_floats_are_targets_unless_whole_and_few() -> None:
    assert _read([0.5, 1.5]) == ([0.5, 1.5], ())
    assert _read([2.0, 1.0, 2.0]) == ([1, 0, 1], ("1", "2"))
    assert _read([-1.0, 1.0]) == ([0, 1], ("-1", "1"))
    many = np.arange(100.0)
    assert _read(many) == (many.tolist(), ())
    assert _read(many, task="classification")[1] == tuple(map(str, range(100)))
    assert _read([2.0, 1.0], task="regression") == ([2.0, 1.0], ())
    assert _read([2, 1], task="regression") == ([2.0, 1.0], ())


def test_rows_of_labels() -> None:
    assert _read(np.eye(3)[[2, 0]]) == ([2, 0], ("0", "1", "2"))  # one-hot
    assert _read([[1, 1, 0], [0, 0, 0]]) == ([[1, 1, 0], [0, 0, 0]], ("0", "1", "2"))
    assert _read([[0.25, 0.75]], classes=("a", "b")) == ([[0.25, 0.75]], ("a", "b"))
    assert _read([[0.25, 7.5]]) == ([[0.25, 7.5]], ())
    assert _read(np.eye(3), task="regression")[1] == ()


def test_every_choice_is_noted() -> None:
    assert "regression targets" in read_labels({"train": np.array([0.5])}).note
    assert "classes" in read_labels({"train": np.array([0.0, 1.0])}).note
    assert read_labels({"train": np.array([0.0, 1.0])}, task="classification").note == ""


@pytest.mark.parametrize(
    ("train", "keywords", "words"),
    [
        ([0, -1, 1], {}, "where: classes must be 0 or more; label 1 is -1"),
        ([0.0, np.nan], {}, "1 labels are NaN or infinite; the first is label 1"),
        ([0.5, 1.0], {"task": "classification"}, "classes must be whole numbers or text; a label is 0.5"),
        (["a", "b"], {"task": "regression"}, "regression needs numbers; the first label is 'a'"),
        (["a", "c"], {"classes": ("a", "b")}, r"labels that the list of 2 classes lacks: \['c'\]"),
        ([f"sentence {i}" for i in range(30)], {}, "30 different labels in 30 examples, such as 'sentence 0'"),
        (np.zeros((2, 2, 2)), {}, r"labels must be \[N\] or \[N, C\]"),
        ([["a", "b"]], {}, "text labels must be"),
        ([[0.5, 1]], {"task": "classification"}, "must be zeros and ones"),
        (np.array([1, 2], object), {}, "found dtype object"),
        (np.eye(3), {"classes": ("a", "b")}, "3 label columns but 2 class names"),
        (np.zeros(0, int), {}, "the training part is empty"),
        ([0], {"task": "ranking"}, "task is 'classification' or 'regression'; found 'ranking'"),
    ],
)
def test_what_no_label_can_be(train, keywords, words) -> None:
    with pytest.raises(DataError, match=words):
        read_labels({"train": np.asarray(train)}, where="where", **keywords)


def test_parts_share_the_classes_of_the_training_part() -> None:
    labels = read_labels({"train": np.array(["a", "b"]), "test": np.array(["b"])})
    assert labels.y["test"].tolist() == [1]
    with pytest.raises(DataError, match=r"the test part has labels that the training part lacks: \['c'\]"):
        read_labels({"train": np.array(["a", "b"]), "test": np.array(["c"])})
    with pytest.raises(DataError, match=r"the test part has labels that the training part lacks: \[2.0, 9.0\]"):
        read_labels({"train": np.array([0.0, 1.0]), "test": np.array([9.0, 2.0])})
    with pytest.raises(DataError, match=r"alike in every part; found train \[2\], test \[2, 2\]"):
        read_labels({"train": np.array([0, 1]), "test": np.eye(2)})
