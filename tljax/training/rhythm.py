"""After how many steps the host has something to do, and how many it launches at a time."""

import dataclasses

CHUNK_SECONDS = 0.5
"""How long the device works before the host looks again: long beside a dispatch, short beside a person's patience."""
FED_STEPS = 4
"""How many steps are launched at a time, at most, where each needs a batch: those of two launches are in memory."""


@dataclasses.dataclass(frozen=True)
class Rhythm:
    """After how many steps each thing is done."""

    steps: int
    log_every: int
    eval_every: int
    save_every: int | None = None
    """None: by the clock, and half-way, so that even a short run's last checkpoint has one before it."""
    evaluates: bool = True
    """False where there is nothing to evaluate, so that launches are not cut for it."""

    def next_stop(self, step: int) -> int:
        """The first step after `step` at which the host has something to do.

        >>> Rhythm(steps=100, log_every=10, eval_every=25).next_stop(20)
        25
        """
        every = [self.log_every, self.save_every or max(1, self.steps // 2)]
        every += [self.eval_every] if self.evaluates else []
        return min([self.steps] + [(step // n + 1) * n for n in every])

    def due(self, step: int, every: int) -> bool:
        """Whether `step` is a multiple of `every`, or the last.

        >>> rhythm = Rhythm(steps=105, log_every=10, eval_every=25)
        >>> [step for step in (20, 25, 30, 105) if rhythm.due(step, rhythm.log_every)]
        [20, 30, 105]
        """
        return step % every == 0 or step == self.steps


def next_chunk(chunk: int, n: int, seconds: float, most: int | None = None) -> int:
    """How many steps to launch next, after `n` took `seconds`, where `chunk` might have been launched.

    Grows towards `CHUNK_SECONDS`, at most fourfold at a time: in the first launch caches are cold.

    >>> next_chunk(100, 100, 10.0), next_chunk(1, 1, 0.001)
    (5, 4)
    """
    return max(1, min(4 * chunk, int(n * CHUNK_SECONDS / max(seconds, 1e-6)), most or 4 * chunk))
