import signal
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tljax.training.rhythm import CHUNK_SECONDS, Rhythm, next_chunk
from tljax.training.signals import Terminated, noted_signals

COUNT = st.integers(1, 40)


@settings(deadline=None)
@given(COUNT, COUNT, COUNT, st.none() | COUNT)
def test_the_stops_are_exactly_where_something_is_due(steps, log_every, eval_every, save_every):
    rhythm = Rhythm(steps, log_every, eval_every, save_every)
    at, stops = 0, []
    while at < steps:
        at = rhythm.next_stop(at)
        stops.append(at)
    every = [log_every, eval_every, save_every or max(1, steps // 2)]
    assert stops == [s for s in range(1, steps + 1) if s == steps or any(s % n == 0 for n in every)]
    for n in every:
        assert [s for s in stops if rhythm.due(s, n)] == sorted({*range(n, steps + 1, n), steps})


def test_chunks_grow_to_half_a_second_of_work():
    chunk, seconds_per_step = 1, 1e-4
    chunk = next_chunk(chunk, 1, 3.0)  # the first call compiles
    sizes = [chunk]
    for _ in range(12):
        chunk = next_chunk(chunk, chunk, chunk * seconds_per_step)
        sizes.append(chunk)
    assert sizes[:4] == [1, 4, 16, 64]
    assert abs(sizes[-1] * seconds_per_step - CHUNK_SECONDS) < 0.01
    assert next_chunk(1000, 1000, 100.0) == 5  # the machine became slow
    assert next_chunk(1, 1, 0.0) == 4


def test_a_second_signal_acts_at_once():
    def twice():
        with noted_signals() as received:
            signal.raise_signal(signal.SIGINT)
            assert received == [signal.SIGINT]
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        twice()


def test_handlers_are_given_back():
    def mine(number, frame):
        raise AssertionError

    earlier = signal.signal(signal.SIGTERM, mine)
    try:
        with noted_signals():
            assert signal.getsignal(signal.SIGTERM) is not mine
        assert signal.getsignal(signal.SIGTERM) is mine
        with noted_signals() as received:
            signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is mine
        with noted_signals(catch=False):
            assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, earlier)


def test_threads_cannot_catch_signals_and_do_without():
    found = []

    def work():
        with noted_signals() as received:
            found.append(received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [[]]


def test_terminated_ends_the_process_and_is_no_error_to_catch_by_accident():
    assert not issubclass(Terminated, Exception)
    assert Terminated("saved").code == 143
