"""`tljax adapt --weights`: from a pretrained model of sentences, and from one of images."""

import csv
import itertools
import pathlib
import shutil

import numpy as np
import pytest
from finetune_cases import PREPROCESSOR, write_images, write_model, write_net, write_sentences

from tljax.data import DataError
from tljax.recipes import SettingsError
from tljax.recipes.adapting import adapt_settings, run_adapt
from tljax.recipes.adapting.setup import load_setup
from tljax.recipes.evaluated import run_evaluate
from tljax.tree import named_leaves

SHORT = {"seeds": 1, "steps": 4, "batch_size": 4, "projection": "pca"}


@pytest.fixture
def net(tmp_path: pathlib.Path) -> dict[str, np.ndarray]:
    """Weights of three classes in the folder "net"; returned by name."""
    params = write_net(tmp_path / "net" / "model.safetensors")
    return {name: np.asarray(leaf) for name, leaf in named_leaves(params).items()}


@pytest.fixture
def squares(tmp_path: pathlib.Path) -> dict[str, str]:
    """Folders of images of both domains, and the settings that start from the weights in "net"."""
    source = write_images(tmp_path / "source")
    shutil.copytree(source, tmp_path / "target")
    weights = str(tmp_path / "net" / "model.safetensors")
    return {"source": str(source), "target": str(tmp_path / "target"), "weights": weights}


def test_the_body_is_that_of_the_file_and_the_head_is_of_the_data(net, squares) -> None:
    setup = load_setup(adapt_settings({**squares, "method": "mcc", "bottleneck": 0, "image_size": 8}))
    start = named_leaves(setup.starts[0])
    assert start["head/kernel"].shape == (net["head/kernel"].shape[0], 2)
    rest = {name for name in start if not name.startswith("head/")}
    assert rest == {name for name in net if not name.startswith("head/")}
    for name in rest:
        np.testing.assert_array_equal(start[name], net[name], err_msg=name)
    assert setup.settings.backbone_factor == 0.1
    pixels = setup.domains.source.train.x
    assert pixels.shape[1:] == (8, 8, 3)
    np.testing.assert_allclose(pixels.mean((0, 1, 2)), 0, atol=1e-4)  # no preprocessor: by the source's statistics


@pytest.mark.slow
def test_images_go_through_the_preprocessor_beside_the_weights(squares, no_distance, tmp_path: pathlib.Path) -> None:
    image = pytest.importorskip("PIL.Image")
    write_net(tmp_path / "net" / "model.safetensors", preprocessor=PREPROCESSOR)
    settings = adapt_settings({**squares, **SHORT, "method": "mcc", "run_dir": str(tmp_path / "run")})
    domains = load_setup(settings).domains
    shown = np.concatenate([part.x for part in (domains.source.train, domains.source.valid, domains.source.test)])
    assert len(shown) == 24
    for path in (tmp_path / "source").glob("*/*.png"):
        with image.open(path) as file:
            by_hand = (np.asarray(file.resize((8, 8), image.Resampling.BILINEAR), np.float32) / 255 - 0.5) / 0.25
        assert np.abs(shown - by_hand).max((1, 2, 3)).min() < 1e-5

    found = run_adapt(settings, show=False).results
    recorded = run_evaluate([tmp_path / "run"]).rows[0]
    assert recorded["metrics"]["accuracy"] == found["summary"][0]["metrics"]["accuracy"]
    assert run_evaluate([tmp_path / "run"], data=squares["target"]).rows[0]["examples"] == 24


@pytest.mark.parametrize("preprocessor", [None, PREPROCESSOR], ids=["bare", "told"])
def test_rows_of_numbers_are_nothing_for_a_model_of_images(preprocessor, squares, tmp_path: pathlib.Path) -> None:
    write_net(tmp_path / "net" / "model.safetensors", preprocessor=preprocessor)
    (tmp_path / "rows.csv").write_text("x,label\n" + "1,bright\n2,dark\n" * 9)
    np.savez(tmp_path / "rows.npz", x=np.ones((18, 1), np.float32), y=["bright", "dark"] * 9)
    for side, kind in itertools.product(("source", "target"), ("csv", "npz")):
        with pytest.raises(DataError, match=r"data set 'rows' holds no images"):
            load_setup(adapt_settings({**squares, "method": "mcc", side: str(tmp_path / f"rows.{kind}")}))


@pytest.mark.slow
def test_sentences_from_end_to_end(no_distance, tmp_path: pathlib.Path) -> None:
    model, source = write_model(tmp_path / "bert"), write_sentences(tmp_path)
    target = tmp_path / "other"
    target.mkdir()
    for part in ("train", "dev", "test"):
        lines = (tmp_path / f"mood_{part}.tsv").read_text().splitlines()
        (target / f"mood_{part}.tsv").write_text("\n".join(f"{line} the plot was a film" for line in lines))
    run = {"source": str(source), "weights": str(model), "method": "dan", "bottleneck": 0, **SHORT}
    known = run | {"target": str(target / "mood_train.tsv"), "run_dir": str(tmp_path / "known")}
    setup = load_setup(adapt_settings(known))
    lengths = [part.train.x["mask"].sum(1).max() for part in (setup.domains.source, setup.domains.target)]
    assert lengths == [6, 11]  # 4 and 9 words, and two marks
    assert setup.domains.source.train.x["ids"].shape[1] == setup.domains.target.train.x["ids"].shape[1] >= 11
    found = run_adapt(adapt_settings(known), show=False).results
    assert [row["method"] for row in found["summary"]] == ["dan", "source-only"]
    assert run_evaluate([tmp_path / "known"], data=str(target / "mood_test.tsv")).rows[0]["examples"] == 24

    (tmp_path / "bare.txt").write_text("the film was lovely\nthe film was awful\n" * 8)
    bare = run | {"target": str(tmp_path / "bare.txt"), "unlabelled": True, "run_dir": str(tmp_path / "bare")}
    run_adapt(adapt_settings(bare), show=False)
    with (tmp_path / "bare" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    with pytest.raises(SettingsError, match=r"image_size is for images; the model in '.*bert' reads sentences"):
        load_setup(adapt_settings(known | {"image_size": 8}))
