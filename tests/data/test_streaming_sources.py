"""What can be streamed: folders, dicts, pairs; and what is said of what cannot."""

from typing import NamedTuple

import numpy as np
import pytest

from tljax.data import DataError, ImageFolder, Preprocessor, in_turn, stream


def test_a_folder_is_decoded_when_asked_for(files, tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    for name in ("a", "b"):
        files.image(tmp_path / "set" / name / "1.png", rgb)
    images = ImageFolder(tmp_path / "set", Preprocessor(resize=(4, 4), mean=(0.5,) * 3, std=(0.5,) * 3))
    assert images.classes == ("a", "b")
    np.testing.assert_array_equal(images[0][0], images.preprocessor(rgb))
    np.testing.assert_array_equal(ImageFolder(tmp_path / "set")[1][0], rgb)
    (tmp_path / "set" / "b" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"set train: example 1: cannot read '.*1.png'"):
        stream(images).examples([0, 1])
    with pytest.raises(DataError, match="has no part 'test'"):
        ImageFolder(tmp_path / "set", part="test")


def test_dicts_by_key():
    rows = [{"img": np.full((2, 2, 1), i, np.uint8), "label": i % 2} for i in range(4)]
    batch = stream(rows, x="img").examples([3])
    np.testing.assert_array_equal(batch.x, np.full((1, 2, 2, 1), 3 / 255, np.float32))
    assert batch.y.tolist() == [1]
    several = stream(rows, x=("img", "label"), y=None).examples([3])
    assert (sorted(several.x), several.y) == (["img", "label"], None)
    pairs = [(row["img"], row["label"]) for row in rows]
    without = stream(pairs, y=None).examples([3])
    np.testing.assert_array_equal(without.x, batch.x)
    assert without.y is None
    numbers = stream([np.array([1.0, 2.0]), [3.0, 4.0]], y=None).examples([0, 1])
    assert numbers.x.tolist() == [[1, 2], [3, 4]]
    with pytest.raises(DataError, match=r"example 0: has no key 'image', only 'img', 'label'; write stream\(..., x="):
        stream(rows).examples([0])


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("RGB", 3), ("RGBA", 3), ("P", 3)])
def test_pictures_are_grey_or_of_three_colours(mode, channels):
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    picture = image.fromarray(pixels).convert(mode)
    batch = stream([(picture, 1)]).examples([0])
    back = np.asarray(picture.convert("L" if channels == 1 else "RGB"), np.float32).reshape(1, 4, 5, channels) / 255
    np.testing.assert_allclose(batch.x, back, atol=1e-6)


def test_items_with_x_and_y():
    class Item(NamedTuple):
        name: str
        x: np.ndarray
        y: int

    items = [Item("a", np.float32([1, 2]), 0), Item("b", np.float32([3, 4]), 1)]
    batch = stream(items).examples([1])
    assert (batch.x.tolist(), batch.y.tolist()) == ([[3, 4]], [1])
    with pytest.raises(DataError, match=r"should be a pair \(x, y\), a dict, or have .x and .y; found float"):
        stream([1.0]).examples([0])


def test_what_cannot_be_streamed():
    with pytest.raises(DataError, match="needs a source with len"):
        stream(iter([1]))
    with pytest.raises(DataError, match="is empty"):
        stream([])
    with pytest.raises(DataError, match="holds 2 examples; subset goes from 0 to 5"):
        stream([(1.0, 0), (2.0, 1)], subset=[0, 5])
    with pytest.raises(DataError, match="workers is a number of processes, 0 or more; found -1"):
        stream([(1.0, 0)], workers=-1)
    with pytest.raises(DataError, match=r"subset must be a list of indices; found float64 \[1\]"):
        stream([(1.0, 0)], subset=[0.5])
    with pytest.raises(DataError, match=r"lies outside 0 \.\. 1"):
        stream([(1.0, 2)], classes=("a", "b")).example(0)
    with pytest.raises(DataError, match="those of a batch must be alike"):
        stream([(np.ones(2), 0), (np.ones(3), 0)]).examples([0, 1])


def test_in_turn_gives_every_example_once():
    with in_turn(stream([(float(i), i) for i in range(7)]), 3) as batches:
        found = [batch.y[batch.weight > 0] for batch in batches]
    assert np.concatenate(found).tolist() == list(range(7))
