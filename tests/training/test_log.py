import io
import json
import math
import re

import pytest

from tljax.checkpoints.run import RunError
from tljax.training import read_rows
from tljax.training.log import Log, progress_bar


def rows(n, first=1):
    return [{"step": i, "split": "train", "loss": 1 / i} for i in range(first, first + n)]


def test_rows_are_kept_written_and_shown(tmp_path):
    seen = []
    log = Log(tmp_path / "a.jsonl", (seen.append,))
    log.rewind(-1)
    for row in rows(3):
        log.add(row)
    assert log.rows == seen == rows(3) == read_rows(tmp_path / "a.jsonl")


def test_without_a_file_rows_are_in_memory_only():
    log = Log(None)
    log.rewind(-1)
    log.add({"step": 1})
    assert log.rows == [{"step": 1}]


def test_rewinding_drops_what_comes_later_and_what_was_cut_short(tmp_path):
    file = tmp_path / "a.jsonl"
    log = Log(file)
    for row in rows(6):
        log.add(row)
    with file.open("a") as out:
        out.write('{"step": 2, "spl')
    log = Log(file)
    log.rewind(4, expected=4)
    assert log.rows == rows(4) == read_rows(file)
    log.add({"step": 5, "split": "valid"})
    assert read_rows(file)[-1] == {"step": 5, "split": "valid"}


@pytest.mark.parametrize(
    "damage", [b"\xff\xfe\x00\n", b'{"step": 2, "split"\n', b"17\n", b'{"loss": 1}\n', b'{"step": "2"}\n', b"\n"]
)
def test_what_is_no_row_is_left_out_and_told(tmp_path, damage):
    file = tmp_path / "a.jsonl"
    lines = [json.dumps(row).encode() + b"\n" for row in rows(3)]
    file.write_bytes(lines[0] + damage + lines[2])
    assert read_rows(file) == [rows(3)[0], rows(3)[2]]
    with pytest.warns(UserWarning, match="should have 3 rows up to step 3 and has 2"):
        Log(file).rewind(3, expected=3)
    assert file.read_bytes() == lines[0] + lines[2]


def test_json_knows_no_nan(tmp_path):
    log = Log(tmp_path / "a.jsonl")
    log.add({"step": 1, "loss": math.inf, "norm": math.nan, "accuracy": 0.5})
    text = (tmp_path / "a.jsonl").read_text()
    assert json.loads(text) == {"step": 1, "loss": None, "norm": None, "accuracy": 0.5}
    assert repr(read_rows(tmp_path / "a.jsonl")) == repr(log.rows)  # memory and file tell the same


def test_a_log_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(RunError, match=r"a.jsonl could not be written: Is a directory"):
        Log(tmp_path / "a.jsonl").add({"step": 1})


def test_a_missing_file_has_no_rows(tmp_path):
    assert read_rows(tmp_path / "none.jsonl") == []


# --- progress --------------------------------------------------------------------------------------------------------


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
    monkeypatch.setattr("tljax.training.log.LINE_SECONDS", 0.0)
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
