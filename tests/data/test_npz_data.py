"""Data sets in npz files."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tljax.data import DataError, Preprocessor, load, load_whole
from tljax.data.npz import read_npz


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (("x", "y"), {"train"}),
        (("X", "Y"), {"train"}),
        (("images", "labels"), {"train"}),
        (("data", "target"), {"train"}),
        (("train_x", "train_y", "test_x", "test_y"), {"train", "test"}),
        (("x_train", "y_train", "x_test", "y_test"), {"train", "test"}),
        (("X_train", "Y_train", "X_val", "Y_val"), {"train", "valid"}),
        (("train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels"), None),
    ],
)
def test_npz_names(files: SimpleNamespace, tmp_path: Path, names: tuple[str, ...], parts: set[str] | None) -> None:
    arrays = {name: files.pixels if i % 2 == 0 else files.labels for i, name in enumerate(names)}
    np.savez(tmp_path / "set.npz", **arrays, other=np.zeros(3))
    raw = read_npz(tmp_path / "set.npz")
    assert set(raw.x) == set(raw.y) == (parts or {"train", "valid", "test"})
    np.testing.assert_array_equal(raw.x["train"], files.pixels)
    np.testing.assert_array_equal(raw.y["train"], files.labels)


def test_npz_classes_and_groups(files: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    classes = np.array([b"p", b"q", b"r"])
    np.savez_compressed(
        path, a_x=files.pixels, a_y=files.labels, b_x=files.pixels + 1, b_y=files.labels, classes=classes
    )
    assert read_npz(path, "b").classes == ("p", "q", "r")
    assert load(f"{path}#b").name == "set#b"
    with pytest.raises(DataError, match=r"holds several groups, 'a', 'b'; choose one by writing '#a'"):
        load(path)
    with pytest.raises(DataError, match="holds no arrays 'c_x' and 'c_y'; groups in it: 'a', 'b'"):
        load(f"{path}#c")
    np.savez_compressed(path, train_y=files.labels, test_x=files.pixels, test_y=files.labels)
    with pytest.raises(DataError, match="holds 'train_y' without inputs, which are called train_x"):
        load(path)


def test_npz_that_is_no_data_set(files: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, weights=files.pixels, y=files.labels)
    with pytest.raises(
        DataError, match=r"no pair of inputs and labels; its arrays are 'weights', 'y'. Call them x and y"
    ):
        read_npz(path)
    np.savez(path, x=np.array([[1], [1, 2]], object), y=files.labels[:2])
    with pytest.raises(
        DataError, match="array 'x' holds pickled objects, which are not read because they can run code"
    ):
        read_npz(path)
    np.savez(path, x=files.pixels, y=files.labels, classes=np.zeros((2, 2)))
    with pytest.raises(DataError, match="'classes' must be a list of names"):
        read_npz(path)
    with open(path, "wb") as file:
        np.save(file, files.pixels)
    with pytest.raises(DataError, match="holds a single array"):
        read_npz(path)


def test_images_to_be_prepared_are_bytes_or_from_0_to_1(tmp_path: Path) -> None:
    x, y = np.arange(8 * 16).reshape(8, 4, 4) % 256, np.arange(8) % 2
    for name, images in (("bytes", x.astype("uint8")), ("floats", x / 255), ("wide", x.astype("float32")), ("ints", x)):
        np.savez(tmp_path / f"{name}.npz", x=images, y=y)
    prepare = Preprocessor(resize=4)
    bytes_, floats = (load_whole(tmp_path / f"{name}.npz", prepare=prepare) for name in ("bytes", "floats"))
    np.testing.assert_allclose(bytes_.x, floats.x)
    for name, found in (("wide", "float32 from 0 to 127"), ("ints", "int64 from 0 to 127")):
        with pytest.raises(DataError, match=f"'{name}' has images of {found}; .*must be bytes"):
            load_whole(tmp_path / f"{name}.npz", prepare=prepare)
