"""Folders that are no runs, or not complete ones; runs side by side from disk."""

import json

import pytest

from tljax.checkpoints.run import RunError
from tljax.cli import main
from tljax.recipes.finished import read_finished, read_methods


def test_what_is_no_run(tmp_path):
    with pytest.raises(RunError, match="no folder"):
        read_finished(tmp_path / "nowhere")
    with pytest.raises(RunError, match="folder of no run"):
        read_finished(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RunError, match="not complete"):
        read_finished(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        read_finished(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps({"title": "half", "summary": []}))
    with pytest.raises(RunError, match=r"holds no results.*lack verdict"):
        read_finished(tmp_path)


def test_a_ranking_has_no_methods(tmp_path):
    ranking = {"kind": "ranking", "title": "t", "summary": [], "target": {}, "models": [], "notes": []}
    (tmp_path / "results.json").write_text(json.dumps(ranking))
    assert read_finished(tmp_path).command == "rank"
    with pytest.raises(RunError, match="holds a ranking"):
        read_methods(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluate", "nowhere"], "no folder 'nowhere'"),
        (["report", "nowhere", "nowhere"], "no folder 'nowhere'"),
        (["evaluate", "nowhere", "--classes", "1"], "--data"),
    ],
)
def test_errors_are_one_line_and_status_2(words, said, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
