"""`tljax adapt`: domains, models, and whole runs."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from tljax.checkpoints.run import RunError
from tljax.cli import main
from tljax.data import Dataset, Source, load
from tljax.data.error import DataError
from tljax.recipes import SettingsError
from tljax.recipes.adapting import adapt_settings, run_adapt
from tljax.recipes.adapting.domains import as_domains, chosen_classes
from tljax.recipes.adapting.projection import on_a_plane
from tljax.recipes.adapting.results import about
from tljax.recipes.adapting.setup import load_setup
from tljax.recipes.adapting.train import best_on_test, optimizer, train
from tljax.recipes.evaluated import run_evaluate
from tljax.recipes.reported import run_report
from tljax.training import NonFiniteError
from tljax.types import TljaxError


def blobs(shift: float, size: int = 90, seed: int = 0, names=("a", "b", "c")) -> dict[str, np.ndarray]:
    """Three clusters `[N, 4]`, moved along all axes."""
    rng = np.random.default_rng(seed)
    y = np.arange(size) % len(names)
    x = rng.normal(size=(size, 4)) + 4 * np.eye(4)[y] + shift
    return {"x": x.astype(np.float32), "y": y, "classes": np.array(names)}


@pytest.fixture
def pair(tmp_path: pathlib.Path) -> dict[str, str]:
    for name, shift in (("source", 0.0), ("target", 1.0)):
        np.savez(tmp_path / f"{name}.npz", **blobs(shift, seed=int(shift)))
    return {name: str(tmp_path / f"{name}.npz") for name in ("source", "target")}


def a_source(y: np.ndarray, name: str = "it") -> Source:
    x = np.arange(len(y), dtype=np.float32)[:, None]
    part = Dataset(x, y, ("a", "b"), name)
    return Source(name, part, part.take(np.arange(4)))


def test_labels_of_the_target_decide_nothing_of_its_parts():
    y = np.arange(60) % 2
    found = [as_domains(a_source(y), a_source(labels), None, 3).target for labels in (y, y[::-1])]
    assert np.array_equal(found[0].train.x, found[1].train.x)
    assert len(found[0].valid) == 12
    assert len(found[0].train) == 48


def test_a_tiny_target_is_validated_on_what_it_is_trained_on():
    target = as_domains(a_source(np.arange(60) % 2), a_source(np.arange(8) % 2), None, 0).target
    assert target.valid is target.train
    assert "too few examples" in target.notes[-1]


@pytest.mark.parametrize(
    ("target", "classes", "found"),
    [
        (("c", "b", "a"), None, ("a", "b", "c")),
        (("c", "a", "d"), "shared", ("a", "c")),
        (("c", "b", "a"), "c,a", ("c", "a")),
    ],
)
def test_classes_go_by_name(target, classes, found):
    assert chosen_classes(("s", ("a", "b", "c")), ("t", target), classes) == found


@pytest.mark.parametrize(
    ("target", "classes", "message"),
    [
        (("a", "b"), None, "'t' lacks 'c'. .* --classes shared adapts with those that both have: 'a', 'b'"),
        (("a", "b", "c", "d"), None, "'s' lacks 'd'"),
        (("a", "x"), None, "'t' lacks 'b', 'c', and 's' lacks 'x'"),
        (("A", "b", "c"), None, "some differ in capitals or leading zeros alone"),
        (("a", "x"), "shared", "have one class in common"),
        (("a", "x"), "a,b", "no class 'b'"),
    ],
)
def test_unequal_classes_are_named(target, classes, message):
    with pytest.raises((SettingsError, DataError), match=message):
        chosen_classes(("s", ("a", "b", "c")), ("t", target), classes)


def test_relabelled_classes_keep_their_examples():
    y = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2] * 3)
    part = Dataset(y[:, None].astype(np.float32), y, ("c", "a", "b"), "t")
    other = Dataset(y[:, None].astype(np.float32), y, ("a", "b", "c"), "s")
    domains = as_domains(Source("s", other, other), Source("t", part, part), None, 0)
    names = np.array(domains.classes)
    assert np.array_equal(names[domains.target.test.y], np.array(part.classes)[y])


def test_built_in_domains_are_other_images():
    plain, turned = load("digits-plain"), load("digits-turned")
    assert plain.train.x.shape[1:] == turned.train.x.shape[1:] == (8, 8, 1)
    assert turned.train.x.min() >= 0
    assert turned.train.x.max() <= 1 + 1e-6


def test_turned_digits_are_what_scipy_makes_of_them():
    from scipy import ndimage
    from sklearn.datasets import load_digits

    from tljax.data.builtin import BUILT_IN

    images = load_digits().images[1::2] / 16
    own = BUILT_IN["digits-turned"]().x["train"][..., 0]
    for ours, image in zip(own[:5], images):
        expected = ndimage.rotate(np.pad(image, 8), 35, order=1, reshape=False)[8:-8, 8:-8]
        np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_principal_components_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA

    x = np.random.default_rng(0).normal(size=(20, 5)) * [5, 3, 1, 1, 1]
    found, made = on_a_plane(x, "pca")
    expected = PCA(2).fit_transform(x)
    for i in range(2):
        assert abs(np.corrcoef(found[:, i], expected[:, i])[0, 1]) > 1 - 1e-9
    assert made == "PCA"
    assert np.abs(found).max() == 1


def test_features_of_one_kind_make_a_picture_too():
    found, _ = on_a_plane(np.ones((6, 3)), "pca")
    assert np.array_equal(found, np.zeros((6, 2)))
    assert on_a_plane(np.arange(4.0)[:, None], "auto")[0].shape == (4, 2)


@pytest.mark.slow
def test_t_sne_is_the_same_again():
    x = np.random.default_rng(0).normal(size=(30, 4))
    first, made = on_a_plane(x, "auto")
    assert made == "t-SNE"
    assert np.array_equal(first, on_a_plane(x, "tsne")[0])


def test_the_optimiser_is_that_of_a_loop_by_hand():
    w, momentum, ours = np.float64(2.0), 0.0, jnp.float32(2.0)
    made = optimizer(0.1, 0.01, False)
    state = made.init(ours)
    for i in range(3):
        g = 3.0 * w + 0.01 * w
        momentum = 0.9 * momentum + g
        w = w - 0.1 * (1 + 1e-3 * i) ** -0.75 * (g + 0.9 * momentum)
        update, state = made.update(3.0 * ours, state, ours)
        ours = ours + update
    np.testing.assert_allclose(ours, w, rtol=1e-5)


def test_the_title_names_both_domains_of_a_file():
    given = {"method": "mcc", "source": "data/pacs.64.npz#photo", "target": "data/pacs.npz#sketch"}
    assert adapt_settings(given).title == "pacs#photo -> pacs#sketch"
    assert adapt_settings(given | {"target": "books/"}).title == "pacs#photo -> books"


def test_the_best_step_is_the_first_of_the_best():
    rows = [{"step": s, "split": "valid", "oracle_accuracy": v} for s, v in ((1, 0.5), (2, 0.75), (3, 0.75))]
    assert best_on_test([{"step": 0, "split": "valid", "oracle_accuracy": 0.9}, *rows]) == (0.75, 2)
    assert best_on_test([*rows, {"step": 4, "split": "train", "loss": 0.1}]) == (0.75, 2)
    assert best_on_test([]) == (None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "'steps' is 0"),
        ({"batch_size": 1}, "'batch_size' is 1"),
        ({"validator": "imm"}, "did you mean 'im'"),
        ({"projection": "umap"}, "one of auto, tsne, pca"),
        ({"bottleneck": -1}, "'bottleneck' is -1"),
        ({"learning_rate": 0.0}, "'learning_rate' is 0.0"),
        ({"backbone_rate": 0.0}, "'backbone_rate' is 0.0"),
        ({"method": "mcc", "model": "mlp", "weights": "w"}, "left out with weights"),
        ({"method": ["mcc", "mcc"]}, "each method once"),
        ({"method": "source-only"}, "name one of them first, as --method mcc"),
        ({"mehtod": "mcc"}, "unknown option 'mehtod'"),
    ],
)
def test_bad_settings_are_told(options, message):
    with pytest.raises(SettingsError, match=message):
        adapt_settings({"method": "mcc"} | options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "wine"}, r"shape \[4\]; expected \[13\]"),
        ({"source": "wine", "target": "breast_cancer"}, r"shape \[30\]; expected \[13\]"),
        ({"source": "diabetes", "target": "diabetes"}, "not one class per example"),
        ({"text": "review"}, "text and max_length are for sentences"),
        ({"target": "nowhere.npz"}, "no file or folder"),
        ({"model": "resnet9"}, "no model is called 'resnet9'"),
    ],
)
def test_data_and_models_that_do_not_fit_are_told(options, message, pair):
    with pytest.raises(TljaxError, match=message):
        load_setup(adapt_settings(pair | {"method": "mcc"} | options))


TINY = {"method": "mcc", "model": "mlp(hidden=(8,))", "bottleneck": 0, "seeds": 2, "steps": 12,
        "batch_size": 8, "projection": "pca"}  # fmt: skip


def test_a_run_from_end_to_end(pair, no_distance, tmp_path: pathlib.Path):
    settings = adapt_settings(pair | TINY | {"run_dir": str(tmp_path / "run")})
    outcome = run_adapt(settings, show=False)
    results = outcome.results
    assert results["methods"] == ["mcc", "source-only"]
    assert len(results["cells"]) == 4
    cell = results["cells"][0]
    assert cell["oracle"] >= max(cell["last"], cell["test"]["accuracy"]) - 1e-6
    assert results["summary"][0]["gain"]["over"] == "source-only"
    assert results["summary"][1]["gain"] is None
    assert len(results["summary"][0]["recall_gains"]) == 3
    assert len(results["features"]["panels"][1]["x"]) == sum(results["features"]["sizes"])
    text = str(outcome)
    assert "best on the test (oracle) %" in text
    assert "chosen by im" in text
    assert max(map(len, text.splitlines()[:-1])) <= 100
    report = (tmp_path / "run" / "report.md").read_text()
    for heading in ("On the target", "Which step", "Features of both domains", "Recall of each class", "Confusion"):
        assert f"## {heading}" in report

    files = [tmp_path / "run" / name for name in ("results.json", "report.html", "pictures/features.svg")]
    before = [file.read_bytes() for file in files]
    files[0].unlink()  # as after a kill: all is worked out again from the checkpoints
    run_adapt(settings, show=False)
    assert [file.read_bytes() for file in files] == before

    recorded = run_evaluate([tmp_path / "run"])
    assert recorded.rows[0]["metrics"]["accuracy"] == results["summary"][0]["metrics"]["accuracy"]
    anew = run_evaluate([tmp_path / "run"], data=pair["target"])
    assert anew.rows[0]["examples"] == 90
    assert "source only" in str(anew)
    assert "Adaptation" in run_report(tmp_path / "run").text or "Undecided" in run_report(tmp_path / "run").text
    assert run_report(tmp_path / "run", tmp_path / "run", output=tmp_path / "two.html").file.exists()
    with pytest.raises(RunError, match="other settings"):
        run_adapt(adapt_settings(pair | TINY | {"run_dir": str(tmp_path / "run"), "steps": 13}), show=False)


@pytest.mark.slow
def test_more_seeds_are_added_and_changed_data_refused(pair, tmp_path: pathlib.Path):
    def run(folder, **more):
        settings = adapt_settings(pair | TINY | {"run_dir": str(tmp_path / folder)} | more)
        return run_adapt(settings, show=False).results

    run("grown", seeds=1)
    kept = tmp_path / "grown/methods/0-mcc/seed_0/checkpoints/12"
    before = kept.stat().st_mtime_ns
    grown, whole = run("grown", seeds=2), run("whole", seeds=2)
    assert kept.stat().st_mtime_ns == before
    assert grown["cells"] == whole["cells"]
    assert grown["verdict"] == whole["verdict"]
    np.savez(pair["target"], **blobs(2.0, seed=2))
    with pytest.raises(RunError, match=r"a run from before '.*target\.npz' changed"):
        run("grown", seeds=2)


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_leaves_the_folder_to_other_settings(pair, tmp_path: pathlib.Path):
    given = pair | TINY | {"run_dir": str(tmp_path / "run"), "seeds": 1}
    with pytest.raises(NonFiniteError, match=r"^9e\+08\*afn.*, seed 0: .* became NaN .* Nothing had been saved"):
        run_adapt(adapt_settings(given | {"method": "9e8*afn(delta=1e30)"}), show=False)
    assert sorted(entry.name for entry in (tmp_path / "run").iterdir()) == ["config.json", "files.json"]
    assert run_adapt(adapt_settings(given), show=False).results["cells"]


@pytest.mark.slow
def test_an_estimate_of_dev_that_is_no_error_rate_is_noted(pair, tmp_path: pathlib.Path, monkeypatch):
    settings = adapt_settings(pair | TINY | {"run_dir": str(tmp_path / "run"), "validator": "dev", "seeds": 1})
    assert not [note for note in run_adapt(settings, show=False).results["notes"] if note.startswith("dev")]
    trained = train(load_setup(settings), settings.approaches[0], tmp_path / "again", False)
    doubted = {"mcc": [trained[0]._replace(value=3.69)], "source-only": trained}
    notes = about(load_setup(settings), doubted, "accuracy", "oracle_accuracy")["notes"]
    assert (
        "dev: in 1 of 2 runs the error rate that it estimates for the chosen step is outside 0 to 1 (-3.69" in notes[-1]
    )


def test_classes_that_are_left_out_are_noted():
    other = Dataset(np.arange(60.0, dtype="float32")[:, None], np.arange(60) % 3, ("a", "b", "x"), "more")
    domains = as_domains(Source("more", other, other), a_source(np.arange(60) % 2), "shared", 0)
    assert domains.source.notes == ("without the examples of 1 of its 3 classes, 'x'",)
    assert not [note for note in domains.target.notes if "without" in note]


def test_a_domain_smaller_than_the_batch_is_noted(tmp_path: pathlib.Path):
    for name, size in (("source", 30), ("target", 12)):
        np.savez(tmp_path / f"{name}.npz", **blobs(0.0, size))
    given = {name: str(tmp_path / f"{name}.npz") for name in ("source", "target")}
    source, target = load_setup(adapt_settings(given | TINY)).domains
    assert not any("smaller than a batch" in note for note in source.notes)
    assert "9 examples to train on, smaller than a batch of 8" not in target.notes[-1]
    _, target = load_setup(adapt_settings(given | TINY | {"batch_size": 32})).domains
    assert "9 examples to train on, smaller than a batch of 32" in target.notes[-1]


def test_the_command_tells_an_error_in_one_line(pair, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture):
    arguments = ["adapt", "--source", pair["source"], "--target", pair["target"], "--run-dir", str(tmp_path / "run")]
    assert main([*arguments, "--method", "cdna"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tljax: error: no method is called 'cdna'; did you mean 'cdan'")
    assert error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cdan+mcc", "mcd"])
def test_every_kind_of_method_runs(method, pair, tmp_path: pathlib.Path):
    more = {"method": method, "seeds": 1, "bottleneck": 4, "batch_size": 100, "run_dir": str(tmp_path / "run")}
    settings = adapt_settings(pair | TINY | more)
    results = run_adapt(settings, show=False).results
    assert np.isfinite(results["cells"][0]["test"]["nll"])
    assert 0 <= results["cells"][0]["a_distance"] <= 2
    assert results["methods"] == [method, "source-only"]
    assert "one seed" in results["verdict"]["sentence"]


@pytest.mark.slow
@pytest.mark.real_data
def test_mnist_to_usps_gains(data_dir: pathlib.Path, tmp_path: pathlib.Path):
    mnist, usps = (np.load(data_dir / "digits" / name) for name in ("mnist_train.npz", "usps.npz"))
    np.savez(tmp_path / "mnist.npz", x=mnist["x"][::24], y=mnist["y"][::24])
    np.savez(tmp_path / "usps.npz", x=usps["train_x"][::5], y=usps["train_y"][::5])
    settings = adapt_settings(
        {"source": str(tmp_path / "mnist.npz"), "target": str(tmp_path / "usps.npz"), "method": "jan+mcc",
         "model": "lenet(channels=(8, 16), kernel=5, hidden=64)", "bottleneck": 64, "seeds": 1, "steps": 200,
         "projection": "pca", "run_dir": str(tmp_path / "run")}
    )  # fmt: skip
    results = run_adapt(settings, show=False).results
    accuracy = {entry["method"]: entry["metrics"]["accuracy"]["mean"] for entry in results["summary"]}
    assert accuracy["jan+mcc"] > accuracy["source-only"] + 0.02
    assert "images were brought to 28x28x1" in " ".join(results["notes"])


def test_columns_of_a_table_in_other_units_are_noted(pair):
    found = dict(np.load(pair["target"]))
    np.savez(pair["target"], **found | {"x": found["x"] * np.float32([1, 1000, 1, 1])})
    notes = load_setup(adapt_settings(pair | TINY)).domains.target.notes
    assert "1 of 4 columns spread 8 times as wide or more in one domain as in the other, 'column 1'" in notes[-1]
    flat = dict(np.load(pair["source"]))  # now the target's column is the only one that spreads, a thousand wide
    np.savez(pair["source"], **flat | {"x": flat["x"] * np.float32([1, 0, 1, 0])})
    notes = load_setup(adapt_settings(pair | TINY)).domains.target.notes
    assert "1 of 4 columns spread 8 times as wide or more in one domain as in the other, 'column 1'" in notes[-1]
