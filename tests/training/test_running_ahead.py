"""The host beside the device: what it launches, what it copies, and that it looks at steps while others are made."""

import itertools
import time

import jax
import numpy as np
import optax
import pytest

import tljax as tl
from tljax.training import NonFiniteError
from tljax.training.compile import Compiling
from tljax.training.loop import Loop

X = np.random.default_rng(0).normal(size=(24, 3)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")
MODEL, OBJECTIVE, RULE = tl.models.mlp((4,), num_classes=2), tl.cross_entropy(), optax.sgd(0.1)
PARAMS = MODEL.init(jax.random.key(0), X)


def fit(**options):
    given = {"train": (X, Y), "valid": (X, Y), "optimizer": RULE, "batch_size": 8, "progress": False}
    return tl.fit(MODEL, PARAMS, OBJECTIVE, **given | options)


@pytest.fixture
def done(monkeypatch):
    """What the host does, in order: programs that it launches, steps that it looks at, copies to the host, saves."""
    found = []

    def told(where, name, tell):
        plain = getattr(where, name)

        def telling(*arguments):
            found.append(tell(*arguments))
            return plain(*arguments)

        monkeypatch.setattr(where, name, telling)

    fit(steps=2, log_every=1, eval_every=2)  # compiled
    told(Compiling, "__call__", lambda program, *_: "launch")
    told(Loop, "_look", lambda loop, flight, run: f"look {flight.step}")
    told(Loop, "_launch", lambda loop, run, step: f"after {step}")
    told(jax, "device_get", lambda tree: "copy")
    monkeypatch.setattr("tljax.training.loop.next_chunk", lambda *_, **__: 100)
    return found


def test_a_log_interval_takes_three_launches_and_one_copy(done):
    """The steps, a note for the host, and the sums set to zero; the first launch is of one step."""
    fit(steps=400, log_every=100, eval_every=400, valid=None)
    at = [done.index(f"after {step}") for step in (100, 200, 300)]
    for first, last in itertools.pairwise(at):
        assert done[first:last].count("launch") == 3
        assert done[first:last].count("copy") == 1


def test_an_evaluation_takes_one_launch_and_one_copy_more(done):
    fit(steps=400, log_every=100, eval_every=100)
    at = [done.index(f"after {step}") for step in (100, 200, 300)]
    for first, last in itertools.pairwise(at):
        assert done[first:last].count("launch") == 4
        assert done[first:last].count("copy") == 2


def test_the_next_steps_are_launched_before_the_last_are_looked_at(done):
    fit(steps=400, log_every=100, eval_every=100)
    order = [what for what in done if what.startswith(("after", "look"))]
    assert order[:4] == ["after 0", "look 1", "after 1", "after 100"]
    assert order[4:] == ["look 100", "after 200", "look 200", "after 300", "look 300", "look 400"]


@pytest.mark.one_in(2)
@pytest.mark.parametrize("options", [{"patience": 9}, {"save_every": 100, "run_dir": True}], ids=["patience", "saving"])
def test_where_something_depends_on_them_they_are_looked_at_first(done, options, tmp_path):
    options = {name: tmp_path if value is True else value for name, value in options.items()}
    fit(steps=200, log_every=100, eval_every=100, **options)
    order = [what for what in done if what.startswith(("after", "look"))]
    assert order == ["after 0", "look 1", "after 1", "look 100", "after 100", "look 200"]


def test_running_ahead_changes_no_number_and_no_row(monkeypatch):
    ahead = fit(steps=30, log_every=3, eval_every=10)
    monkeypatch.setattr(Loop, "_runs_ahead", lambda *_: False)
    behind = fit(steps=30, log_every=3, eval_every=10)
    assert ahead.history == behind.history
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), ahead.params, behind.params))


def test_the_loop_sends_nothing_to_the_device_but_what_it_means_to(monkeypatch):
    """How many steps to make is put there; all else lies there already."""
    run = Loop.run

    def guarded(loop, start):
        with jax.transfer_guard_host_to_device("disallow"):
            return run(loop, start)

    monkeypatch.setattr(Loop, "run", guarded)
    assert fit(steps=30, log_every=3, eval_every=10).steps == 30


@pytest.mark.slow
def test_nothing_is_logged_or_saved_after_a_failure(tmp_path):
    """Steps were launched on top of those that failed: of neither anything is written."""
    rows = []
    bomb = optax.chain(optax.sgd(0.1), optax.scale_by_schedule(lambda step: jax.numpy.where(step < 12, 1.0, np.nan)))
    with pytest.raises(NonFiniteError, match=r"step 1[2-9]"):
        fit(steps=60, optimizer=bomb, log_every=5, eval_every=20, save_every=10, run_dir=tmp_path, on_log=[rows.append])
    assert max(row["step"] for row in rows) == 10
    assert [file.name for file in sorted((tmp_path / "checkpoints").iterdir()) if file.name.isdigit()] == ["10"]


@pytest.mark.slow
def test_the_time_to_the_first_step_holds_that_of_compiling():
    found = fit(steps=3, optimizer=optax.sgd(0.1))
    assert found.first_step_seconds >= found.compile_seconds > 0
    assert found.first_step_seconds > found.training_seconds / 3


def test_a_listeners_time_is_not_the_steps():
    """While a slow one listens, nobody knows when the steps ended; what a fast one takes leaves every launch in."""
    options = {"valid": None, "steps": 120, "log_every": 10}
    assert fit(**options, on_log=[lambda row: None]).step_seconds is not None
    assert fit(**options, on_log=[lambda row: time.sleep(0.2)]).step_seconds < 0.1 / 10
