"""MNIST's file format."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tljax.data import DataError, load
from tljax.data.idx import read_idx, read_idx_array


@pytest.mark.parametrize(("packed", "dot"), [(False, "-"), (True, "-"), (False, ".")])
def test_idx_folder_and_file(files: SimpleNamespace, tmp_path: Path, packed: bool, dot: str) -> None:
    folder = files.mnist(tmp_path, packed, dot)
    images = folder / f"train-images{dot}idx3-ubyte{'.gz' if packed else ''}"
    for spec in (folder, images):
        source = load(spec)
        np.testing.assert_allclose(source.train.x[..., 0], files.pixels / np.float32(255), rtol=1e-6)
        assert source.train.y.tolist() == files.labels.tolist()
        assert source.test.x.shape == (6, 5, 4, 1)
        assert source.notes == (f"test part: {images.name.replace('train', 't10k')}",)


@pytest.mark.parametrize(
    ("code", "dtype"), [(8, "u1"), (9, "i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")]
)
def test_idx_types(files: SimpleNamespace, tmp_path: Path, code: int, dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    (tmp_path / "a").write_bytes(files.idx(array, code))
    found = read_idx_array(tmp_path / "a")
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("=")


def test_idx_mistakes(files: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(files.idx(files.pixels))
    with pytest.raises(DataError, match="has no labels: there is no 'train-labels-idx1-ubyte' or"):
        read_idx(path)
    files.mnist(tmp_path, False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(files.idx(files.labels[:7]))
    with pytest.raises(DataError, match="x holds 12 examples and y 7 labels"):
        load(tmp_path)
    with pytest.raises(DataError, match="is no file of images; give the file with 'images' in its name"):
        load(tmp_path / "train-labels-idx1-ubyte")
    (tmp_path / "emnist-train-images-idx3-ubyte").write_bytes(files.idx(files.pixels))
    with pytest.raises(DataError, match="holds several files of images"):
        load(tmp_path)
    path.write_bytes(files.idx(files.pixels) + b"!")
    with pytest.raises(DataError, match=r"is damaged: its header says .* 256 bytes with the header; found 257"):
        read_idx_array(path)
    for content, begins in ((b"", "nothing"), (b"\x89PNG....", "89 50 4e 47"), (b"\0\0\x07\x01", "00 00 07 01")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"is no idx file: it begins with {begins}"):
            read_idx_array(path)
