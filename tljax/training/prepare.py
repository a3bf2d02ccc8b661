"""From the arguments of `fit` to a compiled program, its data and its rhythm."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from tljax.data import ExampleStream
from tljax.evaluation import Metric, Validator
from tljax.models.remat import CPU_OPTIONS, rematerialised
from tljax.objectives import Term
from tljax.objectives.stream import called
from tljax.plans import Plan, Resolved
from tljax.processes import several
from tljax.training.choosing import Chooser, chooser
from tljax.training.inputs import FitError, by_stream, looked_at, padded, place_of, streams_of
from tljax.training.layout import layout
from tljax.training.mesh import mesh
from tljax.training.monitor import choose_monitor
from tljax.training.options import Options, is_count
from tljax.training.placement import placed_apply
from tljax.training.precision import computing_in
from tljax.training.prepared import Prepared
from tljax.training.program import Choices, Program, make_program
from tljax.training.rhythm import Rhythm
from tljax.training.stack import Names, one_of
from tljax.training.step import make_step
from tljax.types import Batch, Model, Params


def prepare(
    model: Model, params: Params, objective: Term, plan: Plan, train: Any, valid: Any,
    optimizer: Any, options: Options, *, shared: Names | None = None, in_turn: bool = False,
) -> Prepared:  # fmt: skip
    """Check what `fit` was given, and make its program. Raises `FitError`, or the `PlanError` of the plan.

    `shared`: for a stack of runs, the names of the leaves that have no axis for the runs. `in_turn`: they are made one
    after the other, and `params` are those of one.
    """
    _check_kinds(model, objective, plan, optimizer)
    stacked = shared is not None and not in_turn
    one = one_of(params, 0, shared) if shared is not None and stacked else params
    resolved = plan.resolve(one)
    _check_shared(resolved, shared or frozenset())
    data = streams_of(train, objective, options.views)
    model = rematerialised(model, options.remat)
    computing = computing_in(model, options.precision)
    held_out = _held_out(computing, one, valid, options, shared)
    fed = {name: stream for name, stream in data.items() if isinstance(stream, ExampleStream)}
    exam = valid if isinstance(valid, ExampleStream) else None
    if shared is not None and (fed or exam is not None):
        raise FitError("fit_many keeps its data on the device and takes no stream; run fit once for each seed")
    choices = _choices(computing, one, data, held_out, _task(train, valid), options, stacked)
    choices = choices._replace(shared=shared if shared and stacked else frozenset(), compiler=_compiler(options))
    streams = {name: place_of(stream, dict(choices.batch_sizes)[name]) for name, stream in data.items()}
    rhythm = _rhythm(options, evaluates=valid is not None)
    accumulate = 1 if options.accumulate == "auto" else options.accumulate
    description = _description(model, plan, objective, options, choices, rhythm, accumulate)
    ways = (options.clip_norm, options.ema, options.precision)

    def programs(apply: Callable[..., Any], choices: Choices) -> Callable[[int], Program]:
        fixed = (apply, objective, _Frozen(resolved), optimizer, *ways, _of_program(choices))
        return functools.partial(_program, *fixed)

    program_of = programs(model.apply, choices)
    alone = Prepared(
        program_of, program_of(accumulate), streams, fed, held_out, exam, options, rhythm, resolved, choices,
        description, accumulate, objective,
    )  # fmt: skip
    # Of several processes none could go on alone, so without a word all their devices are used.
    over = mesh() if options.mesh is None and several() else options.mesh
    if over is None or stacked:
        return alone
    choices = choices._replace(placement=(options.layout or layout()).resolve(params, over))
    return alone.on_mesh(programs(placed_apply(model.apply, choices.placement), choices), computing, choices)


def _description(
    model: Model, plan: Plan, objective: Term, options: Options, choices: Choices, rhythm: Rhythm, accumulate: int
) -> dict[str, Any]:
    """What a run folder says of the run, and a run that is continued is compared by."""
    found = {
        "model": model.name, "plan": str(plan), "objective": str(objective), "batch_size": dict(choices.batch_sizes),
        "steps": rhythm.steps, "eval_every": rhythm.eval_every, "log_every": rhythm.log_every,
        "monitor": choices.monitor, "patience": options.patience, "clip_norm": options.clip_norm,
        "accumulate": accumulate, "ema": options.ema, "jax": jax.__version__,
        "config": dict(options.config or {}),
    }  # fmt: skip
    found |= {"views": dict(options.views)} if options.views else {}
    found |= {"remat": options.remat} if options.remat is not None else {}
    found |= {"precision": options.precision} if options.precision != "float32" else {}
    return found


def _check_kinds(model: Any, objective: Any, plan: Any, optimizer: Any) -> None:
    """What is no model, term, plan or optimiser is told before anything is made of it."""
    for what, value, right, kind in (
        ("the model", model, "a tl.Model; of a Flax module make one with tl.from_flax(module)", Model),
        ("the objective", objective, "a term, as tl.cross_entropy()", Term),
        ("the plan", plan, "a plan, as tl.plan(tl.freeze('backbone/**'))", Plan),
    ):
        if not isinstance(value, kind):
            raise FitError(f"{what} should be {right}; found {type(value).__name__}: {str(value)[:80]}")
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")) and not callable(optimizer):
        raise FitError(f"the optimizer should be one of optax, as optax.adamw(1e-3); found {optimizer!r}")


def _check_shared(resolved: Resolved, shared: Names) -> None:
    for name in sorted(shared):
        if resolved.trainable(name) or resolved.updated(name):
            raise FitError(
                f"shared: {name!r} is not frozen, so it cannot be the same in all runs; freeze it in the plan, or give "
                "each run its own on axis 0"
            )


def _choices(
    model: Model, params: Params, streams: Mapping[str, Any], valid: Batch | Chooser | None, task: str | None,
    options: Options, stacked: bool,
) -> Choices:  # fmt: skip
    first = next((s for s in streams.values() if looked_at(s)[1] is not None), next(iter(streams.values())))
    monitor = choose_monitor(
        model, params, looked_at(first), valid,
        task=task, metric=options.metric, name=options.monitor, minimize=options.minimize,
    )  # fmt: skip
    if monitor is None and options.patience is not None:
        raise FitError(f"patience={options.patience} needs validation data: valid=(x, y)")
    sizes = tuple(sorted(_batch_sizes(options, streams).items()))
    views = tuple(sorted((view, called(name, streams)) for view, name in (options.views or {}).items()))
    fed = tuple((name, len(stream)) for name, stream in sorted(streams.items()) if isinstance(stream, ExampleStream))
    choices = Choices(
        sizes, stacked, patience=options.patience, augment=_augment(options, streams), views=views, fed=fed
    )
    if monitor is None:
        return choices
    validated = isinstance(valid, Chooser)
    return choices._replace(metric=monitor.metric, monitor=monitor.name, sign=monitor.sign, validated=validated)


def _held_out(model: Model, params: Params, valid: Any, options: Options, shared: Names | None) -> Any:
    if isinstance(options.metric, Validator):
        return chooser(model, params, valid, options.metric, shared=shared, patience=options.patience)
    if not isinstance(options.metric, Metric | None):
        raise FitError(
            "metric should be a metric, as tl.evaluation.classification(10), or what tl.validator gives; "
            f"found {options.metric!r}"
        )
    if isinstance(valid, Mapping):
        raise FitError('valid is a dict by stream, so say which validator chooses: metric=tl.validator("im")')
    return padded(valid)


def _task(train: Any, valid: Any) -> str | None:
    """What the labels are, where the data set says so."""
    return getattr(valid, "task", None) or getattr(train, "task", None)


def _batch_sizes(options: Options, streams: Mapping[str, Any]) -> dict[str, int]:
    given = options.batch_size
    if isinstance(given, Mapping):
        given = by_stream(given, streams, "batch_size")
    sizes: dict[str, Any] = {name: given.get(name) if isinstance(given, Mapping) else given for name in streams}
    for name, size in sizes.items():
        if not is_count(size) or (options.accumulate != "auto" and size % options.accumulate):
            raise FitError(
                f"batch_size of {name!r} must be a whole number, 1 or more, and a multiple of "
                f"accumulate={options.accumulate}; found {size!r}"
            )
    return {name: int(size) for name, size in sizes.items()}


def _augment(options: Options, streams: Mapping[str, Any]) -> Any:
    """The augmentation of all streams, or one for each as pairs, which can be compared."""
    given = options.augment
    if not isinstance(given, Mapping):
        return given
    return tuple(sorted(by_stream(given, [*streams, *(options.views or {})], "augment").items()))


def _rhythm(options: Options, evaluates: bool) -> Rhythm:
    every = options.eval_every or max(1, options.steps // 20)
    return Rhythm(options.steps, options.log_every or every, every, options.save_every, evaluates)


def _compiler(options: Options) -> tuple[tuple[str, Any], ...]:
    return tuple(CPU_OPTIONS.items()) if options.remat is not None and jax.default_backend() == "cpu" else ()


def _of_program(choices: Choices) -> Choices:
    """What the program depends on: it is the same whichever validator chooses."""
    return choices._replace(monitor="", patience=None) if choices.validated else choices


class _Frozen:
    """A resolved plan as a dictionary key: equal where the settings are equal."""

    def __init__(self, resolved: Resolved):
        self.resolved, self._items = resolved, tuple(resolved.settings.items())

    def __hash__(self) -> int:
        return hash(self._items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Frozen) and self._items == other._items


@functools.lru_cache(maxsize=16)  # a program keeps what its objective holds, such as the anchor of L2-SP
def _program(
    apply: Callable[..., Any], objective: Term, plan: _Frozen, optimizer: Any,
    clip_norm: float | None, ema: float | None, precision: str, choices: Choices, accumulate: int,
) -> Program:  # fmt: skip
    """Compiled once per configuration: equal arguments give the same program."""
    model = Model(init=None, apply=apply)  # type: ignore[arg-type]
    ways: dict[str, Any] = {"clip_norm": clip_norm, "accumulate": accumulate, "ema": ema, "precision": precision}
    step = make_step(model, objective, plan.resolved, optimizer, **ways)
    return make_program(computing_in(model, precision), step, choices)
