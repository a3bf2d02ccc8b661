"""Methods that compare a weak and a strong view of the target's images, in `tljax adapt`."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.data import Dataset, Source
from tljax.recipes import SettingsError
from tljax.recipes.adapting import adapt_settings, run_adapt
from tljax.recipes.adapting.domains import as_domains, standardised
from tljax.recipes.adapting.methods import approach
from tljax.recipes.adapting.setup import load_setup
from tljax.recipes.adapting.views import augmentations
from tljax.types import Batch

TINY = {"model": "mlp(hidden=(8,))", "bottleneck": 0, "seeds": 1, "steps": 4, "batch_size": 4, "projection": "pca"}


def domains(shape: tuple[int, ...], level: float = 1.0):
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    parts = [Dataset(level * rng.uniform(size=(40, *shape)).astype(np.float32), y, ("a", "b"), n) for n in "st"]
    return standardised(as_domains(*(Source(part.name, part, part) for part in parts), None, 0))


def test_fixmatch_is_as_published_for_adaptation_unless_asked_otherwise():
    assert str(approach("fixmatch").objective) == "cross_entropy() + fixmatch(threshold=0.9)"
    assert str(approach("fixmatch(threshold=0.5)+mcc").objective).endswith("fixmatch(threshold=0.5) + mcc()")
    assert approach("mcc+fixmatch").bottleneck == 1024
    assert approach("mcc+fixmatch").images
    assert not approach("mean-teacher").images


@pytest.mark.parametrize("level", [1.0, 255.0])
def test_a_weak_view_is_a_shift_and_a_strong_one_stays_between_black_and_white(level: float):
    found = domains((8, 8, 1), level)
    x = jnp.asarray(found.target.train.x)
    views = augmentations(found, flip=False)
    weak, strong = (np.asarray(views[name](jax.random.key(0), Batch(x)).x) for name in ("weak", "strong"))
    for one, image in zip(weak, np.asarray(x)):
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
        assert any(np.array_equal(one, padded[i : i + 8, j : j + 8]) for i in range(3) for j in range(3))
    everything = np.concatenate([found.source.train.x, found.target.train.x])
    assert strong.min() >= everything.min() - 1e-4
    assert strong.max() <= everything.max() + 1e-4
    assert (np.abs(strong - weak).max((1, 2, 3)) > 1e-3).mean() > 0.5


def test_views_are_mirrored_where_asked():
    x = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8, 1).repeat(64, 0)
    y = np.arange(64) % 2
    part = Dataset(x, y, ("a", "b"), "s")
    found = as_domains(Source("s", part, part), Source("t", part, part), None, 0)

    def mirrored(flip: bool) -> float:
        rows = np.asarray(augmentations(found, flip)["weak"](jax.random.key(0), Batch(jnp.asarray(x))).x)
        return float((rows[:, 0, 1, 0] > rows[:, 0, -2, 0]).mean())

    assert mirrored(flip=False) == 0
    assert 0.2 < mirrored(flip=True) < 0.8


@pytest.mark.parametrize("shape", [(4,), (8, 8, 2)])
def test_what_is_no_image_has_no_views(shape: tuple[int, ...]):
    assert augmentations(domains(shape), flip=True) == {}


def test_fixmatch_without_images_is_refused(tmp_path: pathlib.Path):
    y = np.arange(40) % 2
    np.savez(tmp_path / "it.npz", x=np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32), y=y)
    both = dict.fromkeys(("source", "target"), str(tmp_path / "it.npz"))
    with pytest.raises(SettingsError, match=r"'mcc.fixmatch' compares .* images of 1 or 3 channels; found .* \[4\]"):
        load_setup(adapt_settings(both | TINY | {"method": "mcc+fixmatch"}))


@pytest.mark.slow
def test_runs_with_views_continue_to_the_same_bytes(no_distance, tmp_path: pathlib.Path):
    settings = adapt_settings(TINY | {"methods": ["fixmatch", "mean-teacher"], "run_dir": str(tmp_path / "run")})
    results = run_adapt(settings, show=False).results
    assert results["methods"] == ["fixmatch", "mean-teacher", "source-only"]
    assert all(np.isfinite(cell["test"]["nll"]) for cell in results["cells"])
    file = tmp_path / "run" / "results.json"
    before = file.read_bytes()
    file.unlink()
    run_adapt(settings, show=False)
    assert file.read_bytes() == before


@pytest.mark.slow
def test_mean_teacher_needs_no_images(no_distance, tmp_path: pathlib.Path):
    y = np.arange(60) % 2
    np.savez(tmp_path / "it.npz", x=np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32), y=y)
    both = dict.fromkeys(("source", "target"), str(tmp_path / "it.npz"))
    settings = adapt_settings(both | TINY | {"method": "mean-teacher", "run_dir": str(tmp_path / "run")})
    assert np.isfinite(run_adapt(settings, show=False).results["cells"][0]["test"]["nll"])
