"""A run that was killed and started again ends bit for bit as one that never was."""

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_cases import HITS, TANH, examples, same

from tljax.checkpoints.run import RunError
from tljax.objectives import cross_entropy
from tljax.plans import plan
from tljax.training import fit, read_rows
from tljax.training.loop import Loop

HERE = pathlib.Path(__file__).parent
SCRIPT = HERE / "resume_script.py"


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """A folder of compiled programs for all processes, of which each run would compile the same ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_ENABLE_COMPILATION_CACHE", "true")
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        yield


def launch(folder, *words, keeps=False):
    """Start a run; only one that `keeps` what it compiles writes to the cache, as a kill may cut an entry short."""
    folder.mkdir(parents=True, exist_ok=True)
    flags = " ".join(f for f in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in f)
    more = {
        "XLA_FLAGS": flags,
        "PYTHONPATH": f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0" if keeps else "1e9",
    }
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(SCRIPT), str(folder), *words],
        env=os.environ | more, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run(folder, *words, keeps=False):
    """The exit status and what was said on stderr."""
    process = launch(folder, *words, keeps=keeps)
    _, said = process.communicate(timeout=300)
    return process.returncode, said


def outcome(folder):
    """All that a finished run leaves: its result, its log, and the checksums of its last checkpoint."""
    with np.load(folder / "result.npz") as found:
        leaves = [found[name].tobytes() for name in found.files]
    checkpoints = folder / "run" / "checkpoints"
    newest = max((p for p in checkpoints.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    meta = json.loads((newest / "meta" / "metadata").read_text())
    log = (folder / "run" / "metrics.jsonl").read_bytes()
    return leaves, log, (folder / "history.txt").read_text(), newest.name, meta["sums"], meta["leaves"]


def finished(folder, *words, keeps=False):
    status, said = run(folder, *words, keeps=keeps)
    assert status == 0, said
    return outcome(folder)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("unbroken") / "a", keeps=True)


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_an_unbroken_one(tmp_path, unbroken):
    status, said = run(tmp_path, "save", "2")
    assert status == -signal.SIGKILL, said
    status, said = run(tmp_path, "log", "48", "signal=SIGTERM")
    assert status == 143, said
    assert said.strip().endswith("The same command continues from there.")
    # When the row of step 48 is written, the next launch is under way: up to step 49, at which a save is due.
    assert f"terminated at step 49; saved in {tmp_path}/run/checkpoints" in said
    assert (tmp_path / "run" / "checkpoints" / "49").is_dir()
    assert finished(tmp_path) == unbroken
    assert finished(tmp_path) == unbroken  # a finished run stays finished


DEATHS = ("trace", "close", "log-0", "log-15", "torn-5", "save-1", "saved-8")


@pytest.mark.slow
@pytest.mark.parametrize("death", DEATHS)
def test_killed_at_a_chosen_point(tmp_path, unbroken, death):
    status, said = run(tmp_path, *death.split("-"))
    assert status == -signal.SIGKILL, said
    assert finished(tmp_path) == unbroken


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "hook"),
    [("SIGTERM", "log-0"), ("SIGTERM", "log-60"), ("SIGTERM", "save-2"), ("SIGINT", "log-0"), ("SIGINT", "log-15")],
)
def test_asked_to_end_it_saves_and_ends(tmp_path, unbroken, number, hook):
    status, said = run(tmp_path, *hook.split("-"), f"signal={number}")
    if number == "SIGTERM":
        assert (status, said.count("\n")) == (143, 1), said
        assert "terminated at step" in said
    else:
        assert status in (-signal.SIGINT, 130), said
        assert "KeyboardInterrupt: interrupted at step" in said
    assert finished(tmp_path) == unbroken


@pytest.mark.slow
def test_a_stack_resumes_exactly(tmp_path):
    whole = finished(tmp_path / "whole", "stack=1", keeps=True)
    for death in (("log", "10"), ("save", "2"), ("torn", "25")):
        status, said = run(tmp_path / "broken", *death, "stack=1")
        assert status == -signal.SIGKILL, said
    assert finished(tmp_path / "broken", "stack=1") == whole


def has_a_row(log):
    return log.exists() and log.stat().st_size > 0


def seconds_of_training(process, folder):
    """How long `process` trained: from its first row of the log on."""
    while process.poll() is None and not has_a_row(folder / "run" / "metrics.jsonl"):
        time.sleep(0.005)
    began = time.monotonic()
    process.communicate()
    return time.monotonic() - began


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    long = ("steps=20000", "eval_every=1000", "log_every=500", "save_every=700")
    duration = seconds_of_training(launch(tmp_path / "whole", *long, keeps=True), tmp_path / "whole")
    whole, rng, kills = outcome(tmp_path / "whole"), random.Random(20), 0
    for attempt in range(2):
        folder = tmp_path / str(attempt)
        for _ in range(4):
            process = launch(folder, *long)
            while process.poll() is None and not has_a_row(folder / "run" / "metrics.jsonl"):
                time.sleep(0.005)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=rng.uniform(0, duration))
            process.kill()
            _, said = process.communicate()
            assert process.returncode in (0, -signal.SIGKILL), said
            kills += process.returncode != 0
        assert finished(folder, *long) == whole
    assert kills > 3


@pytest.mark.slow
@pytest.mark.parametrize("way", ["truncated", "emptied", "flipped"])
def test_a_damaged_newest_checkpoint_changes_nothing_but_a_warning(tmp_path, unbroken, way):
    assert run(tmp_path, "saved", "4")[0] == -signal.SIGKILL
    newest = tmp_path / "run" / "checkpoints" / "28"
    file = max(newest.glob("state/d/*"), key=lambda f: f.stat().st_size)
    content = bytearray(file.read_bytes())
    if way == "flipped":
        content[len(content) // 2] ^= 1
    file.write_bytes({"truncated": content[: len(content) // 2], "emptied": b"", "flipped": content}[way])
    status, said = run(tmp_path)  # it runs with warnings as errors
    assert status == 1
    assert "checkpoint 28 is damaged" in said
    assert "checkpoint 21 is used" in said
    assert finished(tmp_path) == unbroken


# --- in one process --------------------------------------------------------------------------------------------------

X, Y = examples(40)
ENTROPY, ADAM = cross_entropy(), optax.adam(0.05)
SHORT = {"optimizer": ADAM, "steps": 24, "batch_size": 8, "eval_every": 6, "progress": False, "metric": HITS}


def start():
    return TANH.init(jax.random.key(0), X)


def short(folder=None, **options):
    options = {
        "optimizer": ADAM,
        "steps": 24,
        "batch_size": 8,
        "eval_every": 6,
        "progress": False,
        "metric": HITS,
    } | options
    return fit(TANH, start(), ENTROPY, plan(), (X[:30], Y[:30]), (X[30:], Y[30:]), run_dir=folder, **options)


class Stop(Exception):  # noqa: N818
    pass


def stopping_at(step):
    def listen(row):
        if row["step"] >= step:
            raise Stop

    return [listen]


def interrupted(folder, step, **options):
    with pytest.raises(Stop):
        short(folder, on_log=stopping_at(step), **options)


@pytest.mark.parametrize("step", [0, 11, 24])
def test_a_run_that_raised_goes_on_as_if_it_had_not(tmp_path, step):
    whole = short(log_every=1)
    interrupted(tmp_path, step, log_every=1, save_every=4)
    again = short(tmp_path, log_every=1, save_every=4)
    assert same((again.last, again.params), (whole.last, whole.params))
    assert again.history == whole.history == tuple(read_rows(tmp_path / "metrics.jsonl"))


def test_the_rhythm_of_saving_is_no_part_of_the_configuration(tmp_path):
    interrupted(tmp_path, 15, save_every=5)
    assert same(short(tmp_path, save_every=7, keep=1).last, short().last)


def test_a_damaged_log_is_told_and_the_run_is_whole(tmp_path):
    interrupted(tmp_path, 18, save_every=6)
    file = tmp_path / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b"\xff\xfe garbage\n" + lines[2][:9] + b"\n17\n" + b"".join(lines[3:]))
    with pytest.warns(UserWarning, match=r"metrics.jsonl is damaged: it should have 5 rows up to step 12 and has 3"):
        again = short(tmp_path, save_every=6)
    assert same(again.last, short().last)
    assert [row["step"] for row in read_rows(file)] == [row["step"] for row in again.history]


def test_a_lost_log_is_told(tmp_path):
    interrupted(tmp_path, 18, save_every=6)
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.warns(UserWarning, match="should have 5 rows up to step 12 and has 0"):
        again = short(tmp_path, save_every=6)
    assert same(again.last, short().last)


def test_where_every_checkpoint_is_damaged_the_run_does_not_start_over(tmp_path):
    short(tmp_path, save_every=12)
    for checkpoint in (tmp_path / "checkpoints").glob("[0-9]*"):
        shutil.rmtree(checkpoint / "state")
    log = (tmp_path / "metrics.jsonl").read_bytes()
    for _ in range(2):
        with pytest.raises(RunError, match=r"every checkpoint in .* is damaged"):
            short(tmp_path, save_every=12)
    assert (tmp_path / "metrics.jsonl").read_bytes() == log


@pytest.mark.slow
def test_a_run_that_stopped_early_stays_stopped(tmp_path):
    def stalling(folder):
        return short(folder, optimizer=STILL, patience=2, steps=60)

    first = stalling(tmp_path)
    assert first.steps == 12  # evaluations at 0, 6, 12, of which none is better than the first
    again = stalling(tmp_path)
    assert same(again.last, first.last)
    assert (again.steps, again.history) == (12, first.history)
    assert again.training_seconds == first.training_seconds


STILL = optax.sgd(0.0)


def saves(folder):
    return sorted(int(p.name) for p in (folder / "checkpoints").glob("[0-9]*"))


def test_where_nothing_is_said_it_is_saved_half_way_at_the_end_and_by_the_clock(tmp_path, monkeypatch):
    short(tmp_path / "a", keep=50)
    assert saves(tmp_path / "a") == [12, 24]
    now = [0.0]
    clock = types.SimpleNamespace(perf_counter=time.perf_counter, monotonic=lambda: now[0])
    monkeypatch.setattr("tljax.training.loop.time", clock)
    launch = Loop._launch

    def slow(loop, run, step):
        now[0] += 40
        return launch(loop, run, step)

    monkeypatch.setattr(Loop, "_launch", slow)
    monkeypatch.setattr("tljax.training.loop.next_chunk", lambda *_, **__: 100)
    short(tmp_path / "b", keep=50)
    assert saves(tmp_path / "b") == [12, 18, 24]  # half-way, forty seconds later, at the end


def test_training_seconds_add_up_over_restarts(tmp_path):
    interrupted(tmp_path, 18, save_every=6)
    assert 0 < short(tmp_path, save_every=6).training_seconds < 60


@pytest.mark.slow
def test_sharded_parameters_resume(tmp_path):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("d",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    params = jax.device_put(start(), spread)

    def sharded(**options):
        return fit(TANH, params, ENTROPY, plan(), (X, Y), (X, Y), optimizer=ADAM, steps=12, batch_size=8, eval_every=6,
                   progress=False, save_every=4, **options)  # fmt: skip

    whole = sharded()
    with pytest.raises(Stop):
        sharded(run_dir=tmp_path, on_log=stopping_at(6))
    again = sharded(run_dir=tmp_path)
    assert same(again.last, whole.last)
    assert len(jnp.asarray(again.last["head"]["w"]).devices()) == 4
