"""Examples without labels: images in any folder, arrays, tables, sentences."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from word_tokenizer import TOKENIZER

from tljax.data import DataError, Preprocessor, Unlabelled, load, load_texts, load_unlabelled


def test_images_anywhere_below_a_folder(files: SimpleNamespace, tmp_path: Path) -> None:
    for i, name in enumerate(("10.png", "2.png", "new/1.bmp", "new/deep/3.png")):
        files.image(tmp_path / name, files.pixels[i])
    for name in (".hidden.png", ".cache/1.png", "__MACOSX/1.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no image")
    data = load_unlabelled(tmp_path)
    assert data.names == ("2.png", "10.png", "new/1.bmp", "new/deep/3.png")
    np.testing.assert_allclose(data.x[..., 0], files.pixels[[1, 0, 2, 3]] / np.float32(255), rtol=1e-6)
    (tmp_path / "new" / "damaged.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"damaged\.png"):
        load_unlabelled(tmp_path)


def test_images_are_those_of_the_reader_with_labels(files: SimpleNamespace, tmp_path: Path) -> None:
    for i in range(6):
        size = (slice(None), slice(0, 3 if i == 5 else None))
        files.image(tmp_path / "ab"[i % 2] / f"{i}.png", files.pixels[i][size])
    for options in ({}, {"size": 7}, {"prepare": Preprocessor(resize=(6, 6), mean=(0.5,) * 3, std=(0.5,) * 3)}):
        with_labels = load(tmp_path, test_fraction=0.5, **options)
        without = load_unlabelled(tmp_path, **options)
        both = np.concatenate([with_labels.train.x, with_labels.test.x])
        assert without.x.dtype == both.dtype
        np.testing.assert_array_equal(np.sort(without.x.sum((1, 2, 3))), np.sort(both.sum((1, 2, 3))))
    assert load_unlabelled(tmp_path).notes == ("1 of 6 images were resized to 5x4, the most common size",)
    with pytest.raises(DataError, match=r"5.png' becomes \[10, 6, 3\], and .*/0.png' \[7, 6, 3\]"):
        load_unlabelled(tmp_path, prepare=Preprocessor(resize=6))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        load_unlabelled(tmp_path / "empty")


def test_idx_files_without_labels(files: SimpleNamespace, tmp_path: Path) -> None:
    files.mnist(tmp_path, packed=True)
    for name in ("train-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        (tmp_path / name).unlink()
    with pytest.raises(DataError, match="has no labels"):
        load(tmp_path)
    data = load_unlabelled(tmp_path)
    assert len(data) == 18
    assert data.names[0] == "t10k-images-idx3-ubyte.gz[0]"
    alone = load_unlabelled(tmp_path / "train-images-idx3-ubyte.gz")
    np.testing.assert_array_equal(alone.x, data.x[6:])


def test_arrays_of_all_parts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 2)), rng.normal(size=(4, 2))
    file = tmp_path / "a.npz"
    np.savez(file, train_x=a, train_y=np.arange(3), X_test=b, new_x=b[:1])
    data = load_unlabelled(file)
    np.testing.assert_array_equal(data.x, np.concatenate([a, b]).astype(np.float32))
    np.savez(tmp_path / "b.npz", train_x=np.full((1, 4, 4), 51, np.uint8), test_x=np.full((1, 4, 4), 0.2), x=a)
    np.testing.assert_allclose(load_unlabelled(tmp_path / "b.npz").x, np.full((2, 4, 4, 1), 0.2), rtol=1e-6)
    assert data.names == ("train_x[0]", "train_x[1]", "train_x[2]", *(f"X_test[{i}]" for i in range(4)))
    assert load_unlabelled(f"{file}#new").names == ("new_x[0]",)
    np.savez(file, images=np.zeros((2, 4, 4), np.uint8))
    assert load_unlabelled(file).x.shape == (2, 4, 4, 1)
    with pytest.raises(DataError, match=r"cannot read .*train_x|no pair of inputs and labels"):
        load(file)


@pytest.mark.parametrize(
    ("arrays", "group", "message"),
    [
        ({"y": np.arange(3)}, "", "holds no inputs; its arrays are 'y'. Call them x"),
        ({"x": np.zeros((2, 3))}, "#old", "holds no array 'old_x'; its arrays are 'x'"),
        ({"train_x": np.zeros((2, 3)), "test_x": np.zeros((2, 4))}, "", r"several shapes: \[\[3\], \[4\]\]"),
        ({"x": np.array([{}], object)}, "", "pickled objects"),
        ({"x": np.zeros((0, 3))}, "", r"1 or more; found \[0, 3\]"),
        ({"x": np.array([[1.0], [np.nan]])}, "", "not finite"),
        ({"x": np.zeros((2, 3, 8, 8))}, "", "channels first"),
        ({"x": np.array(3.0)}, "", "a single number where examples should be"),
        ({"x": np.array([["a"]])}, "", "must hold numbers"),
    ],
)
def test_arrays_that_cannot_be_used(arrays, group, message, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load_unlabelled(f"{tmp_path / 'a.npz'}{group}")


def test_a_table_without_labels(files: SimpleNamespace, tmp_path: Path) -> None:
    file = files.table(tmp_path / "a.csv", ",b,a,label,id\n0,1,2,x,7\n1,3,4,,8\n")
    data = load_unlabelled(file, features=("a", "b"))
    np.testing.assert_array_equal(data.x, [[2, 1], [4, 3]])
    assert data.names == ("row 1", "row 2")
    left = "columns that were left out: 'the one without a name', 'label', 'id'"
    assert data.notes == ("columns were brought to the order asked for", left)
    np.testing.assert_array_equal(load_unlabelled(file).x, [[1, 2, 7], [3, 4, 8]])
    with pytest.raises(DataError, match=r"lacks the columns 'c'; it has '', 'b', 'a'"):
        load_unlabelled(file, features=("a", "c"))
    plain = files.table(tmp_path / "b.tsv", "1\t2\n3\t4\n")
    np.testing.assert_array_equal(load_unlabelled(plain, features=("a", "b")).x, [[1, 2], [3, 4]])
    with pytest.raises(DataError, match="line 2, column 'a' is 'x'"):
        load_unlabelled(files.table(tmp_path / "c.csv", "a\nx\n"))
    twice = files.table(tmp_path / "d.csv", "a,b,a\n1,2,3\n")
    np.testing.assert_array_equal(load_unlabelled(twice, features=("a", "b", "a")).x, [[1, 2, 3]])
    with pytest.raises(DataError, match=r"d.csv' has several called 'a'"):
        load_unlabelled(twice, features=("b", "a"))
    with pytest.raises(DataError, match="the source has several called 'a'"):
        load_unlabelled(file, features=("a", "b", "a"))


@pytest.mark.parametrize(
    ("name", "text", "texts"),
    [
        ("a.txt", "a joy\nvery dull\n", ("a joy", "very dull")),
        ("a.tsv", "text\na joy\n", ("a joy",)),
        ("a.tsv", "1\ta joy\n0\tdull\n", ("a joy", "dull")),
        ("a.csv", "tweet,label\na joy,1\n", ("a joy",)),
        ("a.csv", 'id,stars,review\n1,5,"a joy, really"\n', ("a joy, really",)),
    ],
)
def test_sentences_without_labels(name, text, texts, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    data = load_texts(tmp_path / name, TOKENIZER)
    assert data.x["mask"].sum(1).tolist() == [len(sentence.split()) for sentence in texts]
    assert data.x["mask"].shape[1] == 16
    assert data.names[0] == "sentence 1"
    assert load_texts(tmp_path / name, TOKENIZER, length=2).x["ids"].shape == (len(texts), 2)
    assert data.take([0]).describe() == "a: 1 sentences of up to 16 tokens, without labels"


def test_sentences_that_cannot_be_told(tmp_path: Path) -> None:
    for text, message in (
        ("1\tx\tjoy\n", "3 columns: '1', 'x', 'joy'; say which has the sentences"),
        ("joy\n\ndull\ta\n", "line 3 has 2 cells; expected 1, as in the first line"),
        ("text\n", "has no sentences"),
        ("", "has no sentences"),
    ):
        (tmp_path / "a.tsv").write_text(text)
        with pytest.raises(DataError, match=message):
            load_texts(tmp_path / "a.tsv", TOKENIZER)
    (tmp_path / "a.tsv").write_text("what\tid\njoy\t1\n")
    found = load_texts(tmp_path / "a.tsv", TOKENIZER, text="What")
    assert found.names == ("sentence 1",)
    assert found.notes[0] == "sentences from column 'what'"
    (tmp_path / "a.tsv").write_text("a joy\ndull\n")  # a name that the other domain needs
    assert load_texts(tmp_path / "a.tsv", TOKENIZER, text="What").notes[0] == "one sentence a line"


def test_what_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    for spec, message in (
        ("nowhere", "no file or folder"),
        ("", "no data set is named"),
        (tmp_path / "a.png", "give the folder that it is in"),
        (f"{tmp_path}#x", "chooses arrays of an npz file"),
    ):
        with pytest.raises(DataError, match=message):
            load_unlabelled(spec)
    with pytest.raises(DataError, match="there is none at 2"):
        Unlabelled(np.zeros((2, 1)), ("a", "b")).take([0, 2])
    with pytest.raises(DataError, match="is empty"):
        Unlabelled({"mask": np.zeros((0, 4))}, ())
    with pytest.raises(DataError, match=r"3 names of \[2\] examples"):
        Unlabelled(np.zeros((2, 1)), ("a", "b", "c"))
