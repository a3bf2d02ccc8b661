"""The host's side of a run: launch compiled chunks of steps and, between them, log, evaluate, save and stop."""

import dataclasses
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from tljax.checkpoints.run import RunCheckpoints
from tljax.evaluation.progress import Tell
from tljax.processes import is_first
from tljax.training.agreement import Notice, Peers
from tljax.training.choosing import Chooser
from tljax.training.feeding import Feeds
from tljax.training.log import Log, Row
from tljax.training.program import Fed, Program, Ready, Stream
from tljax.training.scaling import exhausted
from tljax.training.signals import Terminated, noted_signals
from tljax.training.state import Run, is_loss
from tljax.tree import named_leaves
from tljax.types import Batch, TljaxError

CHUNK_SECONDS = 0.5
"""How long the device works before the host looks again: long beside a dispatch, short beside a person's patience."""
FED_STEPS = 8
"""How many steps are launched before the host looks again, at most, where each needs a batch: they are in memory."""
SAVE_SECONDS = 30.0
"""How much work a kill may cost where `save_every` is not given; more, where saving is so slow as to take over 5 %."""


class NonFiniteError(TljaxError):
    """The loss, or a parameter, became NaN or infinite."""


@dataclasses.dataclass(frozen=True)
class Rhythm:
    """After how many steps each thing is done."""

    steps: int
    log_every: int
    eval_every: int
    save_every: int | None = None
    """None: by the clock, and half-way, so that even a short run's last checkpoint has one before it."""

    def next_stop(self, step: int) -> int:
        """The first step after `step` at which the host has something to do.

        >>> Rhythm(steps=100, log_every=10, eval_every=25).next_stop(20)
        25
        """
        every = [self.log_every, self.eval_every, self.save_every or max(1, self.steps // 2)]
        return min([self.steps] + [(step // n + 1) * n for n in every])

    def due(self, step: int, every: int) -> bool:
        """Whether `step` is a multiple of `every`, or the last.

        >>> rhythm = Rhythm(steps=105, log_every=10, eval_every=25)
        >>> [step for step in (20, 25, 30, 105) if rhythm.due(step, rhythm.log_every)]
        [20, 30, 105]
        """
        return step % every == 0 or step == self.steps


@dataclasses.dataclass
class Loop:
    """One training run, or a stack of them, under way."""

    program: Program
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
    peers: Peers
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
    ready: Ready = dataclasses.field(init=False)
    """The program, compiled for this run."""

    def run(self, run: Run) -> Run:
        """Train from where `run` stands to the last step, or until early stopping has ended every run."""
        step, chunk, warm = int(np.max(run.state.step)), 1, False
        if step < self.rhythm.steps and not np.all(run.best.stopped):
            self._compile(run)
        with noted_signals(catch=self.checkpoints is not None) as received:
            if step == 0:
                run = self._evaluate(run, 0)
            while step < self.rhythm.steps and not np.all(run.best.stopped):
                n = min(chunk, self.rhythm.next_stop(step) - step)
                began = time.perf_counter()
                run, waited = self._advance(run, n)
                step += n
                self._check_finite(run, step)  # waits for the device
                seconds = time.perf_counter() - began
                chunk = _next_chunk(chunk, n, seconds, most=FED_STEPS if self.feeds.train else None)
                self.training_seconds += seconds
                self._note_seconds(n, seconds, waited, warm)
                warm = True
                run = self._between(run, step)
                signal_of_all, chunk, due = self.peers.agree(self._notice(received, chunk, step))
                if due:
                    self._save(run, step)
                self.tell(step, n * self.examples_per_step / seconds, self.shown)
                if signal_of_all:
                    break
            self._save(run, step)
            asked, _, _ = self.peers.agree(self._notice(received, chunk, step))
            if asked:
                self._end(asked, step)
        return run

    def _compile(self, run: Run) -> None:
        began = time.perf_counter()
        in_memory = self.valid if isinstance(self.valid, Batch) and self.feeds.exam is None else None
        self.ready = self.program.begin(run, self.streams, in_memory)
        self.ready.wait()
        self.compile_seconds += time.perf_counter() - began

    def _notice(self, received: list[int], chunk: int, step: int) -> Notice:
        return Notice(received[0] if received else 0, chunk, self._save_is_due(step))

    def _advance(self, run: Run, n: int) -> tuple[Run, float]:
        """`n` more steps, and the seconds in which the device had nothing to do because a batch was not ready."""
        if self.feeds.train is None:
            return self.ready.advance(run, self.streams, n), 0.0
        waited = 0.0
        for _ in range(n):
            if not self.feeds.train.ready():
                jax.block_until_ready(run.summed)  # so long it has something to do
            began = time.perf_counter()
            batches = self.feeds.train.take()
            waited += time.perf_counter() - began
            # One step of the same program as for arrays in memory: so the numbers are the same, bit for bit.
            run = self.ready.advance(run, {**self.streams, **batches}, 1)
        return run, waited

    def _note_seconds(self, n: int, seconds: float, waited: float, warm: bool) -> None:
        if not warm:
            return
        self.step_seconds.append(seconds / n)
        if self.feeds.train is not None:
            self.input_seconds.append(waited / n)
            self.shown["input wait"] = self.input_wait or 0.0

    @property
    def input_wait(self) -> float | None:
        """The share of the time of a step in which the device waited for input; None where nothing is streamed."""
        return sum(self.input_seconds) / sum(self.step_seconds) if self.input_seconds else None

    def _between(self, run: Run, step: int) -> Run:
        rhythm = self.rhythm
        if rhythm.due(step, rhythm.log_every):
            means = {name: _mean(np.asarray(total), np.asarray(run.summed)) for name, total in run.sums.items()}
            if run.state.scaling is not None:
                means["loss_scale"] = np.asarray(run.state.scaling.scale)
            self._add_rows(step, "train", means, np.asarray(run.best.stopped))
            run = self.ready.clear(run)
        if rhythm.due(step, rhythm.eval_every):
            run = self._evaluate(run, step)
        return run

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

    def _check_finite(self, run: Run, step: int) -> None:
        """Wait for `run`, and raise if it failed: before anything of it is saved."""
        failed = int(np.max(run.failed))
        if failed < 0 or self.stacked:
            return  # in a stack, one run's failure is an outcome: its evaluations never become the best
        metrics = [name for name, broken in run.broken.items() if broken]
        learnt = {**run.state.trainable, "stats": run.state.stats}
        leaves = [name for name, leaf in named_leaves(learnt).items() if not jnp.all(jnp.isfinite(leaf))]
        losses = [name for name in metrics if is_loss(name)]
        if losses:
            terms = [name for name in metrics if name not in losses and not name.startswith("grad_norm")]
            which = f": of its terms {_listed(terms)}" if terms else ""
            what = f"the {losses[0].replace('_', ' of the phase ')} became NaN or infinite at step {failed}{which}"
        elif np.any(exhausted(run.state.scaling)):
            what = f"gradients in float16 are not finite at step {failed}, whatever the scale of the loss"
        else:
            what = f"parameters became NaN or infinite by step {failed}: {_listed(leaves + metrics)}"
        kept = ""
        if self.checkpoints is not None and self.checkpoints.newest() is not None:
            kept = f" Checkpoint {self.checkpoints.newest()} in {self.checkpoints.folder} is from before that."
        raise NonFiniteError(f"{what}. Lower the learning rate, or clip gradients with clip_norm=1.0.{kept}")

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


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _next_chunk(chunk: int, n: int, seconds: float, most: int | None = None) -> int:
    """Grow towards `CHUNK_SECONDS`, at most fourfold at a time (in the first call caches are cold)."""
    return max(1, min(4 * chunk, int(n * CHUNK_SECONDS / max(seconds, 1e-6)), most or 4 * chunk))
