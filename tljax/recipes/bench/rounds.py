"""Timing in rounds: everything that is compared takes its turn in every round, so that a busy minute hits all alike."""

import contextlib
import dataclasses
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from tljax.recipes.bench.error import BenchError

Clock = Callable[[], float]
"""Seconds from some beginning."""
TICKS = 1000
"""How many times the clock's resolution a time must last at least, to be known to a tenth of a percent."""


def _nothing() -> None:
    pass


@dataclasses.dataclass
class Timed:
    """Something that can be done again and again, and what it took."""

    launch: Callable[[int], Any]
    """`launch(n)` starts n units of work and returns the arrays to wait for; it need not wait itself."""
    units: int = 1
    """How many units a turn has."""
    before: Callable[[], None] = _nothing
    """Done before every turn, outside the time."""
    after: Callable[[], None] = _nothing
    """Done after every turn, outside the time."""
    wall: list[float] = dataclasses.field(default_factory=list)
    """Seconds of each turn, from the launch until all of it was computed."""
    launching: list[float] = dataclasses.field(default_factory=list)
    """Seconds of each turn until the launch came back: so long the host was busy."""

    def turn(self, clock: Clock = time.perf_counter) -> float:
        """One turn; its seconds."""
        self.before()
        began = clock()
        started = self.launch(self.units)
        launched = clock()
        jax.block_until_ready(started)
        ended = clock()
        self.after()
        self.wall.append(ended - began)
        self.launching.append(launched - began)
        return ended - began

    @property
    def unit_seconds(self) -> list[float]:
        """The seconds of a unit, in each turn."""
        return [seconds / self.units for seconds in self.wall]

    @property
    def host_share(self) -> float:
        """The share of all turns in which the host was launching; the rest it waited."""
        return sum(self.launching) / sum(self.wall)

    def settle(self, seconds: float, *, units: int | None = None, clock: Clock = time.perf_counter) -> None:
        """Warm up, and choose how many units last `seconds`, unless that is given. Nothing of this is counted.

        >>> now = iter(i * 0.01 for i in range(1000))
        >>> timed = Timed(lambda n: None)
        >>> timed.settle(0.0, clock=lambda: next(now))
        >>> timed.units, timed.wall
        (1, [])
        """
        self.units = units or 1
        for _ in range(2):
            self.turn(clock)
        while units is None:
            took = min(self.turn(clock), self.turn(clock))  # once the machine may have been busy
            if took >= 0.8 * seconds or self.units >= 2**24:
                break
            wanted = int(self.units * seconds / max(took, 1e-7)) + 1
            self.units = max(self.units + 1, min(16 * self.units, wanted))
        self.wall.clear()
        self.launching.clear()


def rounds(
    timed: Sequence[Timed],
    repeats: int,
    *,
    clock: Clock = time.perf_counter,
    failed: Callable[[Timed, Exception], None] | None = None,
) -> None:
    """So many turns of each, one after the other in every round, each round beginning with another.

    Python's garbage collector runs between the turns, not in them. What raises is told to `failed`, and takes no
    further part.
    """
    going = list(timed)
    with _no_garbage_collection():
        for number in range(repeats):
            for each in list(_rotated(going, number)):
                gc.collect(0)
                try:
                    each.turn(clock)
                except Exception as error:
                    if failed is None:
                        raise
                    failed(each, error)
                    going.remove(each)


def check_resolution(timed: Timed, what: str, tick: float) -> None:
    """Raise `BenchError` where a turn is so short that a clock with this `tick`, in seconds, cannot time it.

    >>> check_resolution(Timed(print, wall=[5e-6]), "a step", tick=1e-6)
    Traceback (most recent call last):
    tljax.recipes.bench.error.BenchError: a step: 1 of them took 5e-06 s, and the clock ticks every 1e-06 s; ...
    """
    least = min(timed.wall)
    if least < TICKS * tick:
        raise BenchError(
            f"{what}: {timed.units} of them took {least:.2g} s, and the clock ticks every {tick:.2g} s; time more at "
            "once: leave --steps out, or give a larger number"
        )


def tick_of(clock: Clock = time.perf_counter, tries: int = 20) -> float:
    """The smallest step that the clock was seen to make, in seconds.

    >>> now = iter([0, 0, 0, 2, 2, 4, 4, 6])
    >>> tick_of(lambda: next(now), tries=3)
    2
    """
    found: list[float] = []
    last = clock()
    while len(found) < tries:
        now = clock()
        if now > last:
            found.append(now - last)
        last = now
    return min(found)


def _rotated(items: Sequence[Timed], by: int) -> Iterator[Timed]:
    start = by % max(1, len(items))
    yield from items[start:]
    yield from items[:start]


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
