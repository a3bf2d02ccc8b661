import io
import re

import pytest

from tljax.evaluation.progress import progress_bar


class Terminal(io.StringIO):
    def __init__(self, tty):
        super().__init__()
        self._tty = tty

    def isatty(self):
        return self._tty


def told(monkeypatch, tty, steps, **options):
    out = Terminal(tty)
    monkeypatch.setattr("sys.stderr", out)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("digits [0-4] [bold]", 1200, show=True, **options) as tell:
        for step in steps:
            tell(step, 12345.6, {"train loss": 0.51234, "valid accuracy": 1.0})
    return out.getvalue()


def test_elsewhere_than_on_a_terminal_there_are_a_few_lines_and_always_the_last(monkeypatch):
    lines = told(monkeypatch, False, range(1, 1001)).splitlines()
    assert lines == [
        "digits [0-4] [bold]: step 1 of 1,200, 12,346 examples/s  train loss 0.5123  valid accuracy 1",
        "digits [0-4] [bold]: step 1,000 of 1,200, 12,346 examples/s  train loss 0.5123  valid accuracy 1",
    ]


def test_lines_come_with_the_clock(monkeypatch):
    monkeypatch.setattr("tljax.evaluation.progress.LINE_SECONDS", 0.0)
    assert len(told(monkeypatch, False, [1, 2, 3]).splitlines()) == 3


def test_a_run_without_steps_says_nothing(monkeypatch):
    assert told(monkeypatch, False, []) == ""


@pytest.mark.parametrize(("width", "title"), [(140, "digits [0-4] [bold]"), (80, "digits")])
def test_on_a_terminal_there_is_a_bar_that_fits(monkeypatch, width, title):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    text = told(monkeypatch, True, [600, 1200])
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text.split("\r")[-1]).strip()
    assert len(last) <= width
    for part in (title, "━━━", "1200/1200", "12,346 ex/s", "train loss 0.5123"):
        assert part in last


def test_no_progress_where_none_is_wanted(monkeypatch):
    out = Terminal(True)
    monkeypatch.setattr("sys.stderr", out)
    with progress_bar("title", 10, show=False) as tell:
        tell(1, 1.0, {})
    assert out.getvalue() == ""
