"""The training step: a pure function `(state, batches) -> (state, metrics)` from a model, an objective and
a plan."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tljax.objectives import Owned, Scene, Term
from tljax.plans import Resolved
from tljax.training.state import State
from tljax.tree import merge
from tljax.types import Array, Batch, Key, Model, Params

Batches = Mapping[str, Batch]
Metrics = dict[str, Array]


class Step(NamedTuple):
    """A training step."""

    init: Callable[..., State]
    """`init(params, batches, *, seed, rate=1.0) -> State`; of `batches` only shapes and dtypes matter."""
    update: Callable[[State, Batches], tuple[State, Metrics]]
    """One update; metrics are scalars: the loss, what the terms log, and the norm of the gradient before
    clipping."""


def make_step(
    model: Model,
    objective: Term,
    plan: Resolved,
    optimizer: optax.GradientTransformation,
    *,
    clip_norm: float | None = None,
    accumulate: int = 1,
    ema: float | None = None,
) -> Step:
    """The step that minimises `objective` over the leaves that `plan` lets learn.

    Args:
      model: what is trained.
      objective: a term, or a sum of terms.
      plan: the plan, resolved for the model's parameters: `plan.resolve(params)`.
      optimizer: any optax transformation; it sees the trainable leaves only.
      clip_norm: clips the global norm of the trainable gradient.
      accumulate: number of equal microbatches that each batch is cut into; their gradients are averaged.
      ema: decay of the moving average of parameters; warmed up as `min(ema, (1 + t) / (10 + t))`.

    Gradients are taken with respect to the trainable tree alone, so frozen leaves cost no backward pass,
    have no optimiser state and cannot be decayed.
    """
    transform = _transform(plan, optimizer, clip_norm)
    gradient = jax.value_and_grad(_loss(model, objective, plan), has_aux=True)

    def init(params: Params, batches: Batches, *, seed: Any, rate: Any = 1.0) -> State:
        learnt, stats, frozen = plan.partition(params)
        owned = objective.init(_key(seed, 0xFFFFFFFF), _abstract_scene(model, plan, params, batches, seed))
        trainable = {"model": learnt, "terms": owned.params}
        average = jax.tree.map(jnp.copy, (learnt, stats)) if ema is not None else None
        return State(
            step=jnp.int32(0), seed=jnp.asarray(seed, jnp.uint32), rate=jnp.asarray(rate, jnp.float32),
            trainable=trainable, frozen=frozen, stats=stats, opt=transform.init(trainable),
            terms=owned.state, average=average,
        )  # fmt: skip

    def update(state: State, batches: Batches) -> tuple[State, Metrics]:
        grads, stats, terms, metrics = _gradients(gradient, state, batches, accumulate)
        metrics["grad_norm"] = optax.global_norm(grads)
        with jax.numpy_dtype_promotion("standard"):  # optax multiplies floats by integer step counts
            updates, opt = transform.update(grads, state.opt, state.trainable)
        updates = jax.tree.map(lambda u: u * state.rate.astype(u.dtype), updates)
        trainable = optax.apply_updates(state.trainable, updates)
        average = state.average if ema is None else _moved(state.average, (trainable["model"], stats), state.step, ema)
        new = state._replace(
            step=state.step + 1, trainable=trainable, stats=stats, opt=opt, terms=terms, average=average
        )
        return new, metrics

    return Step(init, update)


def _transform(plan: Resolved, optimizer: Any, clip_norm: float | None) -> optax.GradientTransformation:
    def labels(trainable: dict[str, Any]) -> dict[str, Any]:
        return {
            "model": plan.labels(trainable["model"]),
            "terms": jax.tree.map(lambda _: "rate 1", trainable["terms"]),
        }

    grouped = optax.multi_transform(plan.groups(optimizer), labels)
    return grouped if clip_norm is None else optax.chain(optax.clip_by_global_norm(clip_norm), grouped)


def _loss(model: Model, objective: Term, plan: Resolved) -> Callable[..., Any]:
    held = plan.frozen_statistics

    def loss(trainable: dict[str, Any], state: State, batches: Batches, key: Key) -> Any:
        forward_key, term_key = jax.random.split(key)
        outputs, stats = {}, state.stats
        for i, name in enumerate(objective.streams):
            params = merge(trainable["model"], state.frozen, stats)
            k = jax.random.fold_in(forward_key, i)
            outputs[name] = model.apply(params, batches[name].x, train=True, key=k, frozen=held)
            stats = _updated(plan, stats, outputs[name].stats)

        def forward(params: Params, x: Any) -> Any:
            return model.apply(params, x, train=True, key=forward_key, frozen=held)

        params = merge(trainable["model"], state.frozen, stats)
        scene = Scene(outputs, batches, params, forward, state.step, term_key)
        value, terms, metrics = objective.apply(Owned(trainable["terms"], state.terms), scene)
        return value, (stats, terms, {"loss": value} | metrics)

    return loss


def _updated(plan: Resolved, stats: Params, new: Params) -> Params:
    """`new` where the plan updates statistics; `stats` where the model returned none."""
    return stats if new is None else plan.partition(new)[1]


def _gradients(gradient: Callable[..., Any], state: State, batches: Batches, accumulate: int) -> Any:
    """The mean gradient over the microbatches, the last statistics and term states, and the mean metrics."""
    key = _key(state.seed, state.step)
    if accumulate == 1:
        (_, (stats, terms, metrics)), grads = gradient(state.trainable, state, batches, key)
        return grads, stats, terms, dict(metrics)

    def one(carry: Any, item: Any) -> Any:
        stats, terms = carry
        micro, i = item
        now = state._replace(stats=stats, terms=terms)
        (_, (stats, terms, metrics)), grads = gradient(state.trainable, now, micro, jax.random.fold_in(key, i))
        return (stats, terms), (grads, metrics)

    micros = jax.tree.map(lambda a: a.reshape(accumulate, a.shape[0] // accumulate, *a.shape[1:]), dict(batches))
    (stats, terms), stacked = jax.lax.scan(one, (state.stats, state.terms), (micros, jnp.arange(accumulate)))
    grads, metrics = jax.tree.map(lambda a: jnp.mean(a, axis=0), stacked)
    return grads, stats, terms, metrics


def _moved(average: Params, now: Params, step: Array, decay: float) -> Params:
    t = step.astype(jnp.float32)
    d = jnp.minimum(jnp.float32(decay), (1 + t) / (10 + t))
    return jax.tree.map(lambda a, n: a + (1 - d).astype(a.dtype) * (n.astype(a.dtype) - a), average, now)


def _key(seed: Any, step: Any) -> Key:
    """Randomness of a step: it depends on `(seed, step)` alone, so a resumed run draws the same."""
    return jax.random.fold_in(jax.random.key(jnp.asarray(seed, jnp.uint32)), step)


def _abstract_scene(model: Model, plan: Resolved, params: Params, batches: Batches, seed: Any) -> Scene:
    def forward(params: Params, x: Any) -> Any:
        return model.apply(params, x, train=True, key=_key(seed, 0), frozen=plan.frozen_statistics)

    outputs = {name: jax.eval_shape(forward, params, batch.x) for name, batch in batches.items()}
    return Scene(outputs, batches, params, forward, jnp.int32(0), _key(seed, 0))
