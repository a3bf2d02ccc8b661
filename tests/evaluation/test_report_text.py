"""The report in a terminal and in Markdown."""

import re

import pytest
from test_report_fakes import fake_results

from tljax.evaluation.report import render_markdown, render_text
from tljax.evaluation.report.markdown import escape, fenced
from tljax.evaluation.report.text import WIDTH, aligned


@pytest.fixture(scope="module")
def results():
    return fake_results()


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"seeds": 1, "shots": (10,)},
        {"seeds": 2, "shots": (1, 2, 3, 4, 5, 10, 20, 50, 100)},
        {"classes": None},
        {"methods": ("full", "scratch", "linear-probe", "lp-ft", "knn", "another-method", "and-one-more")},
        {"title": "a very long title " * 12},
    ],
)
def test_the_terminal_text_fits_its_width_and_ends_with_the_verdict(variant):
    results = fake_results(**variant)
    text = render_text(results)
    assert max(map(len, text.splitlines())) <= WIDTH == 100
    last = text.strip().rpartition("\n\n")[2]
    assert " ".join(last.split()) == results["verdict"]["sentence"]
    assert "None" not in text


def test_the_terminal_table_holds_every_method_and_number(results):
    lines = render_text(results).splitlines()
    accuracy = next(line for line in lines if line.startswith("accuracy %"))
    for method, shown in zip(results["methods"], re.findall(r"[\d.]+ ± [\d.]+", accuracy), strict=True):
        value = next(e for e in results["summary"] if e["method"] == method and e["shots"] == 10)["metrics"]["accuracy"]
        assert shown == f"{100 * value['mean']:.1f} ± {100 * value['half_width']:.1f}"
    gains = next(line for line in lines if "gain over scratch" in line)
    assert len(re.findall(r"[+−][\d.]+|–", gains)) == 4


def test_a_table_too_wide_comes_in_pieces_that_repeat_the_first_column():
    row = ("name", *(str(10**9 + i) for i in range(20)))
    text = aligned([row, ("part",), row])
    assert max(map(len, text.splitlines())) <= WIDTH
    pieces = text.split("\n\n")
    assert len(pieces) > 2
    assert all(piece.startswith("name") for piece in pieces)
    assert re.findall(r"\d+", text.replace("\n", " ")).count("1000000019") == 2


def test_control_characters_do_not_reach_the_terminal():
    results = fake_results(title="evil \x1b[2J title", shots=(10,))
    results["verdict"]["sentence"] += "\x07"
    assert "\x1b" not in render_text(results)
    assert "\x07" not in render_text(results)


def test_markdown_tables_are_rectangular(results):
    blocks = [b for b in render_markdown(results).split("\n\n") if b.startswith("|")]
    assert len(blocks) == 6
    for block in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1


def test_markdown_marks_the_best_and_points_to_the_pictures(results):
    text = render_markdown(results)
    assert re.findall(r"\(pictures/(\w+)\.svg\)", text) == ["gain", "accuracy", "curves", "confusion"]
    best = max(e["metrics"]["accuracy"]["mean"] for e in results["summary"] if e["shots"] == 10)
    assert f"| **{100 * best:.1f}** ± " in text
    lead, _, rest = results["verdict"]["sentence"].partition(": ")
    assert f"**{lead}:** {rest}" in text


def test_markdown_escapes_what_comes_from_data():
    names = ("a|b", "<img src=x onerror=y>", "*bold*", "[link](x)", "`code`", "back\\slash")
    text = render_markdown(fake_results(classes=names, shots=(10,)))
    for name in names:
        assert not re.search(rf"(?<!\\){re.escape(name)}", text)
    assert r"a\|b" in text
    assert r"\<img src=x onerror=y\>" in text


@pytest.mark.parametrize("text", ["plain words", "0.05 and -3 + 4", "it's 10 % (or so)", "−5.0", "a-b=c"])
def test_markdown_leaves_plain_text_alone(text):
    assert escape(text) == text


@pytest.mark.parametrize("text", ["1. item", "12) item", "- item", "+ item", "# title", "---", "==="])
def test_markdown_text_starts_no_list_title_or_rule(text):
    escaped = escape(text)
    assert escaped.replace("\\", "") == text
    assert not re.match(r"\d+[.)]\s|[-+]\s|#|[-=]+$", escaped)


def test_a_code_block_is_not_closed_by_what_it_holds():
    assert fenced("a\n````\nb").splitlines() == ["`````text", "a", "````", "b", "`````"]
