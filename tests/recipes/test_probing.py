"""The k-shot table of heads on frozen features, and `tljax probe`."""

import json

import numpy as np
import pytest
from finetune_cases import write_model, write_sentences

import tljax as tl
from tljax.cli import main
from tljax.data import DataError, k_shot
from tljax.probes import ProbeError, ridge
from tljax.recipes.options import SettingsError
from tljax.recipes.probing import ProbeSettings, run_probe

RNG = np.random.default_rng(0)
NAMES = np.array(["ant", "bee", "cat"])
Y = np.arange(90) % 3
X = (RNG.normal(size=(90, 12)) + 0.9 * RNG.normal(size=(3, 12))[Y]).astype(np.float32)
TRAIN, TEST = (X[:60], NAMES[Y[:60]]), (X[60:], NAMES[Y[60:]])
HEADS = ("ridge", "knn", "centroid", "lda")


@pytest.fixture(scope="module")
def table():
    return tl.probe(TRAIN, TEST, shots=(1, 4), seeds=3, heads=HEADS)


def test_every_head_learns_and_more_labels_help(table):
    for head in HEADS:
        assert table.accuracies[head].shape == (2, 3)
        assert table.accuracies[head][1].mean() > 0.7
    assert np.isnan(table.accuracies["lda"][0]).all()  # one label per class: no covariance
    assert table.accuracies["centroid"][0].mean() < table.accuracies["centroid"][1].mean()
    assert table.majority == pytest.approx(1 / 3)


@pytest.mark.slow
def test_logistic_chooses_its_strength_on_folds():
    found = tl.probe(TRAIN, TEST, shots=(4,), seeds=2, heads=("logistic",))
    assert found.accuracies["logistic"].mean() > 0.7


def test_a_cell_is_the_probe_of_its_draw(table):
    for i in range(3):
        rows = k_shot(Y[:60], 4, seed=i)
        found = ridge(X[rows], Y[rows]).predict(X[60:])
        assert table.accuracies["ridge"][1, i] == pytest.approx(np.mean(np.argmax(found, 1) == Y[60:]))


def test_it_prints_and_is_json(table):
    text = str(table)
    assert text.splitlines()[0].split("  ")[0] == "labels per class"
    assert "±" in text
    assert "–" in text
    assert "Accuracy in % on 30 test examples: mean over 3 draws" in text
    rows = json.loads(json.dumps(table.as_dict()))["summary"]
    cell = next(row for row in rows if (row["head"], row["shots"]) == ("lda", 1))
    assert cell["accuracy"]["mean"] is None
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"shots": (21,)}, DataError, "fewer examples of class 'ant' \\(20\\)"),
        ({"seeds": 0}, SettingsError, "1 or more"),
        ({"heads": ("rigde",)}, SettingsError, "did you mean 'ridge'"),
        ({"test": (X[60:], ["owl"] * 30)}, ProbeError, "'owl' is none of the 3 classes"),
        ({"test": (X[60:, :3], TEST[1])}, SettingsError, "the features are 12 numbers, those of the test examples 3"),
        ({"train": (X[:60], ["ant"] * 60)}, ProbeError, "all 60 labels are 'ant'"),
        ({"train": (np.where(X[:60] > 2, np.nan, X[:60]), TRAIN[1])}, ProbeError, "NaN or infinite"),
    ],
)
def test_what_it_refuses(change, error, message):
    options = {"train": TRAIN, "test": TEST, "shots": (1,), "seeds": 2, "heads": ("centroid",)} | change
    with pytest.raises(error, match=message):
        tl.probe(options.pop("train"), options.pop("test"), **options)


def features_file(folder):
    file = folder / "zoo.npz"
    np.savez(file, train_x=TRAIN[0], train_y=TRAIN[1], test_x=TEST[0], test_y=TEST[1])
    return str(file)


def test_the_command_on_features(tmp_path, capsys, table):
    arguments = ["probe", "--features", features_file(tmp_path), "--shots", "1,4", "--seeds", "3", "--head", "centroid"]
    assert main([*arguments, "--run-dir", str(tmp_path / "run")]) == 0
    assert "zoo" in capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["kind"] == "probe"
    assert results["summary"][1]["values"] == pytest.approx(table.accuracies["centroid"][1].tolist())
    assert main([*arguments, "--run-dir", str(tmp_path / "run")]) == 0  # told again, without computing
    assert "holds this run complete" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "digits"], "option 'model' is None; it should be given: --model ..."),
        (["--features", "nowhere.npz"], "nowhere.npz"),
        (["--features", "a.npz", "--model", "b"], "left out where features are given"),
        (["--features", "digits"], r"should hold features [N, D]; found"),
        (["--features", "a.npz", "--head", "rigde"], "did you mean 'ridge'"),
        (["--features", "a.npz", "--shots", "0,1"], "1 or more each"),
    ],
)
def test_errors_of_the_command_are_one_line(arguments, message, tmp_path, capsys):
    assert main(["probe", *arguments, "--run-dir", str(tmp_path / "run")]) == 2
    captured = capsys.readouterr().err
    assert captured.startswith("tljax: error: ")
    assert message in captured


@pytest.mark.slow
def test_sentences_of_differing_lengths(tmp_path):
    settings = ProbeSettings(
        str(write_model(tmp_path)), str(write_sentences(tmp_path)), shots=(1, 4), seeds=2, heads=("ridge",),
        run_dir=str(tmp_path / "run"),
    )  # fmt: skip
    results = run_probe(settings, show=False).results
    assert results["features"]["width"] == 16
    assert results["features"]["computed"] <= 16
    assert results["test"] == 24
