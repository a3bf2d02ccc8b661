"""Files of the other parts beside a file of training data."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tljax.data import DataError, load
from tljax.data.files import siblings


def test_siblings(tmp_path: Path) -> None:
    for name in (
        "mnist_train.npz",
        "mnist_test.npz",
        "train.csv",
        "val.csv",
        "TRAIN-b.csv",
        "strained.csv",
        "stested.csv",
    ):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "test-B.csv").write_bytes(b"")
    assert siblings(tmp_path / "mnist_train.npz") == {"test": tmp_path / "mnist_test.npz"}
    assert siblings(tmp_path / "train.csv") == {"valid": tmp_path / "val.csv"}
    assert siblings(tmp_path / "TRAIN-b.csv") == {"test": tmp_path / "test-B.csv"}
    assert siblings(tmp_path / "mnist_test.npz") == {}
    assert siblings(tmp_path / "strained.csv") == {}


def test_siblings_must_agree(files: SimpleNamespace, tmp_path: Path) -> None:
    files.table(tmp_path / "train.csv", "a,b,y\n1,2,p\n3,4,q\n")
    files.table(tmp_path / "test.csv", "a,b,y\n5,6,q\n")
    source = load(tmp_path / "train.csv")
    assert source.test.x.tolist() == [[5, 6]]
    assert source.test.y.tolist() == [1]
    files.table(tmp_path / "test.csv", "b,a,y\n5,6,q\n")
    with pytest.raises(DataError, match=r"test.csv' looks like the test part of 'train.csv', but its columns"):
        load(tmp_path / "train.csv")
    files.table(tmp_path / "test.csv", "a,b,y\n5,6,r\n")
    with pytest.raises(DataError, match=r"the test part has labels that the training part lacks: \['r'\]"):
        load(tmp_path / "train.csv")
