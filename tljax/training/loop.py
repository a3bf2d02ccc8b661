"""The host's side of a run: it launches compiled chunks of steps and, between them, logs, evaluates, saves
and stops."""

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax.numpy as jnp
import numpy as np

from tljax.checkpoints.run import RunCheckpoints
from tljax.training.log import Log
from tljax.training.program import Program, Stream
from tljax.training.state import Run
from tljax.types import Batch, TljaxError

CHUNK_SECONDS = 0.5
"""How long the device works before the host looks again: long beside a dispatch, short beside a person's
patience."""


class NonFiniteError(TljaxError):
    """The loss became NaN or infinite."""


class Terminated(SystemExit):
    """The process was asked to end (SIGTERM); the run has been saved. Exits with 143, as shells expect."""

    def __init__(self, message: str):
        super().__init__(143)
        self.message = message

    def __str__(self) -> str:
        return self.message


@dataclasses.dataclass(frozen=True)
class Rhythm:
    """After how many steps each thing is done."""

    steps: int
    log_every: int
    eval_every: int
    save_every: int

    def next_stop(self, step: int) -> int:
        """The first step after `step` at which the host has something to do."""
        return min([self.steps] + [(step // n + 1) * n for n in (self.log_every, self.eval_every, self.save_every)])

    def due(self, step: int, every: int) -> bool:
        """Whether `step` is a multiple of `every`, or the last."""
        return step % every == 0 or step == self.steps


@dataclasses.dataclass
class Loop:
    """One training run under way."""

    program: Program
    streams: Mapping[str, Stream]
    valid: Batch | None
    rhythm: Rhythm
    log: Log
    checkpoints: RunCheckpoints | None
    tell: Callable[[int, float, Mapping[str, float]], None]
    examples_per_step: int
    stacked: bool
    training_seconds: float = 0.0
    seen: dict[str, float] = dataclasses.field(default_factory=dict)

    def run(self, run: Run) -> Run:
        """Train from where `run` stands to the last step, or until early stopping has ended every run."""
        step = int(np.max(run.state.step)) if self.stacked else int(run.state.step)
        chunk = 1
        if step == 0:
            run = self._evaluate(run, 0)
        with _signals(catch=self.checkpoints is not None) as received:
            while step < self.rhythm.steps and not bool(np.all(run.best.stopped)):
                n = min(chunk, self.rhythm.next_stop(step) - step)
                began = time.perf_counter()
                run = self.program.advance(run, self.streams, jnp.int32(n))
                self._check_finite(run, step + n)  # waits for the device
                seconds = time.perf_counter() - began
                step += n
                chunk = _next_chunk(chunk, n, seconds)
                self.training_seconds += seconds
                run = self._between(run, step, speed=n * self.examples_per_step / seconds, ended=bool(received))
                if received:
                    self._end(received[0], step)
        self._save(run, step, again=False)
        return run

    def _between(self, run: Run, step: int, *, speed: float, ended: bool) -> Run:
        rhythm = self.rhythm
        if rhythm.due(step, rhythm.log_every):
            means = {name: np.asarray(total) / np.maximum(run.count, 1) for name, total in run.sums.items()}
            self._add_rows(step, "train", means, active=~np.asarray(run.best.stopped))
            run = self.program.clear(run)
        if rhythm.due(step, rhythm.eval_every):
            run = self._evaluate(run, step)
        if ended or rhythm.due(step, rhythm.save_every):
            self._save(run, step)
        self.tell(step, speed, self.seen)
        return run

    def _evaluate(self, run: Run, step: int) -> Run:
        if self.valid is None:
            return run
        active = ~np.asarray(run.best.stopped)
        run, scores = self.program.validate(run, self.valid)
        self._add_rows(step, "valid", scores, active=active)
        return run

    def _add_rows(self, step: int, part: str, values: Mapping[str, Any], *, active: np.ndarray) -> None:
        host = {name: np.asarray(value) for name, value in values.items()}
        for i in range(active.size) if self.stacked else [None]:
            if i is None or active[i]:
                which = {} if i is None else {"run": i}
                self.log.add(
                    {"step": step, "split": part}
                    | which
                    | {k: float(v if i is None else v[i]) for k, v in host.items()}
                )
        keep = {"train": ("loss",), "valid": ("accuracy", "rmse")}[part]
        self.seen |= {f"{part} {k}": float(np.mean(host[k])) for k in keep if k in host}

    def _save(self, run: Run, step: int, *, again: bool = True) -> None:
        """Save `run`, unless (`again=False`) it is saved already."""
        if self.checkpoints is not None and (again or self.checkpoints.newest() != step):
            self.checkpoints.save(step, run, {"training_seconds": self.training_seconds})

    def _check_finite(self, run: Run, step: int) -> None:
        if self.stacked or np.isfinite(run.sums["loss"]):
            return  # in a stack, one run's failure is an outcome: its evaluations never become the best
        bad = sorted(name for name, total in run.sums.items() if not np.isfinite(total))
        kept = ""
        if self.checkpoints is not None:
            self.checkpoints.wait()
            kept = (
                f" The last good checkpoint is that of step {self.checkpoints.newest()} in {self.checkpoints.folder}."
            )
        raise NonFiniteError(
            f"the loss became NaN or infinite at or shortly before step {step} (not finite: {', '.join(bad)}). "
            f"Lower the learning rate, or clip gradients with clip_norm=1.0.{kept}"
        )

    def _end(self, number: int, step: int) -> None:
        assert self.checkpoints is not None
        self.checkpoints.wait()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Terminated(
            f"terminated at step {step}; saved in {self.checkpoints.folder}. The same command continues from there."
        )


def _next_chunk(chunk: int, n: int, seconds: float) -> int:
    """Grow towards `CHUNK_SECONDS`, at most fourfold at a time (the first call also compiles)."""
    return max(1, min(4 * chunk, int(n * CHUNK_SECONDS / max(seconds, 1e-6))))


@contextmanager
def _signals(*, catch: bool) -> Iterator[list[int]]:
    """The signals received, in a list that fills while the block runs; a second one acts at once."""
    received: list[int] = []
    if not catch or threading.current_thread() is not threading.main_thread():
        yield received
        return
    earlier = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(number, earlier[signal.Signals(number)])

    for s in earlier:
        signal.signal(s, note)
    try:
        yield received
    finally:
        for s, handler in earlier.items():
            signal.signal(s, handler)
