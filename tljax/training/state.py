"""Everything a run carries from one step to the next, as one pytree."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

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
    """The leaves that never change, None elsewhere."""
    stats: Params
    """The statistics that training updates, None elsewhere."""
    opt: Any
    """The optimiser's state, for the trainable leaves only."""
    terms: Any
    """What the terms of the objective carry."""
    average: Params
    """The exponential moving average of `trainable["model"]` and `stats` (a pair), or None."""

    @property
    def params(self) -> Params:
        """The whole parameter tree of the model as it is now."""
        return merge(self.trainable["model"], self.frozen, self.stats)

    @property
    def evaluated(self) -> Params:
        """The tree to evaluate: the averaged one where an average is kept."""
        if self.average is None:
            return self.params
        return merge(self.average[0], self.frozen, self.average[1])


class Best(NamedTuple):
    """The best evaluation of a run so far, and what early stopping needs to know."""

    value: Array
    """The monitored metric, float32 `[]`; the worst possible value before the first evaluation."""
    step: Array
    """When it was reached, int32 `[]`."""
    model: Params
    """The learnt parameters at that step, None elsewhere."""
    stats: Params
    """The statistics at that step, None elsewhere."""
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
    count: Array
    """How many steps that were, int32 `[]`."""

    @property
    def best_params(self) -> Params:
        """The whole parameter tree at the best evaluation."""
        return merge(self.best.model, self.state.frozen, self.best.stats)


def start_run(state: State, metrics: dict[str, Any], sign: int) -> Run:
    """A run that has made no step. `metrics`: shapes of the step's metrics. `sign`: +1 where more is
    better, else -1."""
    learnt = (state.trainable["model"], state.stats)
    model, stats = jax.tree.map(jnp.copy, learnt)  # its own buffers: the state's are donated
    best = Best(
        value=jnp.float32(-sign * jnp.inf),
        step=jnp.int32(0),
        model=model,
        stats=stats,
        waited=jnp.int32(0),
        stopped=jnp.bool_(False),
    )
    return Run(state, best, jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), metrics), jnp.int32(0))


def judge(run: Run, value: Array, sign: int, patience: int | None) -> Run:
    """`run` after an evaluation gave `value`: keeps the better parameters; a NaN is never better."""
    state, best = run.state, run.best
    better = sign * value > sign * best.value
    now = (state.trainable["model"], state.stats) if state.average is None else state.average
    model, stats = jax.tree.map(lambda new, old: jnp.where(better, new, old), now, (best.model, best.stats))
    waited = jnp.where(better, jnp.int32(0), best.waited + 1)
    stopped = best.stopped if patience is None else best.stopped | (waited >= patience)
    value = jnp.where(better, value.astype(jnp.float32), best.value)
    return run._replace(best=Best(value, jnp.where(better, state.step, best.step), model, stats, waited, stopped))
