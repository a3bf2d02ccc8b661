"""The report as files: complete, whole or not at all, and the same bytes for the same results."""

import json
import os
import subprocess
import sys

import pytest
from test_report_fakes import fake_results

from tljax.checkpoints.run import RunError
from tljax.evaluation.report import render_html, render_markdown, write_report

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def results():
    return fake_results(shots=(1, 10), seeds=2)


@pytest.fixture(scope="module")
def paths(results, tmp_path_factory):
    return write_report(results, tmp_path_factory.mktemp("run") / "report")


def test_the_files_are_where_they_are_said_to_be(paths):
    folder = paths["html"].parent
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    pictures = {f"pictures/{name}.svg" for name in ("gain", "accuracy", "curves", "confusion")}
    assert found == {"report.html", "report.md"} | pictures
    assert {str(path.relative_to(folder)) for path in paths.values()} == found


def test_the_files_hold_what_is_rendered_and_every_picture_of_the_text_exists(results, paths):
    assert paths["markdown"].read_text() == render_markdown(results)
    assert paths["html"].read_text() == render_html(results)
    for name in ("gain", "accuracy", "curves", "confusion"):
        assert f"(pictures/{name}.svg)" in paths["markdown"].read_text()


def test_regression_has_no_confusion_picture(tmp_path):
    paths = write_report(fake_results(classes=None, seeds=1, shots=(5,)), tmp_path)
    assert set(paths) == {"html", "markdown", "gain", "accuracy", "curves"}


def test_a_report_that_cannot_be_rendered_leaves_the_earlier_one(results, paths):
    before = {file: file.read_bytes() for file in paths.values()}
    with pytest.raises(KeyError):
        write_report(results | {"verdict": {}}, paths["html"].parent)
    assert {file: file.read_bytes() for file in paths.values()} == before


def test_a_folder_that_is_a_file_is_refused(results, tmp_path, monkeypatch):
    monkeypatch.setattr("tljax.evaluation.report.write.draw", lambda results, theme: {})
    monkeypatch.setattr("tljax.evaluation.report.write.page", lambda *arguments: "")
    (tmp_path / "taken").write_text("")
    with pytest.raises(RunError, match="taken"):
        write_report(results, tmp_path / "taken")


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(results, paths, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(results))
    code = (
        "import json, sys; from tljax.evaluation.report import write_report;"
        "write_report(json.load(open(sys.argv[1])), sys.argv[2])"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "results.json"), str(tmp_path / "again")]
    subprocess.run(arguments, check=True, env=os.environ | {"PYTHONHASHSEED": "123", "TZ": "Asia/Tokyo"})
    for file in paths.values():
        assert (tmp_path / "again" / file.relative_to(paths["html"].parent)).read_bytes() == file.read_bytes()
