"""The training step: a pure function `(state, batches) -> (state, metrics)` from a model, an objective and a plan."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tljax.models.remat import rematerialised
from tljax.models.taps import tapped
from tljax.objectives import Owned, Scene, Term
from tljax.objectives.term import asked, begun
from tljax.plans import Resolved
from tljax.plans.unfreezing import held, open_norm
from tljax.training.average import moved_average, wide_copy
from tljax.training.precision import PRECISIONS, computing_in, narrowed, widened
from tljax.training.scaling import all_finite, kept_unless, moved, start_scaling
from tljax.training.state import State
from tljax.training.streams import forward_streams, further_passes
from tljax.training.transform import lenient, openings, transform_of
from tljax.training.turns import Parts, Turn, logged, losses, parted, turns
from tljax.tree import merge
from tljax.types import Array, Batch, Key, Model, Output, Params, TljaxError

Batches = Mapping[str, Batch]
Metrics = dict[str, Array]


class StepError(TljaxError):
    """A training step that cannot be made, or a batch that it cannot take."""


class Step(NamedTuple):
    """A training step."""

    init: Callable[..., State]
    """`init(params, batches, *, seed, rate=1.0) -> State`; of `batches` only shapes and dtypes matter."""
    update: Callable[[State, Batches], tuple[State, Metrics]]
    """One update; metrics are scalars: the loss, what the terms log, and the norm of the gradient before clipping."""
    losses: tuple[str, ...]
    """Which of the metrics are what the step minimises: the loss, and those of further phases, as `loss_follow`."""


def make_step(
    model: Model,
    objective: Term,
    plan: Resolved,
    optimizer: Any,
    *,
    clip_norm: float | None = None,
    accumulate: int = 1,
    ema: float | None = None,
    precision: str = "float32",
    remat: str | None = None,
    axis_name: str | None = None,
) -> Step:
    """The step that minimises `objective` over the leaves that `plan` lets learn.

    Gradients are taken with respect to the trainable tree alone, so frozen leaves cost no backward pass, have no
    optimiser state and cannot be decayed. The step neither compiles itself nor places anything: `jax.jit` it, with
    state and batches wherever they are.

    Args:
      model: what is trained.
      objective: a term, or a sum of terms.
      plan: the plan, resolved for the model's parameters: `plan.resolve(params)`.
      optimizer: any optax transformation, or a function of `weight_decay` that makes one, as plans with weight decay
        need it: ``functools.partial(optax.adamw, 3e-4)``. It sees the trainable leaves only; where the plan has several
        rates or decays, one copy of it sees the leaves of each, so that a norm which the optimiser itself clips is that
        of the group.
      clip_norm: clips the global norm of the whole trainable gradient.
      accumulate: number of equal microbatches that each batch is cut into; their gradients are averaged.
      ema: decay of the moving average of parameters and statistics; warmed up as `min(ema, (1 + t) / (10 + t))`.
      precision: the type in which the model computes: "float32" (as its parameters are), "bfloat16" or "float16". In
        the narrow ones, what learns is kept in float32, with its gradients and the optimiser's state, what is frozen in
        the narrow type, and losses are float32. In float16 the loss is scaled, see `State.scaling`; a step whose
        gradients overflow changes nothing but the scale.
      remat: what the backward pass computes again, to save memory: "blocks" for each group of the model but what enters
        it, "dots" for all but matrix products and convolutions. On CPU compile the step with the `compiler_options` in
        `tljax.models.remat.CPU_OPTIONS`, or XLA undoes it.
      axis_name: of the devices over which gradients, metrics and statistics are averaged under `jax.pmap`; see
        `pmap_step`. Under `jax.jit` the batch is one, wherever its examples are.

    Raises:
      StepError: options outside their range; from `update`, a batch that does not divide into the microbatches.

    >>> from tljax.models import mlp
    >>> from tljax.objectives import cross_entropy
    >>> from tljax.plans import linear_probe
    >>> model, x = mlp((8,), num_classes=2), jnp.ones((4, 3))
    >>> params = model.init(jax.random.key(0), x)
    >>> step = make_step(model, cross_entropy(), linear_probe().resolve(params), optax.adam(1e-3))
    >>> batches = {"train": Batch(x, jnp.array([0, 1, 0, 1]))}
    >>> state, metrics = jax.jit(step.update)(step.init(params, batches, seed=0), batches)
    >>> sorted(metrics), int(state.step)
    (['accuracy', 'cross_entropy', 'grad_norm', 'loss'], 1)
    """
    _check(clip_norm, accumulate, ema, precision)
    model = computing_in(rematerialised(model, remat), precision)
    wide = _as_it_is if precision == "float32" else widened
    transform = transform_of(plan, optimizer, clip_norm)
    loss = _loss(model, objective, plan, wide)

    def init(params: Params, batches: Batches, *, seed: Any, rate: Any = 1.0) -> State:
        learnt, stats, frozen = plan.partition(params)
        owned = begun(objective, _key(seed, 0xFFFFFFFF), _abstract_scene(model, objective, plan, params, batches, wide))
        trainable = wide({"model": learnt, "terms": owned.params})
        parts = parted(objective, trainable)
        with lenient():
            opt = tuple(transform.init(parts.take(trainable, i)) for i in range(len(parts.kinds)))
        return State(
            step=jnp.int32(0), seed=jnp.asarray(seed, jnp.uint32), rate=jnp.asarray(rate, jnp.float32),
            trainable=trainable, frozen=narrowed(frozen, precision), stats=stats,
            opt=opt if objective.phases else opt[0], terms=owned.state,
            average=None if ema is None else jax.tree.map(wide_copy, (trainable["model"], stats)),
            scaling=start_scaling() if precision == "float16" else None,
        )  # fmt: skip

    def update(state: State, batches: Batches) -> tuple[State, Metrics]:
        parts, metrics, finite = parted(objective, state.trainable), Metrics(), jnp.bool_(True)
        now = state if objective.phases else state._replace(opt=(state.opt,))
        for turn in turns(objective, parts):
            now, found, fine = _updated(loss, transform, plan, parts, turn, now, batches, accumulate, axis_name)
            metrics, finite = found | metrics, finite & fine
        opt = now.opt if objective.phases else now.opt[0]
        return _concluded(state, now._replace(opt=opt), finite, ema), metrics

    return Step(init, update, losses(objective))


def _concluded(state: State, now: State, finite: Array, ema: float | None) -> State:
    """The state after all turns of a step: averaged, and as it was before if a scaled gradient was not finite."""
    learnt = (now.trainable["model"], now.stats)
    now = now._replace(average=state.average if ema is None else moved_average(state.average, learnt, state.step, ema))
    if state.scaling is not None:
        now = kept_unless(finite, now._replace(frozen=None), state._replace(frozen=None))
        now = now._replace(frozen=state.frozen, scaling=moved(state.scaling, finite))
    return now._replace(step=state.step + 1)


def _updated(
    loss: Callable[..., Any], transform: optax.GradientTransformationExtraArgs, plan: Resolved, parts: Parts,
    turn: Turn, state: State, batches: Batches, accumulate: int, axis_name: str | None,
) -> tuple[State, Metrics, Array]:  # fmt: skip
    """The state after one turn of the step, its metrics, and whether the gradient of a scaled loss was finite."""
    phase, key, scaling = turn.phase, _key(state.seed, state.step), state.scaling
    name = None if phase is None else phase.name
    key = key if phase is None else jax.random.fold_in(key, turn.number)
    moving, still = parts.divide(state.trainable, turn.parts)

    def value(moving: Any, state: State, batches: Batches, key: Key, micro: Array | int = 0) -> Any:
        micro = micro + turn.earlier * accumulate
        found, rest = loss(merge(moving, still), state, batches, key, name, micro)
        return found if scaling is None else found * scaling.scale.astype(found.dtype), rest

    gradient = jax.value_and_grad(value, has_aux=True)
    here = key if axis_name is None else jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    found = _gradients(gradient, moving, state, batches, here, accumulate)
    grads, stats, terms, metrics = found if axis_name is None else _averaged(found, axis_name)
    finite = jnp.bool_(True)
    if scaling is not None:
        grads = jax.tree.map(lambda g: g / scaling.scale.astype(g.dtype), grads)
        finite = all_finite(grads)
    trainable, opt = state.trainable, list(state.opt)
    with lenient():
        metrics["grad_norm"] = open_norm(openings(plan, moving), state.step, grads)
        for part in turn.parts:
            old, own = parts.take(trainable, part), parts.take(grads, part)
            rest = parts.divide(trainable, (part,))[1]
            line = lambda tree, rest=rest: loss(merge(tree, rest), state, batches, key, name)[0]  # noqa: E731
            extra = {"value": metrics["loss"], "grad": own, "value_fn": line}
            updates, opt[part] = transform.update(own, opt[part], old, step=state.step, **extra)
            updates = jax.tree.map(lambda u: u * state.rate.astype(u.dtype), updates)
            new = held(openings(plan, old), state.step, optax.apply_updates(old, updates), old)
            trainable = merge(rest, new)
    own_names = {each: logged(each, turn.number, phase) for each in ("loss", "grad_norm")}
    metrics = {own_names.get(each, each): value for each, value in metrics.items()}
    return state._replace(trainable=trainable, stats=stats, terms=terms, opt=tuple(opt)), metrics, finite


def _check(clip_norm: Any, accumulate: Any, ema: Any, precision: Any) -> None:
    if clip_norm is not None and not clip_norm > 0:
        raise StepError(f"clip_norm must be above 0, or None for no clipping; found {clip_norm!r}")
    if accumulate != int(accumulate) or accumulate < 1:
        raise StepError(f"accumulate must be a whole number of microbatches, 1 or more; found {accumulate!r}")
    if ema is not None and not 0 < ema < 1:
        raise StepError(f"ema is the decay of an average, between 0 and 1, as 0.999; found {ema!r}")
    if precision not in PRECISIONS:
        raise StepError(f"precision is one of {', '.join(map(repr, PRECISIONS))}; found {precision!r}")


def _as_it_is(tree: Any) -> Any:
    return tree


def _loss(model: Model, objective: Term, plan: Resolved, wide: Callable[[Any], Any]) -> Callable[..., Any]:
    """`loss(trainable, state, batches, key, phase, micro) -> (value, (stats, terms, metrics))`; terms see what is
    `wide`."""
    held = plan.frozen_statistics

    def loss(
        trainable: dict[str, Any], state: State, batches: Batches, key: Key, phase: str | None, micro: Array | int = 0
    ) -> Any:
        stream_key, forward_key, term_key = jax.random.split(key, 3)

        def run(stats: Params, x: Any, number: int) -> tuple[Output, dict[str, Any], Params]:
            params = merge(trainable["model"], state.frozen, stats)
            with tapped(*objective.layers) as tap:
                own_key = jax.random.fold_in(stream_key, number)
                output = model.apply(params, x, train=True, key=own_key, frozen=held)
            return output, wide(tap.outputs), _with_statistics(plan, stats, output.stats)

        outputs, layers, stats = forward_streams(objective, batches, state.stats, run)

        params = merge(trainable["model"], wide(state.frozen), stats)
        forward, evaluate = further_passes(model, params, held, forward_key)
        scene = Scene(
            outputs, batches, params, forward, state.step, term_key, evaluate, layers, phase,
            trainable=trainable["model"], micro=micro,
        )  # fmt: skip
        value, terms, metrics = asked(objective, Owned(trainable["terms"], state.terms), scene)
        return value, (stats, terms, {"loss": value} | metrics)

    return loss


def _with_statistics(plan: Resolved, stats: Params, new: Params) -> Params:
    """`new` where the plan updates statistics; `stats` where the model returned none."""
    return stats if new is None else plan.partition(new)[1]


def _gradients(
    gradient: Callable[..., Any], moving: Any, state: State, batches: Batches, key: Key, accumulate: int
) -> Any:
    """The mean gradient over the microbatches, the last statistics and term states, and the mean metrics."""
    if accumulate == 1:
        (_, (stats, terms, metrics)), grads = gradient(moving, state, batches, key)
        return grads, stats, terms, dict(metrics)

    def one(carry: Any, item: Any) -> Any:
        stats, terms, total = carry
        micro, i = item
        now = state._replace(stats=stats, terms=terms)
        (_, (stats, terms, metrics)), grads = gradient(moving, now, micro, jax.random.fold_in(key, i), i)
        return (stats, terms, jax.tree.map(jnp.add, total, grads)), metrics

    micros = jax.tree.map(lambda a: _cut(a, accumulate), dict(batches))
    start = (state.stats, state.terms, jax.tree.map(jnp.zeros_like, moving))
    (stats, terms, total), metrics = jax.lax.scan(one, start, (micros, jnp.arange(accumulate)))
    grads = jax.tree.map(lambda g: g / jnp.asarray(accumulate, g.dtype), total)
    return grads, stats, terms, jax.tree.map(lambda m: jnp.mean(m, axis=0), metrics)


def _averaged(tree: Any, axis_name: str) -> Any:
    """The mean over devices of all floats; of the rest, such as counts, each its own."""
    return jax.tree.map(lambda a: jax.lax.pmean(a, axis_name) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


def _cut(a: Array, pieces: int) -> Array:
    """Microbatches `[pieces, B / pieces, ...]`, each of every `pieces`-th example: of a mesh it has all devices."""
    if a.shape[0] % pieces:
        raise StepError(f"a batch of {a.shape[0]} examples cannot be cut into {pieces} equal microbatches")
    return a.reshape(a.shape[0] // pieces, pieces, *a.shape[1:]).swapaxes(0, 1)


def _key(seed: Any, step: Any) -> Key:
    """Randomness of a step: it depends on `(seed, step)` alone, so a resumed run draws the same."""
    return jax.random.fold_in(jax.random.key(jnp.asarray(seed, jnp.uint32)), step)


def _abstract_scene(
    model: Model, objective: Term, plan: Resolved, params: Params, batches: Batches, wide: Callable[[Any], Any]
) -> Scene:  # fmt: skip
    """The scene of a term's `init`: shapes in the place of batches and outputs."""
    key = jax.random.key(0)
    terms_see, learnt = wide(params), plan.partition(params)[0]
    forward, evaluate = further_passes(model, terms_see, plan.frozen_statistics, key)

    def run(stats: Params, x: Any, number: int) -> tuple[Output, dict[str, Any], Params]:
        with tapped(*objective.layers) as tap:
            output = forward(params, x)
        return output, wide(tap.outputs), stats

    outputs, layers = jax.eval_shape(lambda given: forward_streams(objective, given, None, run)[:2], batches)
    return Scene(outputs, batches, terms_see, forward, jnp.int32(0), key, evaluate, layers, trainable=wide(learnt))
