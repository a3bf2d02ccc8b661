"""From the arguments of `fit` to a compiled program, its data and its rhythm."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tljax.evaluation import Metric, classification, regression
from tljax.objectives import Term
from tljax.plans import Plan, Resolved
from tljax.training.inputs import FitError, padded, streams_of
from tljax.training.log import Row
from tljax.training.loop import Rhythm
from tljax.training.program import Choices, Program, Stream, make_program
from tljax.training.step import make_step
from tljax.types import Batch, Model, Params

LESS_IS_BETTER = ("loss", "nll", "brier", "ece", "mae", "rmse")


@dataclasses.dataclass(frozen=True)
class Options:
    """How a run goes. `fit` takes each as a keyword."""

    steps: int
    batch_size: int | Mapping[str, int] = 32
    eval_every: int | None = None
    """Steps between evaluations; default: 20 evaluations in the run."""
    log_every: int | None = None
    """Steps between log lines; default: as `eval_every`."""
    save_every: int | None = None
    """Steps between checkpoints; default: as `eval_every`."""
    keep: int = 2
    """How many checkpoints are kept."""
    monitor: str | None = None
    """The metric that chooses the best parameters; default: accuracy, or rmse for regression."""
    patience: int | None = None
    """Evaluations without improvement after which the run ends; None: never."""
    metric: Metric | None = None
    """What is evaluated on the validation data; default by the kind of labels."""
    clip_norm: float | None = None
    accumulate: int = 1
    ema: float | None = None
    augment: Callable[..., Batch] | None = None
    """`augment(key, batch) -> batch`, compiled into the step."""
    run_dir: str | pathlib.Path | None = None
    """Where checkpoints and the log go. If a run of the same configuration stands there, it is continued."""
    config: Mapping[str, Any] | None = None
    """JSON values that describe the run; kept in `run_dir` and compared when a run is continued."""
    on_log: Sequence[Callable[[Row], None]] = ()
    """Called with every row of the log."""
    progress: bool | str = True
    """Whether to show a progress bar; a string is its title."""


@dataclasses.dataclass
class Prepared:
    program: Program
    streams: dict[str, Stream]
    valid: Batch | None
    options: Options
    rhythm: Rhythm
    resolved: Resolved
    choices: Choices
    description: dict[str, Any]


def prepare(
    model: Model, params: Params, objective: Term, plan: Plan, train: Any, valid: Any,
    optimizer: optax.GradientTransformation, options: Options, *, stacked: bool,
) -> Prepared:  # fmt: skip
    if train is None:
        raise FitError("fit needs training data: train=(x, y)")
    one = jax.tree.map(lambda a: a[0], params) if stacked else params
    streams = streams_of(train, objective)
    sizes = _batch_sizes(options, streams)
    rhythm = _rhythm(options)
    _, y = next(iter(streams.values()))[:2]
    metric, monitor = _metric(model, one, streams, y, options)
    choices = Choices(
        tuple(sorted(sizes.items())), stacked, metric if valid is not None else None, monitor,
        -1 if monitor in LESS_IS_BETTER else 1, options.patience, options.augment,
    )  # fmt: skip
    resolved = plan.resolve(one)
    program = _program(
        model.apply,
        objective,
        _Frozen(resolved),
        optimizer,
        options.clip_norm,
        options.accumulate,
        options.ema,
        choices,
    )
    description = {
        "plan": str(plan), "objective": str(objective), "steps": options.steps, "batch_size": dict(sizes),
        "eval_every": rhythm.eval_every, "log_every": rhythm.log_every, "monitor": monitor,
        "patience": options.patience, "jax": jax.__version__, **(options.config or {}),
    }  # fmt: skip
    return Prepared(program, streams, padded(valid), options, rhythm, resolved, choices, description)


def _batch_sizes(options: Options, streams: Mapping[str, Stream]) -> dict[str, int]:
    given = options.batch_size
    sizes = {name: given[name] if isinstance(given, Mapping) else given for name in streams}
    for name, size in sizes.items():
        if size < 1 or size % options.accumulate:
            raise FitError(
                f"batch_size {size} of {name!r} must be positive and a multiple of accumulate={options.accumulate}"
            )
    return sizes


def _rhythm(options: Options) -> Rhythm:
    if options.steps < 1:
        raise FitError(f"steps must be at least 1; found {options.steps}")
    every = options.eval_every or max(1, options.steps // 20)
    rhythm = Rhythm(options.steps, options.log_every or every, every, options.save_every or every)
    if min(dataclasses.astuple(rhythm)) < 1:
        raise FitError(f"eval_every, log_every and save_every must be at least 1; found {rhythm}")
    return rhythm


def _metric(
    model: Model, params: Params, streams: Mapping[str, Stream], y: Any, options: Options
) -> tuple[Metric, str]:
    x = next(iter(streams.values())).x
    sample = jax.tree.map(lambda a: jax.ShapeDtypeStruct((2, *a.shape[1:]), a.dtype), x)
    width = jax.eval_shape(model.apply, params, sample).logits.shape[-1]
    if jnp.issubdtype(y.dtype, jnp.integer):
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= width:
            raise FitError(
                f"the labels go from {low} to {high}, but {model.name} has {width} outputs: they must be 0..{width - 1}"
            )
        metric, monitor = _default_metric("classification", width), "accuracy"
    else:
        metric, monitor = _default_metric("regression", width), "rmse"
    return options.metric or metric, options.monitor or monitor


@functools.cache
def _default_metric(kind: str, width: int) -> Metric:
    return classification(width) if kind == "classification" else regression(width)


class _Frozen:
    """A resolved plan as a dictionary key: equal where the settings are equal."""

    def __init__(self, resolved: Resolved):
        self.resolved, self._items = resolved, tuple(resolved.settings.items())

    def __hash__(self) -> int:
        return hash(self._items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Frozen) and self._items == other._items


@functools.lru_cache(maxsize=32)
def _program(
    apply: Callable[..., Any], objective: Term, plan: _Frozen, optimizer: Any, clip_norm: Any, accumulate:
    int, ema: Any, choices: Choices
) -> Program:  # fmt: skip
    """Compiled once per configuration: equal arguments give the same program."""
    model = Model(init=None, apply=apply)  # type: ignore[arg-type]
    step = make_step(model, objective, plan.resolved, optimizer, clip_norm=clip_norm, accumulate=accumulate, ema=ema)
    return make_program(model, step, choices)
