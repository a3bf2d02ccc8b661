"""Times, their statistics, and comparisons, by a clock of the test's own and by hand."""

import json

import numpy as np
import pytest

from tljax.recipes.bench.compare import Ratio, compare_files, ratio
from tljax.recipes.bench.error import BenchError
from tljax.recipes.bench.memory import Used, own_peak
from tljax.recipes.bench.rounds import Timed, check_resolution, rounds, tick_of
from tljax.recipes.bench.run import reason_of
from tljax.recipes.bench.spread import spread
from tljax.recipes.options import SettingsError


class Clock:
    """Goes on only when it is told to."""

    now = 0.0

    def __call__(self):
        return self.now

    def work(self, seconds):
        self.now += seconds


def timed(clock, durations, waiting=0.0):
    """Work whose units take these seconds, in turn."""
    left = iter(durations)

    def launch(n):
        clock.work(n * next(left))

    return Timed(launch, after=lambda: clock.work(waiting))


@pytest.mark.slow
def test_times_are_those_of_the_clock_alone():
    clock = Clock()
    work = timed(clock, [3.0, 1.0, 2.0], waiting=100.0)
    work.units = 2
    rounds([work], 3, clock=clock)
    assert work.unit_seconds == [3.0, 1.0, 2.0]  # what is done after a turn does not count
    assert spread(work.unit_seconds).median == 2.0
    assert work.host_share == 1.0  # nothing was left to wait for


def test_launching_and_waiting_are_told_apart(monkeypatch):
    clock = Clock()
    work = timed(clock, [1.0, 1.0])
    monkeypatch.setattr("tljax.recipes.bench.rounds.jax.block_until_ready", lambda arrays: clock.work(3.0))
    rounds([work], 2, clock=clock)
    assert work.wall == [4.0, 4.0]
    assert work.host_share == 0.25


def test_every_round_has_all_and_begins_with_another():
    clock, order = Clock(), []
    works = [Timed(lambda n, name=name: order.append(name)) for name in "abc"]
    rounds(works, 3, clock=clock)
    assert "".join(order) == "abcbcacab"


def test_what_fails_leaves_and_the_others_go_on():
    clock, told = Clock(), []

    def broken(n):
        raise RuntimeError("gone")

    works = [timed(clock, [1.0] * 3), Timed(broken), timed(clock, [2.0] * 3)]
    rounds(works, 3, clock=clock, failed=lambda which, error: told.append((works.index(which), str(error))))
    assert told == [(1, "gone")]
    assert [work.wall for work in works] == [[1.0] * 3, [], [2.0] * 3]
    with pytest.raises(RuntimeError, match="gone"):
        rounds([Timed(broken)], 1, clock=clock)


@pytest.mark.parametrize(("unit", "seconds", "least"), [(1e-4, 0.5, 0.4), (0.3, 0.5, 0.4), (2.0, 0.5, 2.0)])
def test_a_turn_lasts_as_long_as_it_should(unit, seconds, least):
    clock = Clock()
    work = Timed(lambda n: clock.work(n * unit))
    work.settle(seconds, clock=clock)
    assert least <= work.units * unit <= max(3 * seconds, unit)
    assert work.wall == work.launching == []


def test_settling_is_not_misled_by_a_first_turn_that_compiles():
    clock, first = Clock(), iter([60.0])
    work = Timed(lambda n: clock.work(next(first, 0) + n * 0.01))
    work.settle(0.5, clock=clock)
    assert 40 <= work.units <= 60


def test_a_number_that_was_given_stays():
    clock = Clock()
    work = Timed(lambda n: clock.work(1e-6))
    work.settle(0.5, units=7, clock=clock)
    assert work.units == 7


def test_the_resolution_of_a_clock_is_found_and_minded():
    coarse = iter(np.repeat(np.arange(100) * 0.015, 3))
    assert tick_of(lambda: float(next(coarse))) == pytest.approx(0.015)
    work = Timed(print, units=3, wall=[1.0, 20.0])
    check_resolution(work, "x", 0.001)
    with pytest.raises(BenchError, match="3 of them took 1 s, and the clock ticks every"):
        check_resolution(work, "x", 0.0011)


def test_quartiles_by_hand():
    found = spread([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (found.least, found.q1, found.median, found.q3, found.most, found.repeats) == (1, 2, 3, 4, 5, 5)
    assert found.width == pytest.approx(2 / 3)
    assert found.wide
    even = spread([10.0, 10.1, 10.2, 10.3])  # at positions .75, 1.5, 2.25
    assert (even.q1, even.median, even.q3) == pytest.approx((10.075, 10.15, 10.225))
    assert not even.wide
    assert spread([1.0, 1.0, 1.0, 1.0, 100.0]).median == 1.0  # one disturbance moves no quartile


def row(median, *, method="full", width=0.02, **more):
    half = median * width / 2
    step = {"median": median, "q1": median - half, "q3": median + half}
    configuration = {"model": "mlp", "method": method, "batch": 8, "dtype": "float32"}
    return {"configuration": configuration | more.pop("configuration", {}), "step_seconds": step, **more}


def results(*rows, kind="H200", jax="0.10.2"):
    return {
        "kind": "tljax bench", "date": "2026-11-28", "machine": {"device": kind},
        "versions": {"jax": jax}, "flags": {}, "rows": list(rows), "warnings": [],
    }  # fmt: skip


def compared(tmp_path, a, b):
    files = [tmp_path / name for name in ("a.json", "b.json")]
    for file, found in zip(files, (a, b)):
        file.write_text(json.dumps(found))
    return compare_files(*map(str, files)).splitlines()


def test_a_comparison_by_hand(tmp_path):
    a = results(row(1.0, method="full"), row(1.0, method="lora"), row(1.0, method="ia3"), row(1.0, method="dora"))
    b = results(
        row(1.2, method="full", flops_per_step=3.0),
        row(0.8, method="lora"),
        row(1.03, method="ia3"),
        row(1.2, method="dora", width=0.6),
    )
    a["rows"][0]["flops_per_step"] = 2.0
    lines = compared(tmp_path, a, b)
    by_method = {line.split()[1]: line for line in lines if line.startswith("mlp")}
    assert by_method["full"].split()[-5:] == ["1.224", "SLOWER", "FLOPs", "x", "1.50"]
    assert by_method["full"].split()[4:9] == ["1.00", "s", "1.20", "s", "1.200"]
    assert by_method["full"].split()[9] == "1.176"  # (1.2 - .012) / (1 + .01)
    assert by_method["lora"].split()[-1] == "faster"
    assert by_method["ia3"].split()[-1] == "same"
    assert by_method["dora"].split()[-1] == "unclear"
    assert not any(line.startswith("differs") for line in lines)


def test_differing_devices_versions_and_doubts_are_told(tmp_path):
    b = results(row(1.0), kind="A100", jax="0.11.0") | {
        "warnings": ["the machine was busy"],
        "flags": {"XLA_FLAGS": "x"},
    }
    lines = compared(tmp_path, results(row(1.0)), b)
    assert "differs: machine device: H200 in A, A100 in B" in lines
    assert "differs: versions jax: 0.10.2 in A, 0.11.0 in B" in lines
    assert "differs: flags XLA_FLAGS: none in A, x in B" in lines
    assert "B warns: the machine was busy" in lines


def test_rows_that_fail_or_stand_alone(tmp_path):
    gone = {"configuration": row(1.0)["configuration"], "failed": "out of memory"}
    lines = compared(tmp_path, results(row(1.0), row(1.0, method="lora")), results(gone, row(2.0, method="ia3")))
    assert lines[-2:] == ["only in A: mlp lora 8 float32", "only in B: mlp ia3 8 float32"]
    assert any("FAILS  out of memory" in line for line in lines)


def test_rows_are_told_apart_by_what_differs(tmp_path):
    rows = [row(1.0, configuration={"rank": rank}) for rank in (4, 8)]
    lines = compared(tmp_path, results(*rows), results(*rows))
    assert [line.split()[4:6] for line in lines if line.startswith("mlp")] == [["rank", "4"], ["rank", "8"]]


def test_nothing_in_common_is_said(tmp_path):
    lines = compared(tmp_path, results(row(1.0)), results(row(1.0, method="lora")))
    assert "no configuration is in both" in lines


def test_the_range_of_a_ratio():
    old, new = {"median": 2.0, "q1": 1.9, "q3": 2.2}, {"median": 3.0, "q1": 2.4, "q3": 3.3}
    assert ratio(old, new) == pytest.approx((1.5, 2.4 / 2.2, 3.3 / 1.9))
    assert Ratio(0.9, 0.85, 0.95).verdict == "faster"
    assert Ratio(0.9, 0.85, 1.01).verdict == "unclear"
    assert Ratio(1.0, 0.6, 1.6).verdict == "unclear"
    assert Ratio(1.0, 0.95, 1.05).verdict == "same"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("not json", "cannot be read as JSON"),
        ("[1]", "is no result of tljax bench"),
        ('{"kind": "other"}', "is no result of tljax bench"),
        ('{"kind": "tljax bench", "rows": [{}]}', "is damaged"),
        ('{"kind": "tljax bench", "rows": [], "machine": 3, "versions": {}}', "is damaged"),
    ],
)
def test_files_that_are_no_results(tmp_path, content, said):
    file = tmp_path / "a.json"
    file.write_text(content)
    with pytest.raises(BenchError, match=said):
        compare_files(str(file), str(file))


def test_reasons_are_one_line():
    assert reason_of(MemoryError()) == "out of memory: of the host"
    assert reason_of(KeyError("x")) == "KeyError: 'x'"
    assert reason_of(SettingsError("this\nthat")) == "this"


@pytest.mark.parametrize(
    ("before", "after", "own"),
    [
        (None, None, None),
        (Used(0, 0), Used(10, 700), 700),
        (Used(300, 500), Used(400, 900), 600),
        (Used(300, 900), Used(400, 900), None),
    ],
)
def test_the_peak_of_the_device_is_a_configurations_own(before, after, own):
    assert own_peak(before, after) == own
