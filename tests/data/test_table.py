"""Tables with and without headers, and bad ones."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tljax.data import DataError
from tljax.data.table import read_table


@pytest.mark.parametrize(
    ("name", "text", "x", "y", "features"),
    [
        ("a.csv", "a,b,label\n1,2,cat\n3,4.5,dog\n", [[1, 2], [3, 4.5]], ["cat", "dog"], ("a", "b")),
        ("a.csv.gz", "Class,b\n0,2\n1,4\n", [[2], [4]], [0, 1], ("b",)),
        ("a.tsv", "1\t2\tx\n3\t4\ty\n", [[1, 2], [3, 4]], ["x", "y"], ()),
        ("a.csv", "a;b;c\n1;2;3\n", [[1, 2]], [3], ("a", "b")),  # the last column
        ("a.csv", "5.1,3.5,y\n4.9,3.0,n\n", [[5.1, 3.5], [4.9, 3]], ["y", "n"], ()),  # no header
        ("a.csv", "0,1,target\n5,6,cat\n7,8,dog\n", [[5, 6], [7, 8]], ["cat", "dog"], ("0", "1")),
        ("a.csv", ",a,y\n0,5,1\n1,6,0\n", [[5], [6]], [1, 0], ("a",)),  # a data frame's index
        ("a.csv", '"a","y"\r\n"1","p q, r"\r\n\r\n', [[1]], ["p q, r"], ("a",)),
        ("a.csv", "\ufeffy,a\n1,-2e3\n", [[-2000]], [1], ("a",)),  # a byte order mark
    ],
)
def test_tables(files: SimpleNamespace, tmp_path: Path, name: str, text: str, x, y, features) -> None:
    raw = read_table(files.table(tmp_path / name, text))
    np.testing.assert_allclose(raw.x["train"], x, rtol=1e-6)
    assert raw.x["train"].dtype == np.float32
    assert raw.y["train"].tolist() == y
    assert raw.features == features


def test_the_label_column_is_selectable(files: SimpleNamespace, tmp_path: Path) -> None:
    path = files.table(tmp_path / "a.csv", "a,b,y\n1,2,3\n4,5,6\n")
    for label, y in (("a", [1, 4]), (1, [2, 5]), (-1, [3, 6]), ("0", [1, 4]), (None, [3, 6])):
        assert read_table(path, label).y["train"].tolist() == y
    with pytest.raises(DataError, match="has no column 'bb'; the nearest of its 3 columns: 'b'"):
        read_table(path, "bb")
    with pytest.raises(DataError, match="has 3 columns; there is no column 3"):
        read_table(path, 3)
    bare = files.table(tmp_path / "b.csv", "1,2\n3,4\n")
    with pytest.raises(DataError, match="it has no header; give a number"):
        read_table(bare, "label")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("a,b,label\n", "has a header and no rows"),
        ("a,label\n1,0\n2\n", "line 3 has 1 cells, the first has 2"),
        ("a,label\n1,0\nred,1\n", "line 3, column 'a' is 'red'; features must be numbers: fill, encode or drop it"),
        (
            "a,b,label\n1,2,0\n3,nan,1\n",
            "line 3, column 'b' is 'nan'; features must be numbers: fill, encode or drop it",
        ),
        ("a,label\n1e308,0\n-inf,1\n", "line 3, column 'a' is '-inf'; features must be numbers"),
        (
            "a,label\n1,0\nit was good,1\n",
            "is 'it was good'; features must be numbers: sentences are read with .* --weights",
        ),
        ("a,b,label\n1,2,0\n1,,1\n", "line 3, column 'b' is ''"),
        ("a,label\n1,0\n1, \n", "line 3 has no label in column 'label'"),
        ("label\n1\n2\n", "has no features beside its labels"),
    ],
)
def test_bad_tables(files: SimpleNamespace, tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_table(files.table(tmp_path / "a.csv", text))


def test_a_table_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(bytes(range(128, 256)))
    with pytest.raises(DataError, match=r"is no sound table, .* or not in UTF-8 .UnicodeDecodeError"):
        read_table(path)
