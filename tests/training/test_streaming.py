"""Training on data that are read when needed is training on the same data in memory, bit for bit."""

import multiprocessing
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_dispatch import CONV
from test_dispatch import start as conv_start
from training_cases import HITS, TANH, examples, same

from tljax.data import DataError, stream
from tljax.objectives import cross_entropy
from tljax.plans import plan
from tljax.training import fit, fit_many
from tljax.training.inputs import FitError

X, Y = examples(40)
ENTROPY, ADAM = cross_entropy(), optax.adam(0.05)
SHORT = {"optimizer": ADAM, "steps": 24, "batch_size": 8, "eval_every": 6, "progress": False, "metric": HITS}


class Pairs:
    """A data set as torch has it; what is in `broken` cannot be read."""

    def __init__(self, x, y, broken=()):
        self.x_, self.y_, self.broken = x, y, broken

    def __len__(self):
        return len(self.y_)

    def __getitem__(self, i):
        if i in self.broken:
            raise OSError(f"file {i}.png is damaged")
        return self.x_[i], self.y_[i]


def noisy(key, batch):
    return batch._replace(x=batch.x + 0.1 * jax.random.normal(key, batch.x.shape))


def run(train, valid, model=TANH, params=None, **options):
    params = TANH.init(jax.random.key(0), X) if params is None else params
    return fit(model, params, ENTROPY, plan(), train, valid, seed=3, **SHORT | {"augment": noisy} | options)


def streamed(workers=0, **options):
    train, valid = stream(Pairs(X[:30], Y[:30]), workers=workers), stream(Pairs(X[30:], Y[30:]), workers=workers)
    return run(train, valid, **options)


@pytest.fixture(scope="module")
def in_memory():
    return run((X[:30], Y[:30]), (X[30:], Y[30:]))


def alike(a, b):
    return same((a.last, a.params), (b.last, b.params)) and a.history == b.history


def test_a_streamed_run_is_the_run_in_memory_bit_for_bit(in_memory):
    found = streamed()
    assert alike(found, in_memory)
    assert in_memory.input_wait is None
    assert 0 <= found.input_wait <= 1


class SlowPairs(Pairs):
    def __getitem__(self, i):
        time.sleep(2e-3)
        return super().__getitem__(i)


def test_of_slow_input_the_device_waits_for_most_of_the_time_and_no_longer():
    """Launches of 4 steps and of 1 in turn: each waits for its batches while the one before is still looked after."""
    found = run(stream(SlowPairs(X[:30], Y[:30])), None, steps=42, log_every=5, eval_every=100, patience=None)
    assert 0.8 < found.input_wait <= 1


@pytest.mark.slow
def test_worker_processes_change_nothing_and_end_with_the_run(in_memory):
    pytest.importorskip("grain")
    train = stream(Pairs(X[:30], Y[:30]), workers=2)
    assert alike(run(train, (X[30:], Y[30:])), in_memory)
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_convolutions_are_streamed_to_as_well():
    x, y = examples(24, features=36)
    x = x.reshape(24, 6, 6, 1)
    memory = run((x, y), (x, y), CONV, conv_start(), steps=6)
    assert alike(run(stream(Pairs(x, y)), stream(Pairs(x, y)), CONV, conv_start(), steps=6), memory)


def test_one_part_may_be_streamed_and_the_other_in_memory(in_memory):
    train, valid = stream(Pairs(X[:30], Y[:30])), stream(Pairs(X[30:], Y[30:]))
    assert alike(run(train, (X[30:], Y[30:])), in_memory)
    assert alike(run((X[:30], Y[:30]), valid), in_memory)


def test_a_subset_is_a_smaller_set(in_memory):
    whole = Pairs(X, Y)
    assert alike(run(stream(whole, subset=range(30)), stream(whole, subset=np.arange(30, 40))), in_memory)


# Both parts have workers here, each of which takes seconds to start.
WORKERS_TOO = pytest.param(11, 2, marks=pytest.mark.slow)


class Stop(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize(("step", "workers"), [(1, 0), (24, 0), WORKERS_TOO])
def test_a_run_that_broke_off_goes_on_as_if_it_had_not(tmp_path, step, workers):
    whole = streamed(log_every=1)

    def stop(row):
        if row["step"] >= step:
            raise Stop

    with pytest.raises(Stop):
        streamed(workers=workers, log_every=1, save_every=4, run_dir=tmp_path, on_log=[stop])
    assert not multiprocessing.active_children()
    assert alike(streamed(log_every=1, save_every=4, run_dir=tmp_path), whole)


def test_other_data_are_another_run(tmp_path):
    streamed(run_dir=tmp_path)
    streamed(run_dir=tmp_path)
    with pytest.raises(ValueError, match="training data"):
        run(stream(Pairs(X[:29], Y[:29])), stream(Pairs(X[30:], Y[30:])), run_dir=tmp_path)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_what_cannot_be_read_is_named_and_the_workers_end(workers):
    train = stream(Pairs(X, Y, broken={17}), workers=workers, name="pets")
    with pytest.raises(DataError, match=r"pets: example 17 cannot be read \(OSError: file 17.png is damaged\)"):
        run(train, (X, Y))
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_several_streams_have_their_own_orders():
    seen = []

    def look(key, batch):
        jax.debug.callback(lambda x: seen.append(np.asarray(x).tolist()), batch.x[:, 0], ordered=True)
        return batch

    objective = cross_entropy(stream="one") + cross_entropy(stream="two")
    data = {"one": stream(Pairs(X, Y)), "two": (X, Y)}
    found = fit(TANH, TANH.init(jax.random.key(0), X), objective, plan(), data, **SHORT | {"steps": 3, "augment": look})
    jax.effects_barrier()
    streams, seen = list(seen), []
    data = {"one": (X, Y), "two": stream(Pairs(X, Y))}
    again = fit(TANH, TANH.init(jax.random.key(0), X), objective, plan(), data, **SHORT | {"steps": 3, "augment": look})
    jax.effects_barrier()
    assert streams == seen
    assert same(found.last, again.last)


def test_a_stack_is_refused_a_stream():
    params = jax.tree.map(lambda a: jnp.stack([a, a]), TANH.init(jax.random.key(0), X))
    with pytest.raises(FitError, match="fit_many keeps its data on the device and takes no stream"):
        fit_many(TANH, params, ENTROPY, plan(), stream(Pairs(X, Y)), seeds=[0, 1], **SHORT)


def test_a_source_that_is_no_stream_yet_is_told_so():
    with pytest.raises(FitError, match=r"make a stream: tl.data.stream\(source\)"):
        run(Pairs(X, Y), None)
