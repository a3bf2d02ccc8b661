import json
import math

import pytest

from tljax.checkpoints.run import RunError
from tljax.training import read_rows
from tljax.training.log import Log


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
