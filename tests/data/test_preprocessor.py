"""Preprocessors give what transformers' image processors (the ones that use Pillow) give on the same images."""

import json

import numpy as np
import pytest

from tljax.data import DataError, Preprocessor, load_preprocessor

RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((40, 31), (23, 50), (32, 32), (9, 12))]
CONFIGS = {
    "vit": ("ViT", {"size": {"height": 24, "width": 20}}),
    "clip": ("CLIP", {"size": {"shortest_edge": 24}, "crop_size": {"height": 21, "width": 20}}),
    "dinov2": ("Bit", {"size": {"shortest_edge": 26}, "crop_size": {"height": 22, "width": 22}, "resample": 3}),
    "uncut": ("CLIP", {"size": {"shortest_edge": 18}, "do_center_crop": False}),
    "border": ("CLIP", {"do_resize": False, "crop_size": {"height": 33, "width": 34}}),
    "convnext": ("ConvNext", {"size": {"shortest_edge": 28}, "crop_pct": 0.875}),
    "large": ("ConvNext", {"size": {"shortest_edge": 384}}),
    "plain": ("ViT", {"size": {"height": 8, "width": 8}, "do_normalize": False, "resample": 0}),
}


def folder(path, config):
    (path / "preprocessor_config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("name", CONFIGS)
def test_it_does_what_transformers_does(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    style, options = CONFIGS[name]
    theirs = getattr(transformers, f"{style}ImageProcessorPil")(**options)
    theirs.save_pretrained(tmp_path)
    ours = load_preprocessor(tmp_path)
    for image in IMAGES:
        wanted = theirs(image, input_data_format="channels_last")["pixel_values"][0].transpose(1, 2, 0)
        np.testing.assert_allclose(ours(image), wanted, atol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_saved_does_the_same_here_and_in_transformers(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    style, options = CONFIGS[name]
    ours = load_preprocessor(folder(tmp_path, {"image_processor_type": f"{style}ImageProcessor"} | options))
    ours.save(tmp_path)
    assert load_preprocessor(tmp_path) == ours
    theirs = transformers.CLIPImageProcessorPil.from_pretrained(tmp_path)
    for image in IMAGES:
        given = theirs(image, input_data_format="channels_last")["pixel_values"][0].transpose(1, 2, 0)
        np.testing.assert_allclose(ours(image), given, atol=1e-6)


def test_old_files_and_timm(tmp_path):
    pytest.importorskip("PIL")
    old = load_preprocessor(folder(tmp_path, {"feature_extractor_type": "CLIPFeatureExtractor", "size": 30}))
    assert (old.resize, old.crop, old.resample) == (30, (224, 224), 3)
    (tmp_path / "preprocessor_config.json").unlink()
    timm = {"input_size": [3, 32, 32], "crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [1] * 3}
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": timm}))
    found = load_preprocessor(tmp_path)
    assert (found.resize, found.crop, found.resample) == (35, (32, 32), 3)
    assert found(np.stack([IMAGES[0]] * 2)).shape == (2, 32, 32, 3)
    assert str(found).startswith("resize shorter side to 35, bicubic; cut the middle 32x32")


def test_what_is_not_known_is_told(tmp_path):
    with pytest.raises(DataError, match=r"no preprocessor_config.json"):
        load_preprocessor(tmp_path)
    with pytest.raises(DataError, match="'DonutImageProcessor' is not known"):
        load_preprocessor(folder(tmp_path, {"image_processor_type": "DonutImageProcessor"}))
    with pytest.raises(DataError, match="uint8 images"):
        Preprocessor()(np.zeros((2, 2, 3), np.float32))
