"""The second time features are read, and only what they depend on makes new ones."""

import multiprocessing
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.data import ImageFolder, Preprocessor, stream
from tljax.features import FeatureError, extract
from tljax.models.mlp import mlp
from tljax.types import Model, Output

X = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
Y = np.arange(10) % 2


class Counter:
    """A model that counts how often it runs, on the device."""

    def __init__(self, scale=2.0, name="counter"):
        self.runs = 0

        def run():
            self.runs += 1

        def apply(params, x, **_):
            jax.debug.callback(run)
            return Output(params["w"] * x * scale, x)

        self.model = Model(None, apply, name=name)


PARAMS = {"w": np.float32(3.0)}


def got(cache, data=(X, Y), *, params=PARAMS, counter=None, **options):
    counter = counter or Counter()
    found = extract(counter.model, params, data, cache=cache, **{"layer": "logits", "progress": False} | options)
    jax.effects_barrier()
    return found, counter.runs


def test_the_second_use_does_not_run_the_model(tmp_path):
    counter = Counter()
    first, runs = got(tmp_path, counter=counter)
    assert runs
    second, again = got(tmp_path, counter=counter)
    assert again == runs
    for name in ("features", "logits", "labels"):
        np.testing.assert_array_equal(getattr(second, name), getattr(first, name))
    assert second.fingerprint == first.fingerprint
    assert first.features.flags.writeable
    assert not second.features.flags.writeable  # mapped from the file
    assert [path.name for path in tmp_path.iterdir()] == [f"{first.fingerprint}.safetensors"]


def test_another_process_would_find_it_too(tmp_path):
    """A fresh model of the same make: nothing in the fingerprint depends on where objects lie."""
    got(tmp_path)
    assert got(tmp_path)[1] == 0


def test_labels_and_the_batch_size_do_not_count(tmp_path):
    got(tmp_path)
    found, runs = got(tmp_path, (X, 1 - Y), batch_size=3)
    assert runs == 0
    assert found.labels.tolist() == (1 - Y).tolist()


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    "change",
    [
        {"params": {"w": np.nextafter(np.float32(3), np.float32(4))}},
        {"data": (X + np.eye(10, 4, dtype=np.float32) * 1e-6, Y)},
        {"data": (X[::-1], Y)},
        {"data": (X[:9], Y[:9])},
        {"layer": "features"},
        {"counter": Counter(scale=2.5)},
        {"counter": Counter(name="other")},
    ],
    ids=["a bit of a weight", "a bit of the data", "their order", "their number", "layer", "computation", "name"],
)
def test_what_features_depend_on_makes_new_ones(tmp_path, change):
    old, _ = got(tmp_path)
    new, runs = got(tmp_path, **change)
    assert runs
    assert new.fingerprint != old.fingerprint


def test_options_that_no_weight_shows_make_new_ones(tmp_path):
    params = mlp((5,), 3).init(jax.random.key(0), X)

    def key(**options):
        return extract(mlp((5,), 3, **options), params, X, cache=tmp_path, progress=False).fingerprint

    assert key(activation="tanh") != key()
    assert key() == key()


def test_constants_inside_of_a_model_count(tmp_path):
    def key(w):
        model = Model(None, lambda params, x, **_: Output(x @ jnp.asarray(w), x @ jnp.asarray(w)))
        return extract(model, {}, X, cache=tmp_path, progress=False).fingerprint

    w = np.random.default_rng(1).normal(size=(4, 100)).astype(np.float32)
    changed = w.copy()
    changed[2, 50] += 1e-3
    assert key(w) != key(changed)


@pytest.mark.parametrize("where", [4, 300, -1], ids=["header", "metadata", "numbers"])
def test_a_damaged_file_is_told_and_made_anew(tmp_path, where):
    counter = Counter()
    first, runs = got(tmp_path, counter=counter)
    path = next(tmp_path.iterdir())
    damaged = bytearray(path.read_bytes())
    damaged[where] ^= 1
    path.write_bytes(damaged)
    with pytest.warns(UserWarning, match="computed anew"):
        second, more = got(tmp_path, counter=counter)
    assert more > runs
    np.testing.assert_array_equal(second.features, first.features)
    assert got(tmp_path, counter=counter)[1] == more  # whole again


@pytest.mark.parametrize("size", [0, 5, 100, -3])
def test_a_file_cut_short_is_told(tmp_path, size):
    got(tmp_path)
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:size])
    with pytest.warns(UserWarning, match="computed anew"):
        got(tmp_path)


def test_a_cache_that_cannot_be_is_told_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FeatureError, match="there can be no folder"):
        got(tmp_path / "file")


def test_features_that_cannot_be_kept_are_given_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.warns(UserWarning, match="No space left on device. The features are not kept"):
        found, _ = got(tmp_path)
    assert found.features.shape == (10, 4)
    assert list(tmp_path.iterdir()) == []


class Source:
    """A source without files, that counts how often it is asked."""

    def __init__(self):
        self.asked = 0

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        self.asked += 1
        return X[i], int(Y[i])


def test_streams_without_files_are_known_by_their_content(tmp_path):
    first, _ = got(tmp_path, stream(Source()))
    again, runs = got(tmp_path, stream(Source()))
    assert runs == 0
    assert again.labels.tolist() == Y.tolist() == first.labels.tolist()
    assert got(tmp_path, stream(Source(), subset=[1, 2]))[1]
    assert got(tmp_path, stream(Source(), transform=lambda x: x + 1))[1]


def images(folder: pathlib.Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name, colour in (("cat", 10), ("dog", 200)):
        (folder / name).mkdir(parents=True)
        for i in range(3):
            image.new("RGB", (4, 4), (colour, i, 0)).save(folder / name / f"{i}.png")


def test_image_files_are_known_without_being_read(tmp_path, monkeypatch):
    folder, cache, counter = tmp_path / "images", tmp_path / "cache", Counter()
    images(folder)
    small = Preprocessor(resize=(2, 2))

    def run(preprocessor=small):
        return got(cache, stream(ImageFolder(folder, preprocessor)), counter=counter, layer="features", pooling="mean")

    first, runs = run()
    opened = []
    real = ImageFolder.__getitem__
    monkeypatch.setattr(ImageFolder, "__getitem__", lambda self, i: opened.append(i) or real(self, i))
    second, again = run()
    assert again == runs
    assert set(opened) <= {0}  # one, for its shape
    assert (second.labels.tolist(), second.classes) == ([0, 0, 0, 1, 1, 1], ("cat", "dog"))
    np.testing.assert_array_equal(first.features, second.features)
    assert run(Preprocessor(resize=(2, 2), scale=1 / 127))[0].fingerprint != first.fingerprint
    file = folder / "cat" / "1.png"
    file.write_bytes((folder / "dog" / "1.png").read_bytes())
    assert run()[0].fingerprint != first.fingerprint


def _write(folder: str, barrier) -> None:
    from tljax.features import cache

    arrays = {"features": np.ones((500, 64), np.float32)}
    barrier.wait()
    for _ in range(10):
        cache.write(pathlib.Path(folder), "key", arrays)
        assert cache.read(pathlib.Path(folder), "key", 500) is not None


@pytest.mark.slow
def test_several_may_write_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    workers = [context.Process(target=_write, args=(str(tmp_path), barrier)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["key.safetensors"]
