"""Two real processes on one machine: what they compute together, and what becomes of the rest when one dies."""

import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest
from training_cases import HITS, TANH, examples

from tljax.data import Shuffled, fold_seed
from tljax.objectives import cross_entropy
from tljax.plans import plan
from tljax.training import fit, layout, mesh

HERE = pathlib.Path(__file__).parent
SCRIPT = HERE / "process_script.py"
STEPS = 24


def launch(folder, count, *words):
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    return [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), str(port), str(count), str(number), *words],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for number in range(count)
    ]  # fmt: skip


def finished(processes):
    """Exit statuses, and what was said."""
    try:
        said = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], said


def run(folder, count, *words):
    return finished(launch(folder, count, *words))


def leaves(folder):
    with np.load(folder / "result.npz") as found:
        return {name: found[name] for name in found.files}


def log(folder):
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


def alone(**options):
    """The same run in this process, from arrays in memory."""
    x, y = examples(40)
    return fit(
        TANH, TANH.init(jax.random.key(0), x), cross_entropy(), plan(), (x[:30], y[:30]), (x[30:], y[30:]),
        optimizer=optax.adam(0.05), steps=STEPS, batch_size=8, metric=HITS, eval_every=6, log_every=3, progress=False,
        **options,
    )  # fmt: skip


def close(folder, result):
    """To a few units in the last place: sums over processes are made in another order."""
    found = leaves(folder)
    assert found.pop("value") == result.best_value
    for a, b in zip(found.values(), jax.tree.leaves((result.params, result.last)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    statuses, said = run(folder, 2)
    assert statuses == [0, 0], said
    return folder


def equal(folder, other):
    """Bit for bit, the log too."""
    first, second = leaves(folder), leaves(other)
    assert first.keys() == second.keys()
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    assert log(folder) == log(other)


def test_two_processes_train_on_streams_as_one_does_on_arrays(unbroken):
    result = alone()
    close(unbroken, result)
    rows = log(unbroken)
    assert [(row["step"], row["split"]) for row in rows] == [(row["step"], row["split"]) for row in result.history]
    for row, other in zip(rows, result.history):
        np.testing.assert_allclose(list(row.values())[2:], list(other.values())[2:], rtol=1e-5, atol=1e-6)
    _check_division(unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("who", [0, 1])
def test_one_killed_ends_the_other_and_both_go_on_bit_for_bit(tmp_path, unbroken, who):
    statuses, said = run(tmp_path, 2, "die=15", f"who={who}")
    assert statuses[who] == -signal.SIGKILL, said
    assert statuses[1 - who] not in (0, None), said  # JAX ends it: it does not wait for ever
    assert not (tmp_path / "result.npz").exists()
    statuses, said = run(tmp_path, 2)
    assert statuses == [0, 0], said
    equal(tmp_path, unbroken)


def _check_division(folder):
    """Together the processes read the examples of every step, each its own; of those to evaluate none is read twice."""
    asked = [json.loads((folder / f"{number}.json").read_text()) for number in (0, 1)]
    train = [one["train"] for one in asked]
    assert len(train[0]) == len(train[1])
    order, steps = Shuffled(int(fold_seed(0, 0)), 8, 30), sum(map(len, train)) // 8  # those since the checkpoint
    np.testing.assert_array_equal(
        np.sort(np.concatenate(train)), np.sort(np.concatenate([order(s) for s in range(STEPS - steps, STEPS)]))
    )
    first, second = (set(one["valid"]) for one in asked)
    assert first | second == set(range(10))
    assert not first & second


@pytest.mark.slow
def test_sigterm_to_one_ends_all_at_one_step_and_nothing_is_lost(tmp_path, unbroken):
    statuses, said = run(tmp_path, 2, "term=12", "who=1")
    assert statuses == [143, 143], said
    assert sum("terminated at step 12; saved in" in text for text in said) == 1
    statuses, said = run(tmp_path, 2)
    assert statuses == [0, 0], said
    equal(tmp_path, unbroken)


@pytest.mark.slow
def test_killed_at_random_it_goes_on_in_one_process(tmp_path):
    rng = random.Random(time.time_ns())
    processes = launch(tmp_path, 2)
    while not (tmp_path / "run" / "metrics.jsonl").exists() and processes[0].poll() is None:
        time.sleep(0.1)
    time.sleep(rng.random() * 3)
    processes[rng.randrange(2)].kill()
    statuses, said = finished(processes)
    assert 0 not in statuses or statuses == [0, 0], said
    status, said = run(tmp_path, 1)
    assert status == [0], said
    close(tmp_path, alone(mesh=mesh(data=2, fsdp=2, devices=jax.devices()[:4]), layout=layout(above=8)))


@pytest.mark.slow
def test_what_one_cannot_read_is_told_by_all(tmp_path):
    statuses, said = run(tmp_path, 2, "read=40", "who=1")
    assert statuses == [1, 1], said
    assert "cannot be read (OSError: no such disk)" in said[1]
    assert "ProcessError: process 1 failed" in said[0]
    assert "no such disk" in said[0]
