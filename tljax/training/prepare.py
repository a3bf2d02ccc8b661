"""From the arguments of `fit` to a compiled program, its data and its rhythm."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from tljax.data import ExampleStream
from tljax.evaluation import Metric, Validator
from tljax.objectives import Term
from tljax.plans import Plan, Resolved
from tljax.training.choosing import Chooser, chooser
from tljax.training.inputs import FitError, looked_at, padded, place_of, streams_of
from tljax.training.log import Row
from tljax.training.loop import Rhythm
from tljax.training.monitor import choose_monitor
from tljax.training.precision import PRECISIONS, computing_in
from tljax.training.program import Choices, Program, make_program
from tljax.training.stack import Names, one_of
from tljax.training.step import make_step
from tljax.tree import nearest
from tljax.types import Batch, Model, Params


@dataclasses.dataclass(frozen=True)
class Options:
    """How a run goes. `fit` takes each as a keyword.

    Raises `FitError` for values outside their range.

    >>> Options(steps=100, patience=3).batch_size
    32
    """

    steps: int
    batch_size: int | Mapping[str, int] = 32
    """Examples per step; a dict gives each stream its own."""
    eval_every: int | None = None
    """Steps between evaluations; default: 20 evaluations in the run."""
    log_every: int | None = None
    """Steps between log lines; default: as `eval_every`."""
    save_every: int | None = None
    """Steps between checkpoints; default: every half a minute, and half-way. One is always made at the end."""
    keep: int = 2
    """How many checkpoints are kept."""
    metric: Metric | Validator | None = None
    """What is evaluated on the validation data; default by the labels: classes, several labels, or numbers. With
    streams of validation data, a validator: ``tl.validator("im")``."""
    monitor: str | None = None
    """The metric's number that chooses the best parameters; default: accuracy or rmse, whichever it has."""
    minimize: bool | None = None
    """Whether less of `monitor` is better; needed for names that tljax does not know."""
    patience: int | None = None
    """Evaluations without improvement after which the run ends; None: never."""
    clip_norm: float | None = None
    """Clips the global norm of the gradient."""
    accumulate: int = 1
    """Microbatches that each batch is cut into, to save memory."""
    precision: str = "float32"
    """The type in which the model computes: "float32" (as its parameters are), "bfloat16", or "float16" with a scaled
    loss. Evaluations in the run are in that type too; what learns is float32."""
    ema: float | None = None
    """Decay of an average of the parameters, which is then what is evaluated and returned."""
    augment: Callable[..., Batch] | Mapping[str, Callable[..., Batch]] | None = None
    """`augment(key, batch) -> batch`, compiled into the step; a dict gives streams and views their own."""
    views: Mapping[str, str] | None = None
    """Streams that show the examples of another, at the same time, by its name: ``{"weak": "unlabelled"}``."""
    run_dir: str | pathlib.Path | None = None
    """Where checkpoints and the log go. If a run of the same configuration stands there, it is continued."""
    config: Mapping[str, Any] | None = None
    """JSON values that describe the run; kept in `run_dir` and compared when a run is continued."""
    on_log: Sequence[Callable[[Row], None]] = ()
    """Called with every row of the log."""
    progress: bool | str = True
    """Whether to show a progress bar; a string is its title."""

    def __post_init__(self) -> None:
        for name in ("steps", "keep", "accumulate", "eval_every", "log_every", "save_every", "patience"):
            value = getattr(self, name)
            if not (value is None and name in _OPTIONAL) and not _is_count(value):
                raise FitError(f"{name} must be a whole number, 1 or more; found {value!r}")
        if self.precision not in PRECISIONS:
            raise FitError(f"precision is one of {', '.join(map(repr, PRECISIONS))}; found {self.precision!r}")
        if not isinstance(self.on_log, Sequence) or not all(map(callable, self.on_log)):
            raise FitError(f"on_log is a list of functions of a row, as on_log=[print]; found {self.on_log!r}")


_OPTIONAL = ("eval_every", "log_every", "save_every", "patience")


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)


def options_from(given: Mapping[str, Any]) -> Options:
    """`Options` from keywords; raises `FitError` with the nearest names for one that does not exist.

    >>> options_from({"steps": 10, "batchsize": 8})
    Traceback (most recent call last):
    tljax.training.inputs.FitError: fit has no option 'batchsize'; the nearest are 'batch_size', 'patience', 'minimize'
    """
    known = [field.name for field in dataclasses.fields(Options)]
    for name in given:
        if name not in known:
            close = nearest(name, known) or known
            raise FitError(f"fit has no option {name!r}; the nearest are {', '.join(map(repr, close))}")
    if "steps" not in given:
        raise FitError("fit needs the number of updates to make: steps=1000")
    return Options(**given)


@dataclasses.dataclass
class Prepared:
    """A run that can start."""

    program: Program
    streams: dict[str, Any]
    """A `Stream` of each of the training data; in the place of those that are streamed, a `Fed` of zeros."""
    fed: dict[str, ExampleStream]
    """Those that are streamed."""
    valid: Batch | Chooser | None
    """The validation data, of streamed ones a sample; or what chooses by a validator, with its data."""
    exam: ExampleStream | None
    """The validation data if they are streamed."""
    options: Options
    rhythm: Rhythm
    resolved: Resolved
    choices: Choices
    description: dict[str, Any]


def prepare(
    model: Model, params: Params, objective: Term, plan: Plan, train: Any, valid: Any,
    optimizer: Any, options: Options, *, shared: Names | None = None,
) -> Prepared:  # fmt: skip
    """Check what `fit` was given, and make its program. Raises `FitError`, or the `PlanError` of the plan.

    `shared`: for a stack of runs, the names of the leaves that have no axis for the runs.
    """
    _check_kinds(model, objective, plan, optimizer)
    stacked = shared is not None
    one = one_of(params, 0, shared) if shared is not None else params
    resolved = plan.resolve(one)
    _check_shared(resolved, shared or frozenset())
    data = streams_of(train, objective, options.views)
    computing = computing_in(model, options.precision)
    held_out = _held_out(computing, one, valid, options, shared)
    fed = {name: stream for name, stream in data.items() if isinstance(stream, ExampleStream)}
    exam = valid if isinstance(valid, ExampleStream) else None
    if stacked and (fed or exam is not None):
        raise FitError("fit_many keeps its data on the device and takes no stream; run fit once for each seed")
    choices = _choices(computing, one, data, held_out, _task(train, valid), options, stacked)
    choices = choices._replace(shared=shared or frozenset())
    streams = {name: place_of(stream, dict(choices.batch_sizes)[name]) for name, stream in data.items()}
    rhythm = _rhythm(options)
    ways = (options.clip_norm, options.accumulate, options.ema, options.precision)
    program = _program(model.apply, objective, _Frozen(resolved), optimizer, *ways, _of_program(choices))
    description = {
        "model": model.name, "plan": str(plan), "objective": str(objective), "batch_size": dict(choices.batch_sizes),
        "steps": rhythm.steps, "eval_every": rhythm.eval_every, "log_every": rhythm.log_every,
        "monitor": choices.monitor, "patience": options.patience, "clip_norm": options.clip_norm,
        "accumulate": options.accumulate, "ema": options.ema, "jax": jax.__version__,
        "config": dict(options.config or {}),
    }  # fmt: skip
    description |= {"views": dict(options.views)} if options.views else {}
    description |= {"precision": options.precision} if options.precision != "float32" else {}
    return Prepared(program, streams, fed, held_out, exam, options, rhythm, resolved, choices, description)


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
    views = tuple(sorted((options.views or {}).items()))
    choices = Choices(sizes, stacked, patience=options.patience, augment=_augment(options, streams), views=views)
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
    sizes: dict[str, Any] = {name: given.get(name) if isinstance(given, Mapping) else given for name in streams}
    for name, size in sizes.items():
        if not _is_count(size) or size % options.accumulate:
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
    known = [*streams, *(options.views or {})]
    for name in given:
        if name not in known:
            raise FitError(f"augment: there is no stream {name!r}; there are {', '.join(map(repr, known))}")
    return tuple(sorted(given.items()))


def _rhythm(options: Options) -> Rhythm:
    every = options.eval_every or max(1, options.steps // 20)
    return Rhythm(options.steps, options.log_every or every, every, options.save_every)


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
    clip_norm: float | None, accumulate: int, ema: float | None, precision: str, choices: Choices,
) -> Program:  # fmt: skip
    """Compiled once per configuration: equal arguments give the same program."""
    model = Model(init=None, apply=apply)  # type: ignore[arg-type]
    ways: dict[str, Any] = {"clip_norm": clip_norm, "accumulate": accumulate, "ema": ema, "precision": precision}
    step = make_step(model, objective, plan.resolved, optimizer, **ways)
    return make_program(computing_in(model, precision), step, choices)
