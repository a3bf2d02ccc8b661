"""The HTML report: sound markup, nothing outside the file, the numbers of the results, and nothing unescaped."""

import base64
import html.parser
import re
import xml.etree.ElementTree

import pytest
from test_report_fakes import fake_results

from tljax.evaluation.report import ReportError, render_html, render_markdown, render_text
from tljax.evaluation.report.html import page

VOID = {"meta", "img", "source", "br", "link"}
HOSTILE = "<script>alert('1')</script>"


class Page(html.parser.HTMLParser):
    """Tags, attributes and text of a page; fails on a tag that is closed out of order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).replace("\xa0", " ").split())

    def attributes(self, name):
        return [attributes[name] for _, attributes in self.tags if name in attributes]


@pytest.fixture(scope="module")
def results():
    return fake_results()


@pytest.fixture(scope="module")
def text(results):
    return render_html(results)


def without_pictures(results):
    """The page of `results` with empty pictures: what is not about pictures needs none drawn."""
    blank = dict.fromkeys(("gain", "accuracy", "curves", "confusion"), "<svg/>")
    return page(results, blank, blank)


def test_every_tag_is_closed_in_order(text):
    assert Page(text).open == []


def test_nothing_is_fetched_from_outside(text):
    found = Page(text)
    assert not {"script", "link", "iframe", "object", "a", "base"} & {tag for tag, _ in found.tags}
    for name in ("src", "srcset", "href"):
        assert all(value.startswith("data:image/svg+xml;base64,") for value in found.attributes(name))
    outside_of_pictures = re.sub(r"data:[^\"]*", "", text)
    assert "http" not in outside_of_pictures.replace("http-equiv", "")
    assert "url(" not in outside_of_pictures
    assert "@import" not in outside_of_pictures


def test_pictures_are_svg_for_light_and_dark_with_words_for_who_cannot_see_them(text):
    found = Page(text)
    images = [attributes for tag, attributes in found.tags if tag == "img"]
    dark = [attributes for tag, attributes in found.tags if tag == "source"]
    assert len(images) == len(dark) == 4
    for data in [a["src"] for a in images] + [a["srcset"] for a in dark]:
        root = xml.etree.ElementTree.fromstring(base64.b64decode(data.partition(",")[2]))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert all(len(attributes["alt"]) > 40 for attributes in images)
    assert all("dark" in attributes["media"] for attributes in dark)
    assert {a["src"] for a in images}.isdisjoint(a["srcset"] for a in dark)


@pytest.mark.parametrize(("gain", "outcome"), [(0.2, "helped"), (-0.2, "hurt"), (0.0, "undecided")])
def test_the_verdict_comes_first_in_its_own_colour(gain, outcome):
    results = fake_results(gain=gain, shots=(10,))
    assert results["verdict"]["outcome"] == outcome
    text = without_pictures(results)
    found = Page(text).text
    assert found.index(results["verdict"]["sentence"]) < found.index("With 10 labels per class method")
    assert f'class="verdict {outcome}"' in text


def test_the_numbers_are_those_of_the_results(results, text):
    found = Page(text).text
    for entry in results["summary"]:
        value = entry["metrics"]["accuracy"]
        assert f"{100 * value['mean']:.1f} ± {100 * value['half_width']:.1f}" in found
    gain = next(e["gain"] for e in results["summary"] if e["method"] == "full" and e["shots"] == 10)
    low, high = (f"{100 * gain[end]:+.1f}".replace("-", "−") for end in ("low", "high"))
    assert f"{100 * gain['mean']:+.1f} points paired gain [{low}, {high}]" in found


def test_a_section_for_everything_a_reader_may_ask(text):
    headings = re.findall("<h2>(.*?)</h2>", text)
    assert headings == [
        "With 10 labels per class", "Accuracy against labels per class", "By labels per class", "Learning curves",
        "Confusion", "Recall of each class", "What was transferred", "Data and protocol", "How to read it",
    ]  # fmt: skip


def test_the_protocol_is_told_in_full(results, text):
    found = Page(text).text
    assert "0.0003, 0.001, 0.003, for every trained method" in found
    assert results["protocol"]["chosen_by"] in found
    assert "adamw" in found
    assert "at most 300 steps of 32 examples" in found
    for size in (541, 90, 270, 500, 100, 300):
        assert str(size) in found


def test_the_graft_report_keeps_its_columns(results, text):
    assert f">{html.escape(results['graft']['text'])}</pre>" in text


def test_what_comes_from_data_is_escaped():
    results = fake_results(classes=(HOSTILE, '"quoted" & more', "\x1b[31mred\x00"), shots=(10,), title=HOSTILE)
    results["source"]["name"] = results["model"]["name"] = HOSTILE
    results["graft"]["text"] = f"{HOSTILE}\x1b[0m"
    results["verdict"] |= {"sentence": HOSTILE, "outcome": HOSTILE}
    text = without_pictures(results)
    found = Page(text)
    assert "script" not in {tag for tag, _ in found.tags}
    assert HOSTILE in found.text
    assert '"quoted" & more' in found.text
    assert "\x1b" not in text
    assert "\x00" not in text
    assert all("<" not in value for value in found.attributes("class"))


def test_regression_speaks_of_errors_and_examples_and_shows_no_classes():
    found = Page(without_pictures(fake_results(classes=None, shots=(5, 20)))).text
    assert "RMSE against labelled examples" in found
    assert "(a fall counts as a gain)" in found
    assert "per class" not in found
    assert "Confusion" not in found
    assert "None" not in found


def test_one_seed_shows_no_interval_and_says_so():
    found = Page(without_pictures(fake_results(seeds=1))).text
    assert "intervals are undefined" in found
    assert "±" not in found
    assert "nan" not in found
    assert "None" not in found


@pytest.mark.parametrize("render", [render_html, render_markdown, render_text])
def test_results_without_a_part_are_refused_with_its_name(render, results):
    with pytest.raises(ReportError, match="lack summary"):
        render({key: value for key, value in results.items() if key != "summary"})
    with pytest.raises(ReportError, match="no shots"):
        render(results | {"shots": []})
