"""`rank_models` and `tljax rank`, small."""

import json

import jax
import numpy as np
import pytest
from finetune_cases import write_images, write_net

from tljax.cli import main
from tljax.models import mlp
from tljax.recipes import SettingsError, Tuning, rank_models
from tljax.recipes.ranking import RankSettings
from tljax.selection import Candidate, SelectionError

Y = np.arange(2).repeat(8)
X = (np.random.default_rng(0).normal(size=(16, 6)) + 2 * np.eye(2, 6)[Y]).astype(np.float32)
MODEL = mlp((8,), num_classes=2)
PARAMS = MODEL.init(jax.random.key(0), X)
FAST = {"subsets": 3, "racing": False, "progress": False}


@pytest.mark.slow
def test_models_and_features_stand_in_one_ranking_and_the_likeliest_is_fine_tuned() -> None:
    found = rank_models(
        {"net": (MODEL, PARAMS), "raw": X, "given": Candidate(X[:, ::-1], prior=0.5)},
        (X, np.where(Y, "dog", "cat")),
        known={"net": {"prior": 0.9}},
        finetune=2,
        tuning=Tuning(steps=3, batch_size=4, rates=(1e-3,)),
        **FAST,
    )
    rows = {row.name: row for row in found.standings}
    assert set(rows) == {"net", "raw", "given"}
    assert rows["raw"].finetuned is None
    assert rows["net"].finetuned > 0.6
    assert "prior" in str(found)


@pytest.mark.parametrize(
    ("candidates", "data", "options", "message"),
    [
        ({}, (X, Y), {}, "no candidates"),
        ({"net": (MODEL, PARAMS)}, Y, {}, "candidate 'net' is a model, and the data are labels without inputs"),
        ({"a": X, "b": X}, {"a": (X, Y)}, {}, "none for 'b'"),
        ({"a": X, "b": X}, {"a": (X, Y), "b": (X, 1 - Y)}, {}, "labels that come with candidate 'b'"),
        ({"a": X}, Y, {"known": {"z": {}}}, "'z', which is no candidate"),
        ({"a": X}, Y, {"known": {"a": {"size": 3}}}, "'size' is nothing that is known"),
        ({"a": X}, Y, {"subsets": 1}, "subsets is 1"),
    ],
)
def test_bad_input_is_named(candidates, data, options, message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        rank_models(candidates, data, **FAST | options)


def test_settings_name_candidates_and_priors() -> None:
    settings = RankSettings(("a/net.pt", "b=c.npz"), "d.tsv", priors=("b=0.5",))
    assert settings.paths == {"net": "a/net.pt", "b": "c.npz"}
    assert settings.known == {"b": {"prior": 0.5}}
    with pytest.raises(SettingsError, match="two candidates are called 'net'"):
        RankSettings(("a/net.pt", "b/net.pt"), "d.tsv")
    with pytest.raises(SettingsError, match="of candidates: net"):
        RankSettings(("a/net.pt",), "d.tsv", priors=("x=0.5",))
    with pytest.raises(SettingsError, match="NAME=ACCURACY"):
        RankSettings(("a/net.pt",), "d.tsv", priors=("net=good",))


@pytest.mark.slow
def test_the_command_ranks_weight_files_of_images(tmp_path, capsys) -> None:
    images = write_images(tmp_path / "squares")
    for seed in (0, 1):
        write_net(tmp_path / f"net{seed}.safetensors", seed, width=4)
    names = [str(tmp_path / f"net{seed}.safetensors") for seed in (0, 1)]
    options = ["--data", str(images), "--image-size", "8", "--labels-per-class", "4", "--subsets", "3", "--quiet"]
    command = ["rank", "--candidates", *names, *options, "--run-dir", str(tmp_path / "run")]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "P(best)" in text
    assert "LEEP" in text
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["kind"] == "ranking"
    assert results["summary"]["labels"] == 8
    page = (tmp_path / "run" / "report.html").read_text()
    assert "P(best)" in page
    assert "<svg" in (tmp_path / "run" / "pictures" / "standings.svg").read_text()
    assert main(["rank", "--candidates", names[0], names[0], *options]) == 2
    assert "two candidates are called 'net0'" in capsys.readouterr().err
