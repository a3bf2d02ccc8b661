"""What a training run gives."""

import dataclasses
from collections.abc import Callable
from typing import Any

from tljax.objectives import Owned
from tljax.plans import Resolved
from tljax.training.dispatch import StepCost
from tljax.training.log import Row
from tljax.training.stack import one_of
from tljax.types import Params


@dataclasses.dataclass(frozen=True)
class Result:
    """What a training run gives. For a stack of runs every leaf and value has the runs on its first axis, but
    for the leaves that they share."""

    params: Params
    """The whole parameter tree: that of the best evaluation where there were any, else the last."""
    last: Params
    """The tree after the last step."""
    best_value: Any
    """The monitored metric at the best evaluation; None without validation data."""
    best_step: Any
    """The step of that evaluation."""
    steps: int
    """Steps made, fewer than asked for where early stopping ended the run; in a stack, those of the longest run."""
    monitor: str | None
    """What chose `params`."""
    history: tuple[Row, ...]
    """The rows of the log."""
    training_seconds: float
    """Wall time in training steps, without compilation."""
    compile_seconds: float
    """Wall time in which this process traced, lowered and compiled the programs of the run; next to nothing where they
    had been compiled before."""
    first_step_seconds: float | None
    """Wall time from the call to the end of the first step that this process made; None where it made none."""
    step_seconds: float | None
    """Median wall time of a step, of all runs of a stack together, without compilation; None where that cannot be told,
    as when the run was complete already."""
    optimizer_bytes: int
    """Size of the optimiser's state, of all runs of a stack together."""
    input_wait: float | None
    """The share of the time of a step in which the device waited for the next batch of a stream, without the first
    step; None where all data are in memory."""
    plan: Resolved
    """Who learnt, and at what rate."""
    shared: frozenset[str] = frozenset()
    """The names of the leaves that all runs of a stack have in common, and that have no axis for the runs."""
    step_cost: Callable[[], StepCost] = lambda: StepCost(None, None)
    """`step_cost()`: the FLOPs and the memory of a step, worked out when it is called."""

    accumulate: int = 1
    """Microbatches that each batch was cut into: as asked for, or as ``accumulate="auto"`` chose."""
    terms: tuple[Owned, ...] = ()
    """What each term of the objective owned after the last step, in the order of the sum: parameters, as a
    discriminator's, and state, as a teacher."""

    def of(self, run: int) -> Params:
        """The best parameters of one run of a stack, a whole tree.

        >>> import numpy as np
        >>> params = {"base": np.ones(3), "head": np.array([[1.0, 2.0], [3.0, 4.0]])}
        >>> untold = (None, None, 1, None, (), 0.0, 0.0, None, None, 0, None, None)
        >>> result = Result(params, params, *untold, frozenset({"base"}))
        >>> result.of(1)
        {'base': array([1., 1., 1.]), 'head': array([3., 4.])}
        """
        return one_of(self.params, run, self.shared)
