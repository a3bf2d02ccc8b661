"""The host's side of a run: launch compiled chunks of steps and, between them, log, evaluate, save and stop."""

import dataclasses
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np

from tljax.checkpoints.run import RunCheckpoints
from tljax.evaluation.progress import Tell
from tljax.objectives import Term
from tljax.processes import is_first, several
from tljax.training.agreement import Notice, Peers
from tljax.training.choosing import Chooser
from tljax.training.failure import failure
from tljax.training.feeding import Feeds
from tljax.training.log import Log, Row
from tljax.training.program import Fed, Note, Program, Ready, Stream
from tljax.training.rhythm import FED_STEPS, Rhythm, next_chunk
from tljax.training.signals import Terminated, noted_signals
from tljax.training.state import Run
from tljax.types import Batch

SAVE_SECONDS = 30.0
"""How much work a kill may cost where `save_every` is not given; more, where saving is so slow as to take over 5 %."""

LISTENING_SECONDS = 0.05
"""What writing a log and drawing a bar may take: beside what is launched at a time it does not matter."""


class Flight(NamedTuple):
    """Steps that were launched, and that the host has not looked at."""

    step: int
    """The last of them."""
    n: int
    began: float
    """When they were launched."""
    note: Note
    scores: Mapping[str, Any] | None
    """Of the evaluation after them, if there was one."""


@dataclasses.dataclass
class Loop:
    """One training run, or a stack of them, under way."""

    program: Program
    objective: Term
    streams: Mapping[str, Stream | Fed]
    valid: Batch | Chooser | None
    feeds: Feeds
    rhythm: Rhythm
    log: Log
    checkpoints: RunCheckpoints | None
    tell: Tell
    monitor: str
    examples_per_step: int
    stacked: bool
    tolerant: bool
    """Whether a loss that is not finite ends nothing."""
    peers: Peers
    stops_early: bool
    began: float
    """When `fit` was called."""
    compile_seconds: float = 0.0
    training_seconds: float = 0.0
    step_seconds: list[float] = dataclasses.field(default_factory=list)
    """Of a step, for each launch but the first, in which caches are cold."""
    input_seconds: list[float] = dataclasses.field(default_factory=list)
    """Of a step, in the same launches, in which the device waited for its batch; none where all data are in memory."""
    shown: dict[str, float] = dataclasses.field(default_factory=dict)
    """The numbers beside the progress bar."""
    saved_at: float = dataclasses.field(default_factory=time.monotonic)
    saving_seconds: float = 0.0
    first_step_seconds: float | None = None
    """From the call of `fit` to the end of the first step."""
    chunk: int = 1
    """How many steps to launch next."""
    looked_at: float = 0.0
    """When the host had last seen the device finish something."""
    waited: float = 0.0
    """Seconds since then in which the device had nothing to do because a batch was not ready."""
    told_at: float = 0.0
    """When those who listen to the log had last been told."""
    ready: Ready = dataclasses.field(init=False)
    """The program, compiled for this run."""

    def run(self, run: Run) -> Run:
        """Train from where `run` stands to the last step, or until early stopping has ended every run."""
        step, asked, over = int(np.max(run.state.step)), 0, bool(np.all(run.best.stopped))
        if step < self.rhythm.steps and not over:
            self._compile(run)
        with noted_signals(catch=self.checkpoints is not None) as received:
            if step == 0:
                run = self._evaluate(run, 0)
            flying = None
            while step < self.rhythm.steps and not over and not asked:
                before = flying
                run, flying = self._launch(run, step)
                step = flying.step
                if before is not None:  # the device has something to do meanwhile
                    self._look(before, run)
                if self._runs_ahead(step, received):
                    continue
                self._look(flying, run)
                flying = None
                if self._evaluates(step) and not self._in_memory:
                    run = self._evaluate(run, step)
                over = self.stops_early and bool(np.all(run.best.stopped))
                asked, self.chunk, due = self.peers.agree(self._notice(received, step))
                if due:
                    self._save(run, step)
            self._save(run, step)
            asked, _, _ = self.peers.agree(self._notice(received, step))
            if asked:
                self._end(asked, step)
        return run

    def _compile(self, run: Run) -> None:
        began = time.perf_counter()
        valid = self.valid if isinstance(self.valid, Batch) and self._in_memory else None
        self.ready = self.program.begin(run, self.streams, valid)
        self.ready.wait()
        self.compile_seconds += time.perf_counter() - began

    @property
    def _in_memory(self) -> bool:
        """Whether the evaluation is a program that runs by itself."""
        return isinstance(self.valid, Batch) and self.feeds.exam is None

    def _evaluates(self, step: int) -> bool:
        return self.valid is not None and self.rhythm.due(step, self.rhythm.eval_every)

    def _notice(self, received: list[int], step: int) -> Notice:
        return Notice(received[0] if received else 0, self.chunk, self._save_is_due(step))

    def _runs_ahead(self, step: int, received: list[int]) -> bool:
        """Whether the next steps can be launched before these are looked at: nothing depends on what they gave."""
        depends = self._evaluates(step) and (self.stops_early or not self._in_memory)
        first = self.first_step_seconds is None  # nobody knows yet how long a step takes
        return not (first or depends or received or step == self.rhythm.steps or self._save_is_due(step) or several())

    def _launch(self, run: Run, step: int) -> tuple[Run, Flight]:
        """Launch the next steps and what follows them, up to where the host has something to do."""
        began, n = time.perf_counter(), min(self.chunk, self.rhythm.next_stop(step) - step)
        run = self._advance(run, n)
        note, scores, step = self.ready.note(run), None, step + n
        if self.rhythm.due(step, self.rhythm.log_every):
            run = self.ready.clear(run)
        if self._evaluates(step) and self._in_memory:
            run, scores = self.ready.validate(run, self.valid)
        return run, Flight(step, n, began, note, scores)

    def _look(self, flight: Flight, run: Run) -> None:
        """Wait for the device, raise if the run failed, and tell what the steps gave. `run`: as it is since."""
        note = jax.device_get(flight.note)
        now = time.perf_counter()
        began = max(flight.began, self.looked_at)
        seconds = now - began
        failed = int(np.max(note.failed))
        if failed >= 0 and not self.tolerant:  # of several runs an outcome: its evaluations never become the best
            raise failure(run, failed, self.program.losses, self.objective, self.checkpoints)
        # Where a listener took its time meanwhile, nobody knows when the steps ended.
        self._note_seconds(flight, seconds, certain=self.told_at - began < max(0.2 * seconds, LISTENING_SECONDS))
        if self.rhythm.due(flight.step, self.rhythm.log_every):
            means = {name: _mean(total, note.summed) for name, total in note.sums.items()}
            if note.scale is not None:
                means["loss_scale"] = note.scale
            self._add_rows(flight.step, "train", means, note.stopped)
        if flight.scores is not None:
            self._add_rows(flight.step, "valid", jax.device_get(flight.scores), note.stopped)
            now = time.perf_counter()
        self.looked_at, self.waited = now, 0.0
        self.told_at = time.perf_counter()
        self.tell(flight.step, flight.n * self.examples_per_step / seconds, self.shown)

    def _advance(self, run: Run, n: int) -> Run:
        """`n` more steps."""
        if self.feeds.train is None:
            return self.ready.advance(run, self.streams, n)
        for _ in range(n):
            if not self.feeds.train.ready():
                jax.block_until_ready(run.summed)  # so long it has something to do
            began = time.perf_counter()
            batches = self.feeds.train.take()
            self.waited += time.perf_counter() - began
            # One step of the same program as for arrays in memory: so the numbers are the same, bit for bit.
            run = self.ready.advance(run, {**self.streams, **batches}, 1)
        return run

    def _note_seconds(self, flight: Flight, seconds: float, certain: bool) -> None:
        self.training_seconds += seconds
        if not certain:
            return
        self.chunk = next_chunk(self.chunk, flight.n, seconds, most=FED_STEPS if self.feeds.train else None)
        if self.first_step_seconds is None:
            self.first_step_seconds = time.perf_counter() - self.began
            return
        self.step_seconds.append(seconds / flight.n)
        if self.feeds.train is not None:
            self.input_seconds.append(self.waited / flight.n)
            self.shown["input wait"] = self.input_wait or 0.0

    @property
    def input_wait(self) -> float | None:
        """The share of the time of a step in which the device waited for input; None where nothing is streamed."""
        return sum(self.input_seconds) / sum(self.step_seconds) if self.input_seconds else None

    def _evaluate(self, run: Run, step: int) -> Run:
        if self.valid is None:
            return run
        stopped = np.array(run.best.stopped)  # a copy: the run's buffers are donated
        run, scores = self._scores(run)
        self._add_rows(step, "valid", scores, stopped)
        return run

    def _scores(self, run: Run) -> tuple[Run, dict[str, Any]]:
        if isinstance(self.valid, Chooser):
            return self.valid.evaluate(run)
        if self.feeds.exam is None:
            return self.ready.validate(run, self.valid)
        sums = None
        for _ in range(self.feeds.exam_batches):
            sums = self.ready.tally(run, sums, self.feeds.exam.take()["valid"])
            jax.block_until_ready(sums)  # a queue of batches on the device would fill its memory
        return self.ready.conclude(run, sums)

    def _add_rows(self, step: int, split: str, values: Mapping[str, Any], stopped: np.ndarray) -> None:
        """A row for the run, or one for each of the stack that has not stopped."""
        host = {name: np.asarray(value) for name, value in values.items()}
        for i in np.flatnonzero(~stopped) if self.stacked else [None]:
            which = {} if i is None else {"run": int(i)}
            numbers = {name: float(value if i is None else value[i]) for name, value in host.items()}
            self._add_row({"step": step, "split": split} | which | numbers)
        name = {"train": "loss", "valid": self.monitor}[split]
        self.shown[f"{split} {name}"] = float(np.mean(host[name]))

    def _add_row(self, row: Row) -> None:
        try:
            self.log.add(row)
        except Exception as error:  # a full disk, or what a listener raises
            self.peers.keep(error)

    def _save_is_due(self, step: int) -> bool:
        if self.checkpoints is None:
            return False
        if self.rhythm.save_every is not None:
            return self.rhythm.due(step, self.rhythm.save_every)
        if step == self.rhythm.steps // 2:
            return True
        return time.monotonic() - self.saved_at > max(SAVE_SECONDS, 20 * self.saving_seconds)

    def _save(self, run: Run, step: int) -> None:
        """Save `run`, unless it is saved already."""
        if self.checkpoints is None or self.checkpoints.newest() == step:
            return
        began = time.monotonic()
        self.checkpoints.save(step, run, {"training_seconds": self.training_seconds, "rows": len(self.log.rows)})
        self.saved_at = time.monotonic()
        self.saving_seconds = self.saved_at - began  # with what was left of the save before

    def _end(self, number: int, step: int) -> NoReturn:
        assert self.checkpoints is not None
        self.checkpoints.wait()
        name = "interrupted" if number == signal.SIGINT else "terminated"
        message = f"{name} at step {step}; saved in {self.checkpoints.folder}. The same command continues from there."
        if number == signal.SIGINT:
            raise KeyboardInterrupt(message)
        if is_first():
            print(message, file=sys.stderr, flush=True)
        raise Terminated(message)


def _mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """NaN where every step was skipped."""
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
