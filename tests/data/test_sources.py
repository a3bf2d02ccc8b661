"""`load`: the built-in sets, the held-out part, and what is asked for wrongly."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tljax.data import DataError, load, load_whole

X = np.random.default_rng(0).integers(0, 256, (30, 6, 5), np.uint8)
Y = np.tile(np.arange(3), 10)


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    np.savez(tmp_path / "set.npz", x=X, y=Y)
    return tmp_path / "set.npz"


@pytest.mark.parametrize("name", ["digits", "wine", "breast_cancer", "diabetes"])
def test_built_in_sets_are_those_of_scikit_learn(name: str) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    source = load(name)
    assert len(source.train) + len(source.test) == len(x)
    found = np.concatenate([part.x.reshape(len(part), -1) for part in (source.train, source.test)])
    scale = 16 if name == "digits" else 1
    key = lambda a: np.sort(a.astype(np.float32).sum(1))  # noqa: E731
    np.testing.assert_allclose(key(found * np.float32(scale)), key(x), rtol=1e-4, atol=1e-5)
    labels = np.concatenate([source.train.y, source.test.y])
    np.testing.assert_allclose(np.sort(labels), np.sort(y))


def test_digits() -> None:
    source = load("digits")
    assert source.train.x.shape[1:] == (8, 8, 1)
    assert source.train.x.dtype == np.float32
    assert (source.train.x.min(), source.train.x.max()) == (0, 1)
    assert source.train.classes == tuple("0123456789")
    assert source.notes == ("test part: 20 % of the examples, held out, stratified with seed 0",)


def test_without_scikit_learn_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DataError, match=r"'digits' comes with scikit-learn: pip install 'tljax\[demo\]'"):
        load("digits")


def test_without_pillow_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"read with Pillow: pip install 'tljax\[data\]'"):
        load(tmp_path)


def test_a_test_part_is_held_out_by_a_fixed_seed(npz: Path) -> None:
    source = load(npz)
    assert (len(source.train), len(source.test)) == (24, 6)
    assert source.test.counts().tolist() == [2, 2, 2]
    everything = np.concatenate([source.train.x, source.test.x])[..., 0]
    order = np.lexsort(everything.reshape(30, -1).T)
    np.testing.assert_allclose(everything[order], X[np.lexsort(X.reshape(30, -1).T)] / np.float32(255), rtol=1e-6)
    np.testing.assert_array_equal(load(npz).test.x, source.test.x)
    assert not np.array_equal(load(npz, seed=1).test.x, source.test.x)
    assert len(load(npz, test_fraction=0.5).test) == 15


def test_the_file_s_own_parts_are_kept(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", train_x=X, train_y=Y, test_x=X[:3], test_y=Y[:3], val_x=X[3:5], val_y=Y[3:5])
    source = load(str(tmp_path / "a.npz"))
    assert (len(source.train), len(source.test)) == (30, 3)
    assert source.valid is not None
    assert len(source.valid) == 2
    assert source.notes == ()
    assert source.describe().splitlines()[1] == "a valid: 2 examples of 6x5x1, 3 classes (0 to 1 each)"
    part = source.map(lambda d: d.only("0,1"))
    assert part.test.y.tolist() == [0, 1]
    assert part.valid is not None
    assert part.valid.classes == ("0", "1")


def test_images_get_a_channel_axis_and_the_size_asked_for(npz: Path, tmp_path: Path) -> None:
    assert load(npz, size=4).train.x.shape == (24, 4, 4, 1)
    np.savez(tmp_path / "rgb.npz", x=np.repeat(X[..., None], 3, 3), y=Y)
    assert load(tmp_path / "rgb.npz", size=(3, 7)).train.x.shape == (24, 3, 7, 3)
    np.savez(tmp_path / "first.npz", x=np.repeat(X[:, None], 3, 1), y=Y)
    with pytest.raises(DataError, match=r"\[30, 3, 6, 5\] has the channels first. Write x.transpose\(0, 2, 3, 1\)"):
        load(tmp_path / "first.npz")
    np.savez(tmp_path / "flat.npz", x=X.reshape(30, -1).astype(int), y=Y)
    flat = load(tmp_path / "flat.npz").train.x
    assert (flat.shape, flat.dtype, flat.max()) == ((24, 30), np.float32, 255)  # only uint8 are pixels
    with pytest.raises(DataError, match="holds no images"):
        load(tmp_path / "flat.npz", size=4)


def test_what_is_evaluated_on_may_be_little(tmp_path: Path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    names = np.array([*"abacab"])
    np.savez(tmp_path / "a.npz", train_x=x[:4], train_y=names[:4], test_x=x[4:], test_y=names[4:])
    whole = load_whole(tmp_path / "a.npz")
    np.testing.assert_array_equal(whole.x, x)
    assert [whole.classes[i] for i in whole.y] == names.tolist()
    np.savez(tmp_path / "one.npz", x=x[:1], y=names[:1])
    with pytest.raises(DataError, match="single class"):
        load(tmp_path / "one.npz")
    assert load_whole(tmp_path / "one.npz").classes == ("a",)
    (tmp_path / "t.csv").write_text("id,q,p,label\nA1,1,2,a\n")
    np.testing.assert_array_equal(load_whole(tmp_path / "t.csv", features=("p", "q")).x, [[2, 1]])
    (tmp_path / "m.csv").write_text("q,mood,p\n1,a,2\n")
    assert load_whole(tmp_path / "m.csv", features=("p", "q")).classes == ("a",)
    (tmp_path / "n.csv").write_text("q,p\n1,2\n")
    with pytest.raises(DataError, match="has no labels beside the features asked for: 'q', 'p'"):
        load_whole(tmp_path / "n.csv", features=("q", "p"))
    with pytest.raises(DataError, match="lacks the columns 'r'"):
        load_whole(tmp_path / "t.csv", features=("p", "r"))
    with pytest.raises(DataError, match="size is a number"):
        load_whole("digits", size=0)


def test_regression_from_a_table(tmp_path: Path) -> None:
    path = tmp_path / "houses.csv"
    path.write_text("rooms,price\n" + "".join(f"{i % 5},{i * 1.5}\n" for i in range(40)))
    source = load(path)
    assert source.train.task == "regression"
    assert (len(source.train), len(source.test)) == (32, 8)
    assert source.notes[:2] == ("labels from column 'price'", "labels are regression targets")
    rooms = load(path, label="rooms")
    assert rooms.train.classes == tuple("01234")
    assert load(path, label="rooms", task="regression").train.task == "regression"


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (X.astype(float) + np.where(np.arange(30) == 4, np.nan, 0)[:, None, None], Y, "30 values of x are not finite"),
        (X, np.where(np.arange(30) == 4, -1, Y), "'bad': classes must be 0 or more; label 4 is -1"),
        (X, np.where(np.arange(30) == 4, 99, Y), "each need an example of every class: class '99' has 1"),
        (X[:20], Y, "x holds 20 examples and y 30 labels"),
        (X[:0], Y[:0], "'bad': the training part is empty"),
        (X, Y * 0, "has a single class, '0': nothing to learn"),
        (X, np.where(Y == 0, np.nan, 1.0), "10 labels are NaN or infinite; the first is label 0"),
    ],
)
def test_bad_arrays_in_a_file(tmp_path: Path, x: np.ndarray, y: np.ndarray, words: str) -> None:
    np.savez(tmp_path / "bad.npz", x=x, y=y)
    with pytest.raises(DataError, match=words):
        load(tmp_path / "bad.npz")


def test_bad_parts(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, train_x=X, train_y=Y, test_x=X[:3, :4], test_y=Y[:3])
    with pytest.raises(DataError, match=r"'a test' holds examples of \[4, 5, 1\], 'a train' of \[6, 5, 1\]"):
        load(path)
    np.savez(path, train_x=X, train_y=Y, test_x=X[:0], test_y=Y[:0])
    with pytest.raises(DataError, match="'a test' is empty"):
        load(path)
    np.savez(path, train_x=X, train_y=Y, test_x=X, test_y=Y, classes=np.array(["a", "b"]))
    with pytest.raises(
        DataError, match=r"'a train': 10 labels lie outside 0 .. 1 \(2 classes\); the first is 2 at y\[2\]"
    ):
        load(path)
    np.savez(path, train_x=X, train_y=Y, test_x=X, test_y=Y, classes=np.array(list("abcd")))
    with pytest.raises(DataError, match="'a train' has no example of class 'd'"):
        load(path)


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        ("digitz", {}, "no file or folder 'digitz'; .*built-in data sets: 'digits'"),
        ("", {}, "no data set is named; built-in ones: 'digits'"),
        ("set.npy", {}, r"no file or folder 'set.npy'"),
        ("{}/sett.npz", {}, r"no file or folder .*; the nearest there: 'set.npz'$"),
        ("{}/no/such/set.npz", {}, "no file or folder .*/no'; "),
        ("{}/readme.md", {}, "is of no kind that is read .*; convert it"),
        ("{}/one.png", {}, "give the folder above its class folder"),
        ("{}/set.npz", {"label": "y"}, "label='y' chooses a column of a table"),
        ("digits", {"label": 0}, "label=0 chooses a column of a table"),
        ("{}/readme.md#a", {}, "'#a' chooses arrays of an npz file"),
        ("{}/set.npz", {"size": 0}, "size is a number or .height, width., 1 or more; found 0"),
        ("{}/set.npz", {"size": (1, 2, 3)}, "found .1, 2, 3."),
        ("{}/set.npz", {"test_fraction": 1.0}, "test_fraction must lie between 0 and 1; found 1.0"),
        ("{}/set.npz", {"task": "ranking"}, "task is 'classification' or 'regression'"),
        ("a" * 5000, {}, r"cannot read .*: File name too long"),
        ("a\0b", {}, "no file or folder"),
    ],
)
def test_wrong_requests_are_explained(npz: Path, spec: str, options: dict, words: str) -> None:
    (npz.parent / "readme.md").write_text("text")
    (npz.parent / "one.png").write_bytes(b"")
    with pytest.raises(DataError, match=words):
        load(spec.format(npz.parent), **options)


def test_a_home_folder_and_a_path_object_will_do(npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(npz.parent))
    assert load("~/set.npz").name == "set"
    assert load(npz).name == "set"


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "set.npz").mkdir()
    with pytest.raises(DataError):
        load(tmp_path / "set.npz")
