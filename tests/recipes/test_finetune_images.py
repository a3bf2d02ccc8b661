"""`tljax finetune` on images: what the options say of their size, scale and parts."""

import pathlib

import numpy as np
import pytest
from finetune_cases import PREPROCESSOR, write_images, write_model, write_net, write_sentences

from tljax.data import DataError
from tljax.recipes import SettingsError
from tljax.recipes.finetune import FinetuneSettings
from tljax.recipes.finetune.setup import load_setup


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Weights without and with a preprocessor beside them, and a folder of images."""
    folder = tmp_path_factory.mktemp("images")
    for name, preprocessor in (("bare", None), ("told", PREPROCESSOR)):
        write_net(folder / name / "model.safetensors", preprocessor=preprocessor)
    data = write_images(folder / "squares")
    return {"bare": str(folder / "bare"), "told": str(folder / "told"), "data": str(data)}


def pixels(places, which: str, **options) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The inputs of each part by name, and the notes."""
    model = str(pathlib.Path(places[which]) / "model.safetensors")
    task = load_setup(FinetuneSettings(model=model, data=places["data"], **options)).task
    return {part: getattr(task, part).x for part in ("train", "valid", "test")}, task.notes


@pytest.mark.parametrize("which", ["bare", "told"])
def test_mean_and_deviation_and_size_may_be_given(which: str, places) -> None:
    as_it_is, _ = pixels(places, which, image_size=6, mean=(0.0,) * 3, std=(1.0,) * 3)
    scaled, notes = pixels(places, which, image_size=6, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    for part, x in as_it_is.items():
        assert x.shape[1:] == (6, 6, 3)
        expected = (x - np.float32([0.1, 0.2, 0.3])) / np.float32([0.5, 1, 2])
        np.testing.assert_allclose(scaled[part], expected, atol=1e-5)
    assert any("6x6" in note for note in notes)


def test_pixels_of_a_model_without_a_preprocessor_are_those_of_the_training_images(places) -> None:
    x, notes = pixels(places, "bare", image_size=8)
    np.testing.assert_allclose(x["train"].mean((0, 1, 2)), 0, atol=0.2)  # with the part that validates
    assert any(note.endswith("those of the training images") for note in notes)


@pytest.mark.parametrize("which", ["bare", "told"])
def test_parts_may_be_folders_of_their_own(which: str, places) -> None:
    x, notes = pixels(places, which, image_size=8, valid=places["data"], test=places["data"])
    assert len(x["valid"]) == len(x["test"]) == 24
    assert f"test part: {places['data']}" in notes
    np.testing.assert_array_equal(x["valid"], x["test"])


def test_parts_with_other_classes_are_told(places, tmp_path: pathlib.Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 8, 8, 3), np.uint8), y=np.array(["cat", "dog"] * 2))
    with pytest.raises(DataError, match="'cat'"):
        pixels(places, "bare", image_size=8, test=str(tmp_path / "a.npz"))


def test_options_of_another_kind_of_model_are_told(places, tmp_path: pathlib.Path) -> None:
    for options in ({"max_length": 8}, {"text": "words"}):
        with pytest.raises(SettingsError, match=r"are for sentences; the model '.*model.safetensors' takes images"):
            pixels(places, "bare", **options)
    reads, sentences = write_model(tmp_path / "bert"), write_sentences(tmp_path)
    for more in ({"image_size": 8}, {"mean": (0.5,), "std": (0.5,)}):
        with pytest.raises(SettingsError, match=r"are for images; the model in '.*bert' reads sentences"):
            load_setup(FinetuneSettings(model=str(reads), data=str(sentences), **more))


def test_numbers_as_labels_are_told(places, tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", x=rng.random((40, 8, 8, 3), np.float32), y=rng.random(40).astype(np.float32))
    with pytest.raises(SettingsError, match="has not one class per example"):
        pixels(places | {"data": str(tmp_path / "a.npz")}, "bare", image_size=8)
