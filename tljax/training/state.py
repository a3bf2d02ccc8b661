"""Everything a run carries from one step to the next, as one pytree."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tljax.training.scaling import Scaling
from tljax.tree import merge
from tljax.types import Array, Params


class State(NamedTuple):
    """What the training step reads and writes. Random numbers and the order of the data are functions of
    `(seed, step)`."""

    step: Array
    """Updates made so far, int32 `[]`."""
    seed: Array
    """uint32 `[]`."""
    rate: Array
    """This run's own factor on every update, float32 `[]`."""
    trainable: dict[str, Any]
    """`"model"`: the parameters that learn, None elsewhere; `"terms"`: parameters that the objective owns."""
    frozen: Params
    """The leaves that never change, None elsewhere; in the narrow type where the step computes in one."""
    stats: Params
    """The statistics that training updates, None elsewhere."""
    opt: Any
    """The optimiser's state, for the trainable leaves only."""
    terms: Any
    """What the terms of the objective carry."""
    average: Params
    """The exponential moving average of `trainable["model"]` and `stats` (a pair), in float32 at least; or None."""
    scaling: Scaling | None = None
    """The scale of the loss; None where the step computes in a type that needs none."""

    @property
    def params(self) -> Params:
        """The whole parameter tree of the model as it is now."""
        return merge(self.trainable["model"], self.frozen, self.stats)

    @property
    def learnt(self) -> tuple[Params, Params]:
        """The parameters and the statistics to evaluate: the averaged ones where an average is kept."""
        now = (self.trainable["model"], self.stats)
        if self.average is None:
            return now
        return jax.tree.map(lambda n, a: a.astype(n.dtype), now, self.average)

    @property
    def evaluated(self) -> Params:
        """The whole tree to evaluate: the averaged one where an average is kept."""
        model, stats = self.learnt
        return merge(model, self.frozen, stats)


class Best(NamedTuple):
    """The best evaluation of a run so far, and what early stopping needs to know."""

    value: Array
    """The monitored metric, float32 `[]`; the worst possible value before the first evaluation."""
    step: Array
    """When it was reached, int32 `[]`."""
    model: Params
    """The learnt parameters at that step, None elsewhere; None altogether in a run that is not evaluated."""
    stats: Params
    """The statistics at that step, in the same way."""
    waited: Array
    """Evaluations since then, int32 `[]`."""
    stopped: Array
    """Whether early stopping has ended the run, bool `[]`."""


class Run(NamedTuple):
    """A run as it is checkpointed: resuming from it gives bit for bit what an unbroken run gives."""

    state: State
    best: Best
    sums: dict[str, Array]
    """The metrics of the steps since the last log line, summed."""
    summed: Array
    """How many steps that were, int32 `[]`; skipped ones, see `State.scaling`, do not count."""
    failed: Array
    """The first step whose loss was not finite, or after which parameters were found not to be; -1 if none. `[]`."""
    broken: dict[str, Array]
    """Which metrics were not finite in that step, or are not in the last one; bool `[]`."""


def start_run(state: State, metrics: dict[str, Any], *, sign: int, evaluated: bool) -> Run:
    """A run that has made no step.

    `metrics`: shapes of the step's metrics. `sign`: +1 where more of the monitored metric is better, else -1.
    `evaluated`: whether there will be evaluations, so that the best parameters must be kept.
    """
    # Its own buffers: the state's are donated.
    model, stats = jax.tree.map(jnp.copy, state.learnt) if evaluated else (None, None)
    best = Best(
        value=jnp.float32(-sign * jnp.inf),
        step=jnp.int32(0),
        model=model,
        stats=stats,
        waited=jnp.int32(0),
        stopped=jnp.bool_(False),
    )
    sums = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), metrics)
    broken = {name: jnp.bool_(False) for name in metrics}
    return Run(state, best, sums, summed=jnp.int32(0), failed=jnp.int32(-1), broken=broken)


def judge(run: Run, value: Array, sign: int, patience: int | None) -> Run:
    """`run` after an evaluation gave `value`: keeps the better parameters; a NaN is never better."""
    state, best = run.state, run.best
    value = jnp.asarray(value, jnp.float32)
    better = sign * value > sign * best.value
    old = (best.model, best.stats)
    model, stats = jax.tree.map(lambda new, old: jnp.where(better, new, old), state.learnt, old)
    waited = jnp.where(better, jnp.int32(0), best.waited + 1)
    stopped = best.stopped if patience is None else best.stopped | (waited >= patience)
    step = jnp.where(better, state.step, best.step)
    return run._replace(best=Best(jnp.where(better, value, best.value), step, model, stats, waited, stopped))
