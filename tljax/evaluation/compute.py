"""How much training it took: the step at which a run came near to its own end."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tljax.evaluation.statistics import StatisticsError

SHARES = (0.90, 0.95, 0.99)
"""Of its final value; for errors and losses, the final value over these."""


def steps_to(
    steps: Sequence[int],
    values: Any,
    *,
    share: float = 0.95,
    final: float | None = None,
    higher_is_better: bool = True,
) -> int | None:
    """The first evaluated step at which a run reached `share` of its final value; None where it never does.

    Examples are steps times the batch size, and FLOPs steps times those of a step. It is read off the evaluations that
    were made, so it is late by less than the steps between two.

    Args:
        steps: where the run was evaluated, `[T]`.
        values: what was found there, `[T]`; None and NaN are passed over.
        share: of the final value, above 0 and at most 1.
        final: that value; default: the best of the run's own, which is what it keeps. Give that of the best method to
            compare methods by the compute to one goal.
        higher_is_better: False for errors and losses: then the goal is ``final / share``.

    Raises:
        StatisticsError: lists of different lengths, or a share outside (0, 1].

    >>> steps_to([0, 10, 20, 30], [0.2, 0.7, 0.79, 0.8], share=0.95), steps_to([0, 10], [0.1, 0.2], final=0.9)
    (20, None)
    """
    if len(steps) != len(values) or not 0 < share <= 1:
        raise StatisticsError(
            f"steps_to() needs a value a step and a share in (0, 1]; found {len(steps)} steps, {len(values)} values "
            f"and the share {share}"
        )
    found = np.array([math.nan if value is None else float(value) for value in values], np.float64)
    known = found[np.isfinite(found)]
    if not len(known) or (final is not None and not math.isfinite(final)):
        return None
    best = float(known.max() if higher_is_better else known.min()) if final is None else final
    near = found >= share * best if higher_is_better else found <= best / share
    return int(steps[int(np.argmax(near))]) if near.any() else None
