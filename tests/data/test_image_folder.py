"""Folders of images: classes, parts, modes, sizes."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tljax.data import DataError, ImageFolder, Preprocessor, load
from tljax.data.folder import read_folder

RNG = np.random.default_rng(0)


def test_folder_of_grey_images(files: SimpleNamespace, tmp_path: Path) -> None:
    for i in range(12):
        files.image(tmp_path / f"class{(10, 2, 1)[i % 3]}" / f"{i}.png", files.pixels[i])
    (tmp_path / "class1" / ".hidden.png").write_bytes(b"")
    (tmp_path / "class1" / "Thumbs.db").write_bytes(b"no image")
    (tmp_path / ".git").mkdir()
    raw = read_folder(tmp_path)
    assert raw.classes == ("class1", "class2", "class10")
    assert raw.y["train"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    np.testing.assert_array_equal(raw.x["train"][..., 0], files.pixels[[2, 5, 8, 11, 1, 4, 7, 10, 0, 3, 6, 9]])
    assert raw.notes == ()


def test_folder_with_parts_colour_and_sizes(files: SimpleNamespace, tmp_path: Path) -> None:
    rgb = RNG.integers(0, 256, (5, 4, 3), np.uint8)
    for split in ("train", "val", "test"):
        for name in ("a", "b"):
            files.image(tmp_path / split / name / "1.png", rgb)
            files.image(tmp_path / split / name / "2.bmp", files.pixels[0])
    files.image(tmp_path / "train" / "a" / "3.png", np.zeros((9, 9), np.uint8))
    files.image(tmp_path / "extra" / "x" / "1.png", rgb)
    raw = read_folder(tmp_path)
    assert set(raw.x) == {"train", "valid", "test"}
    assert raw.x["train"].shape == (5, 5, 4, 3)
    np.testing.assert_array_equal(raw.x["test"][0], rgb)
    np.testing.assert_array_equal(raw.x["test"][1], np.repeat(files.pixels[0][..., None], 3, 2))
    assert raw.notes[0] == "1 of 13 images were resized to 5x4, the most common size"
    assert raw.notes[1] == "7 of 13 images are grey and were read as RGB"
    assert "folders were ignored: 'extra'" in raw.notes[2]
    source = load(tmp_path, size=(3, 7))
    assert source.train.x.shape == (5, 3, 7, 3)
    assert source.valid is not None
    assert "13 of 13 images were resized to 3x7, the size that is wanted" in source.notes


def test_pixels_of_unusual_modes(files: SimpleNamespace, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    deep = (files.pixels[0].astype(np.uint16) * 257).astype(np.uint16)  # 16 bits
    files.image(tmp_path / "deep" / "1.png", deep)
    files.image(tmp_path / "grey" / "1.png", files.pixels[0])
    np.testing.assert_array_equal(*read_folder(tmp_path).x["train"])
    rgb = RNG.integers(0, 256, (5, 4, 3), np.uint8)
    files.image(tmp_path / "grey" / "2.png", np.dstack([rgb, np.full((5, 4), 7, np.uint8)]))  # with transparency
    np.testing.assert_array_equal(read_folder(tmp_path).x["train"][2], rgb)
    palette = image.fromarray(rgb).quantize(4)
    palette.save(tmp_path / "grey" / "3.png", transparency=1)
    raw = read_folder(tmp_path)
    np.testing.assert_array_equal(raw.x["train"][3], np.asarray(palette.convert("RGB")))
    assert raw.notes[1:] == (
        "1 of 4 images have 16 bits a pixel and were read as 8, 65535 as 255",
        "2 of 4 images have an alpha channel, which was not read",
    )


@pytest.mark.parametrize(("dtype", "kind"), [(np.float32, "floats"), (np.int32, "integers of 32 bits")])
def test_pixels_whose_scale_is_not_known(dtype: type, kind: str, files: SimpleNamespace, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    files.image(tmp_path / "a" / "1.png", files.pixels[0])
    (tmp_path / "b").mkdir()
    image.fromarray(np.arange(20, dtype=dtype).reshape(5, 4)).save(tmp_path / "b" / "1.tif")
    with pytest.raises(DataError, match=rf"the pixels of '.*1\.tif' are {kind}, here from 0 to 19; .* npz file"):
        read_folder(tmp_path)


def test_pictures_stand_upright(files: SimpleNamespace, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    exif = image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    turned = np.rot90(files.pixels[0]).copy()
    files.image(tmp_path / "a" / "1.png", turned, exif=exif)
    files.image(tmp_path / "b" / "1.png", files.pixels[0])
    raw = read_folder(tmp_path)
    assert raw.notes == ()
    np.testing.assert_array_equal(*raw.x["train"])


def test_a_class_may_be_called_train(files: SimpleNamespace, tmp_path: Path) -> None:
    for name in ("car", "train"):
        files.image(tmp_path / name / "1.png", files.pixels[0])
    assert read_folder(tmp_path).classes == ("car", "train")


def test_a_folder_is_prepared_as_a_model_wants_it(files: SimpleNamespace, tmp_path: Path) -> None:
    for i in range(12):
        size = (9 + i % 3, 8, 3)
        files.image(tmp_path / "abc"[i % 3] / f"{i}.png", RNG.integers(0, 256, size, np.uint8))
    preprocessor = Preprocessor(resize=8, crop=(6, 6), mean=(0.5,) * 3, std=(0.25,) * 3)
    source, images = load(tmp_path, prepare=preprocessor), ImageFolder(tmp_path, preprocessor)
    assert source.train.x.shape[1:] == (6, 6, 3)
    pairs = [pair for part in (source.train, source.test) for pair in zip(part.x, part.y)]
    assert sorted((x.tobytes(), y) for x, y in pairs) == sorted((x.tobytes(), y) for x, y in images)


def test_bad_folders(files: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither a folder of images per class nor idx files; .* Entries: none"):
        load(tmp_path)
    files.image(tmp_path / "set" / "a" / "1.png", files.pixels[0])
    with pytest.raises(DataError, match="has a single class, 'a': nothing to learn"):
        load(tmp_path / "set")
    (tmp_path / "set" / "b").mkdir()
    with pytest.raises(DataError, match=r"class folder '.*b' holds no images \(.png"):
        load(tmp_path / "set")
    for split, name in (("train", "a"), ("test", "c")):
        files.image(tmp_path / "two" / split / name / "1.png", files.pixels[0])
    with pytest.raises(DataError, match="test' holds classes that the training part lacks: 'c'"):
        load(tmp_path / "two")
