"""`tljax adapt --unlabelled`: a target whose labels nobody knows."""

import csv
import pathlib

import numpy as np
import pytest

from tljax.checkpoints.run import RunError
from tljax.cli import main
from tljax.data.error import DataError
from tljax.evaluation.report import render_text
from tljax.evaluation.report.unlabelled import advice
from tljax.recipes import SettingsError
from tljax.recipes.adapting import adapt_settings, run_adapt
from tljax.recipes.adapting.measure import cell
from tljax.recipes.adapting.reading import read_labelled
from tljax.recipes.adapting.setup import load_setup
from tljax.recipes.adapting.signs import Look, look, predictions
from tljax.recipes.adapting.train import Trained
from tljax.recipes.evaluated import run_evaluate
from tljax.recipes.reported import run_report

NAMES = np.array(["a", "b", "c"])
TINY = {"method": "mcc", "model": "mlp(hidden=(8,))", "bottleneck": 0, "seeds": 2, "steps": 12,
        "batch_size": 8, "projection": "pca", "unlabelled": True}  # fmt: skip


def blobs(shift: float, seed: int, size: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """Three clusters `[N, 4]`, moved along all axes, and which each example is of."""
    rng = np.random.default_rng(seed)
    y = np.arange(size) % 3
    return (rng.normal(size=(size, 4)) + 4 * np.eye(4)[y] + shift).astype(np.float32), y


@pytest.fixture
def pair(tmp_path: pathlib.Path) -> dict[str, str]:
    """A labelled source, and a target of inputs alone."""
    for name, shift in (("source", 0.0), ("target", 1.0)):
        x, y = blobs(shift, int(shift))
        known = {"y": y, "classes": NAMES} if name == "source" else {}
        np.savez(tmp_path / f"{name}.npz", x=x, **known)
    return {name: str(tmp_path / f"{name}.npz") for name in ("source", "target")}


@pytest.mark.slow
def test_a_run_from_end_to_end(pair, no_distance, tmp_path: pathlib.Path):
    settings = adapt_settings(pair | TINY | {"run_dir": str(tmp_path / "run")})
    outcome = run_adapt(settings, show=False)
    results, text = outcome.results, str(outcome)
    assert results["verdict"]["outcome"] == "untold"
    assert results["target"] | {"notes": 0} == {
        "name": "target", "classes": ["a", "b", "c"], "pool": 72, "valid": 18, "test": 90, "input": [4], "notes": 0,
    }  # fmt: skip
    assert "accuracy" not in results["summary"][0]["metrics"]
    assert "Untold: without labels of the target nobody can tell whether mcc helped" in text.replace("\n", " ")
    assert max(map(len, text.splitlines()[:-1])) <= 100
    report = (tmp_path / "run" / "report.md").read_text()
    for heading in ("Signs", "What is predicted", "Features of both domains", "Learning curves", "Data and protocol"):
        assert f"## {heading}" in report
    assert "on the target's test part" not in report
    assert len(results["features"]["panels"][1]["classes"]) == sum(results["features"]["sizes"])
    assert (tmp_path / "run" / "pictures" / "features.svg").exists()

    rows = list(csv.DictReader((tmp_path / "run" / "predictions.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == [f"x[{i}]" for i in range(90)]
    assert set(rows[0]) == {"name", "prediction", "confidence", "agreement", "source-only"}
    assert results["summary"][1]["changed"]["mean"] == 0
    assert sum(results["summary"][0]["predicted"]) == pytest.approx(90)

    files = [tmp_path / "run" / name for name in ("results.json", "report.html", "predictions.csv")]
    before = [file.read_bytes() for file in files]
    files[0].unlink()  # as after a kill: all is worked out again from the checkpoints
    run_adapt(settings, show=False)
    assert [file.read_bytes() for file in files] == before

    with pytest.raises(RunError, match=r"no metrics were recorded; tljax evaluate .* --data"):
        run_evaluate([tmp_path / "run"])
    with pytest.raises(RunError, match="no metrics were recorded"):
        run_report(tmp_path / "run", tmp_path / "run", output=tmp_path / "two.html")
    assert "Untold" in run_report(tmp_path / "run").text
    for entry in results["summary"]:
        entry["a_distance"]["mean"] = entry["metrics"]["validator"]["mean"] = None
    assert "–" in render_text(results)

    x, y = blobs(1.0, 1)
    np.savez(tmp_path / "known.npz", x=x, y=y, classes=NAMES)
    found = run_evaluate([tmp_path / "run"], data=str(tmp_path / "known.npz")).rows
    assert [row["method"] for row in found] == ["mcc", "source-only"]
    assert found[0]["examples"] == 90
    # Labels that come later tell of the same predictions: the share of both methods' that are right.
    alone = np.array([row["source-only"] for row in rows]) == NAMES[y]
    assert abs(alone.mean() - found[1]["metrics"]["accuracy"]["mean"]) < 0.15
    # A few are enough, whatever their classes are.
    np.savez(tmp_path / "few.npz", x=x[1:7:3], y=y[1:7:3], classes=NAMES)
    few = run_evaluate([tmp_path / "run"], data=str(tmp_path / "few.npz")).rows
    assert few[0]["examples"] == 2
    assert few[0]["metrics"]["accuracy"]["mean"] in (0, 0.25, 0.5, 0.75, 1)
    np.savez(tmp_path / "some.npz", x=x[:2], y=np.zeros(2, int), classes=np.array(["a", "z"]))  # z has no example
    assert run_evaluate([tmp_path / "run"], data=str(tmp_path / "some.npz")).rows[0]["examples"] == 2
    with pytest.raises(SettingsError, match=r"classes='a' is for runs of tljax transfer; \S+ is of adapt"):
        run_evaluate([tmp_path / "run"], data=str(tmp_path / "some.npz"), classes="a")
    np.savez(tmp_path / "other.npz", x=x[:2], y=y[:2], classes=np.array(["a", "z"]))
    with pytest.raises(DataError, match=r"'other' has classes that the training part lacks: \['z'\]"):
        run_evaluate([tmp_path / "run"], data=str(tmp_path / "other.npz"))


@pytest.mark.slow
def test_a_few_labelled_examples_to_test_on(pair, no_distance, tmp_path: pathlib.Path):
    """The run is the one without labels, which later measured on those examples gives the same."""
    x, y = blobs(1.0, 2, size=12)
    np.savez(tmp_path / "both.npz", train_x=np.load(pair["target"])["x"], test_x=x, test_y=y, classes=NAMES)
    places = {"target": f"{tmp_path}/both.npz#train", "seeds": 1}
    known = {"unlabelled": False, "test": f"{tmp_path}/both.npz#test", "run_dir": str(tmp_path / "known")}
    results = run_adapt(adapt_settings(pair | TINY | places | known), show=False).results
    assert results["target"]["test"] == 12
    assert any("tested on 12 labelled examples" in note for note in results["notes"])
    run_adapt(adapt_settings(pair | TINY | places | {"run_dir": str(tmp_path / "untold")}), show=False)
    later = run_evaluate([tmp_path / "untold"], data=f"{tmp_path}/both.npz#test").rows
    again = run_evaluate([tmp_path / "known"], data=f"{tmp_path}/both.npz#test").rows
    for row, other, told in zip(later, again, results["summary"], strict=True):
        for metric in ("accuracy", "nll", "macro_recall"):
            assert row["metrics"][metric]["mean"] == other["metrics"][metric]["mean"] == told["metrics"][metric]["mean"]
    np.savez(tmp_path / "few.npz", x=x[:4], y=np.array([0, 1, 0, 1]), classes=NAMES[:2])
    setup = load_setup(adapt_settings(pair | TINY | places | known | {"test": str(tmp_path / "few.npz")}))
    assert setup.domains.target.test.y.tolist() == [0, 1, 0, 1]
    assert setup.domains.target.test.classes == setup.domains.classes == tuple(NAMES)


@pytest.mark.parametrize(("whole", "advised"), [(80, "label all 80"), (150, "about ±6 p"), (10_000, "about ±10 p")])
def test_how_to_know_is_said_with_what_it_would_tell(whole: int, advised: str):
    """By hand: 1.96 sqrt(0.25 / 100) are 9.8 points, times sqrt(50 / 149) of 150 examples 5.7."""
    assert advised in advice({"target": {"test": whole}})


@pytest.mark.slow
def test_labels_that_are_there_are_not_read(pair, no_distance, tmp_path: pathlib.Path):
    x, y = blobs(1.0, 1)
    found = []
    for i, labels in enumerate(({}, {"y": y[::-1], "classes": np.array(["p", "q", "r"])})):
        (tmp_path / str(i)).mkdir()
        np.savez(tmp_path / str(i) / "target.npz", x=x, **labels)
        more = {"target": str(tmp_path / str(i) / "target.npz"), "run_dir": str(tmp_path / f"run{i}"), "seeds": 1}
        text = str(run_adapt(adapt_settings(pair | TINY | more), show=False))
        assert "One seed: intervals are undefined" in text
        found.append([(tmp_path / f"run{i}" / name).read_bytes() for name in ("results.json", "predictions.csv")])
    assert found[0] == found[1]


def test_signs_are_what_they_are_called(pair, no_distance):
    setup = load_setup(adapt_settings(pair | TINY | {"seeds": 1}))
    params = setup.starts[0]
    run = Trained(0, params, params, 3, 0.5, ())
    found = look(setup, "mcc", run)
    x = setup.domains.target.test.x
    logits = np.asarray(setup.model.apply(params, x).logits, np.float64) / found.cell["temperature"]
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(found.chances, expected, atol=1e-6)
    assert found.cell["predicted"] == np.bincount(expected.argmax(1), minlength=3).tolist()
    assert abs(found.cell["test"]["confidence"] - expected.max(1).mean()) < 1e-6
    with_labels = load_setup(adapt_settings(pair | TINY | {"seeds": 1, "unlabelled": False, "target": pair["source"]}))
    measured = cell(with_labels, "mcc", run._replace(history=[]))
    assert found.cell["source_test"] == measured["source_test"]
    assert found.cell["temperature"] == measured["test"]["temperature"]


def test_predictions_are_of_all_seeds_together(pair):
    setup = load_setup(adapt_settings(pair | TINY))
    setup.domains.target.test.__dict__["names"] = ("one", 'two, "2"')
    first, second = np.array([[0.6, 0.4, 0.0], [0.1, 0.1, 0.8]]), np.array([[0.1, 0.9, 0.0], [0.0, 0.2, 0.8]])
    base = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    looks = {"mcc": [Look({}, first), Look({}, second)], "source-only": [Look({}, base)]}
    assert predictions(setup, looks) == (
        "name,prediction,confidence,agreement,source-only\none,b,0.6500,0.5,a\n\"two, \"\"2\"\"\",c,0.8000,1,c\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validator": "oracle"}, "'validator' is 'oracle'"),
        ({"classes": "shared"}, "'classes' is 'shared'"),
        ({"classes": "shared", "unlabelled": False, "test": "known.npz"}, "'classes' is 'shared'"),
    ],
)
def test_what_needs_labels_is_told(options, message):
    with pytest.raises(SettingsError, match=f"{message}; .*without labels of the target"):
        adapt_settings({"method": "mcc", "unlabelled": True} | options)


def test_examples_to_test_on_are_labelled():
    with pytest.raises(SettingsError, match=r"'test' is 'known.npz'; it should be left out with unlabelled"):
        adapt_settings({"method": "mcc", "unlabelled": True, "test": "known.npz"})


def test_a_target_without_labels_is_recognised(pair, tmp_path: pathlib.Path):
    labelled = {"unlabelled": False}
    with pytest.raises(DataError, match=r"no pair of inputs and labels.* If the target has no labels: --unlabelled"):
        load_setup(adapt_settings(pair | TINY | labelled))
    with pytest.raises(DataError, match=r"no file or folder '\S+'; (?!.*--unlabelled)"):
        load_setup(adapt_settings(pair | TINY | labelled | {"target": str(tmp_path / "nowhere.npz")}))


def test_classes_of_the_source_may_be_chosen(pair):
    source, target = load_setup(adapt_settings(pair | TINY | {"classes": "c,a"})).domains
    assert source.train.classes == target.test.classes == ("c", "a")
    assert len(target.test) == 90
    with pytest.raises(DataError, match="no class 'd'"):
        load_setup(adapt_settings(pair | TINY | {"classes": "a,d"}))


def test_columns_go_by_name(tmp_path: pathlib.Path):
    x, y = blobs(0.0, 0)

    def table(name: str, order: str, label: bool) -> str:
        columns = {c: x[:, "pqrs".index(c)] if c in "pqrs" else np.arange(len(x)) for c in order}
        rows = zip(*columns.values(), *([NAMES[y]] if label else []))
        head = ",".join([*columns, *(["label"] if label else [])])
        (tmp_path / name).write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]))
        return str(tmp_path / name)

    given = {"source": table("a.csv", "pqrs", True)}
    same = load_setup(adapt_settings(TINY | given | {"target": given["source"], "unlabelled": False})).domains.target
    moved = table("b.csv", "srqp", True)
    for target, unlabelled in ((moved, False), (table("c.csv", "srqpi", True), False), (moved, True)):
        found = load_setup(adapt_settings(TINY | given | {"target": target, "unlabelled": unlabelled})).domains.target
        if not unlabelled:
            np.testing.assert_array_equal(found.test.x, same.test.x)
        assert any("columns" in note for note in found.notes)
    np.testing.assert_allclose(found.test.x * found.statistics.std + found.statistics.mean, x, atol=1e-5)
    settings = adapt_settings(TINY | given | {"target": moved})
    sample = read_labelled(settings, load_setup(settings).domains, moved, None)
    np.testing.assert_array_equal(sample.x, found.test.x)
    with pytest.raises(DataError, match="lacks the columns 's'; it has 'p', 'q', 'r'"):
        load_setup(adapt_settings(TINY | given | {"target": table("d.csv", "pqr", True), "unlabelled": False}))


def test_a_folder_of_images_of_any_size(tmp_path: pathlib.Path):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for i in range(24):
        for folder, side in ((f"source/{'ab'[i % 2]}", 8), ("target", 8 + i % 3)):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (side, side, 3) if folder == "target" else (side, side), np.uint8)
            image.fromarray(pixels).save(tmp_path / folder / f"{i}.png")
    given = {"source": str(tmp_path / "source"), "target": str(tmp_path / "target"), "model": "lenet"}
    with pytest.raises(DataError, match="--unlabelled"):
        load_setup(adapt_settings(TINY | given | {"unlabelled": False}))
    target = load_setup(adapt_settings(TINY | given)).domains.target
    assert target.test.x.shape == (24, 8, 8, 1)
    assert target.test.names[:3] == ("0.png", "1.png", "2.png")


def test_the_command(pair, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture):
    arguments = ["adapt", "--source", pair["source"], "--target", pair["target"], "--run-dir", str(tmp_path / "run")]
    assert main(arguments) == 2
    assert capsys.readouterr().err.endswith(
        "If the target has no labels: --unlabelled, or --test with a few that have\n"
    )
    assert main([*arguments, "--unlabelled", "--validator", "oracle"]) == 2
    assert "'validator' is 'oracle'" in capsys.readouterr().err
