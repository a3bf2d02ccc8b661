"""Numbers in README.md and docs/ are those of the JSON in benchmarks/results/, which tells what made it, and where."""

import importlib
import json
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = sorted((ROOT / "benchmarks" / "results").rglob("*.json"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module", autouse=True)
def scripts():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_a_result_says_what_made_it_when_and_where(file):
    assert importlib.import_module("facts").missing(json.loads(file.read_text())) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_numbers_of_a_page_are_those_of_the_results(page):
    said = importlib.import_module("readme").complaints(page.read_text())
    assert not said, f"{said}; `python benchmarks/readme.py` writes tables and tells the rest"


def test_the_facts_of_this_process_are_whole():
    facts = importlib.import_module("facts")
    assert facts.missing(facts.facts(command="python benchmarks/x.py")) == []
    assert facts.missing({}) == ["command", "date", "machine.device", "versions.jax"]


def test_a_number_that_differs_is_told(tmp_path, monkeypatch):
    readme = importlib.import_module("readme")
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    (tmp_path / "a.json").write_text('{"b c": [{"d": 0.1234}, {"d": 20.5}]}')
    head = "<!-- numbers: a.json {b c[0][d]!p:.1f} {b c[1][d]:.1f} -->\n"
    assert readme.complaints(head + "It is 12.3 %, then\n20.5.\n\n99") == []
    assert len(readme.complaints(2 * head + "12.3")) == 2
    for text in (
        "It is 12.4 %, then 20.5.",
        "It is 20.5, then 12.3.",
        "It is 12.3.\n\n20.5",
        "12.34, 20.5",
        "112.3, 20.5",
    ):
        assert len(readme.complaints(head + text)) == 1, text


def test_a_table_that_differs_is_told_and_written():
    readme = importlib.import_module("readme")
    name = "benchmarks/results/compare_methods_images.json"
    page = f"a\n\n<!-- table: methods {name} -->\n```text\nold\nlines\n```\n\nb\n"
    assert len(readme.complaints(page)) == 1
    written = readme.updated(page)
    assert readme.complaints(written) == []
    assert written.startswith("a\n")
    assert written.endswith("```\n\nb\n")
    assert "full fine-tuning" in written
