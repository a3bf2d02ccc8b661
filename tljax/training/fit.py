"""`fit`: one training run, or a stack of them, from data to the best parameters."""

import dataclasses
import functools
import hashlib
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tljax.checkpoints.run import RunCheckpoints, checksum, make_folder
from tljax.evaluation import Metric, classification, regression
from tljax.objectives import Term
from tljax.plans import Plan, Resolved, plan
from tljax.training.log import Log, Row, progress_bar
from tljax.training.loop import Loop, Rhythm
from tljax.training.program import Choices, Program, Stream, make_program
from tljax.training.state import Run
from tljax.training.step import make_step
from tljax.types import Batch, Model, Params, TljaxError

LESS_IS_BETTER = ("loss", "nll", "brier", "ece", "mae", "rmse")


class FitError(TljaxError):
    """Arguments of `fit` that do not go together."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a training run gives. For a stack of runs every leaf and value has the runs on its first axis."""

    params: Params
    """The whole parameter tree: that of the best evaluation where there were any, else the last."""
    last: Params
    """The tree after the last step."""
    best_value: Any
    """The monitored metric at the best evaluation; None without validation data."""
    best_step: Any
    """The step of that evaluation."""
    steps: int
    """Steps made (fewer than asked for where early stopping ended the run)."""
    monitor: str | None
    """What chose `params`."""
    history: tuple[Row, ...]
    """The rows of the log."""
    training_seconds: float
    """Wall time in training steps, compilation included."""
    plan: Resolved
    """Who learnt, and at what rate."""


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


def fit(
    model: Model,
    params: Params,
    objective: Term,
    plan: Plan = plan(),  # noqa: B008  (an immutable value)
    train: Any = None,
    valid: Any = None,
    *,
    optimizer: optax.GradientTransformation,
    seed: int = 0,
    **options: Any,
) -> Result:
    """Train `model` from `params` and return the best parameters found.

    Args:
      model, params: what is trained, from where.
      objective: what is minimised: a term or a sum of terms.
      plan: who learns, at what rate.
      train: labelled arrays (`(x, y)`, a `Batch`, or anything with `.x` and `.y`), or a dict of them by stream name.
      valid: labelled arrays that choose the best step and stop the run early; never the test data.
      optimizer: any optax transformation.
      seed: of the order of the data, dropout and augmentation.
      options: see `Options`; `steps` must be given.

    Raises:
      FitError: arguments that do not fit together. PlanError, NonFiniteError, RunError: as their names say.
      Terminated: after SIGTERM, once the run is saved.

    >>> import jax, numpy as np, optax
    >>> from tljax.models import mlp
    >>> from tljax.objectives import cross_entropy
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> y = (x[:, 0] > 0).astype("int32")
    >>> model = mlp((8,), num_classes=2)
    >>> start = model.init(jax.random.key(0), x)
    >>> result = fit(model, start, cross_entropy(), train=(x, y), valid=(x, y), optimizer=optax.adam(0.05),
    ...              steps=60, progress=False)
    >>> bool(result.best_value > 0.9)
    True
    """
    prepared = _prepare(model, params, objective, plan, train, valid, optimizer, Options(**options), stacked=False)
    return _run(prepared, params, jnp.uint32(seed), jnp.float32(1.0))


def fit_many(
    model: Model,
    params: Params,
    objective: Term,
    plan: Plan = plan(),  # noqa: B008
    train: Any = None,
    valid: Any = None,
    *,
    optimizer: optax.GradientTransformation,
    seeds: Sequence[int],
    rates: Sequence[float] | None = None,
    subsets: Sequence[np.ndarray] | None = None,
    **options: Any,
) -> Result:
    """Many small runs through one compiled program: like `fit`, with the runs stacked on a first axis.

    Args:
      params: every leaf has the R runs on its first axis.
      seeds: the seed of each run.
      rates: a factor on the updates of each run, so that learning rates are compared in one program.
      subsets: for each run the indices of the training examples it may use (of differing lengths); default: all.
    """
    count = len(seeds)
    wrong = [leaf.shape for leaf in jax.tree.leaves(params) if not leaf.shape or leaf.shape[0] != count]
    if wrong:
        raise FitError(f"fit_many got {count} seeds, so every leaf of params needs {count} runs on axis 0; found {wrong[0]}")
    rates = [1.0] * count if rates is None else list(rates)
    for name, given in (("rates", rates), ("subsets", subsets)):
        if given is not None and len(given) != count:
            raise FitError(f"fit_many got {count} seeds but {len(given)} {name}")
    prepared = _prepare(model, params, objective, plan, train, valid, optimizer, Options(**options), stacked=True)
    prepared.streams = {name: _own_subsets(s, subsets, count) for name, s in prepared.streams.items()}
    return _run(prepared, params, jnp.asarray(seeds, jnp.uint32), jnp.asarray(rates, jnp.float32))


@dataclasses.dataclass
class _Prepared:
    program: Program
    streams: dict[str, Stream]
    valid: Batch | None
    options: Options
    rhythm: Rhythm
    resolved: Resolved
    choices: Choices
    description: dict[str, Any]


def _prepare(
    model: Model, params: Params, objective: Term, plan: Plan, train: Any, valid: Any,
    optimizer: optax.GradientTransformation, options: Options, *, stacked: bool,
) -> _Prepared:  # fmt: skip
    if train is None:
        raise FitError("fit needs training data: train=(x, y)")
    one = jax.tree.map(lambda a: a[0], params) if stacked else params
    streams = _streams(train, objective)
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
        model.apply, objective, _Frozen(resolved), optimizer, options.clip_norm, options.accumulate, options.ema, choices
    )
    description = {
        "plan": str(plan), "objective": str(objective), "steps": options.steps, "batch_size": dict(sizes),
        "eval_every": rhythm.eval_every, "log_every": rhythm.log_every, "monitor": monitor, "patience": options.patience,
        "jax": jax.__version__, **(options.config or {}),
    }  # fmt: skip
    return _Prepared(program, streams, _padded(valid), options, rhythm, resolved, choices, description)


def _run(prepared: _Prepared, params: Params, seed: Any, rate: Any) -> Result:
    options, rhythm = prepared.options, prepared.rhythm
    folder = None if options.run_dir is None else pathlib.Path(options.run_dir)
    run = prepared.program.start(params, seed, rate, prepared.streams)
    checkpoints = None
    if folder is not None:
        make_folder(folder)
        config = prepared.description | _fingerprints(prepared, run)
        checkpoints = RunCheckpoints(folder / "checkpoints", config, keep=options.keep)
    log = Log(folder / "metrics.jsonl" if folder else None, tuple(options.on_log))
    try:
        run, seconds = _resumed(checkpoints, log, run)
        title = options.progress if isinstance(options.progress, str) else "training"
        with progress_bar(title, options.steps, show=bool(options.progress)) as tell:
            loop = Loop(
                prepared.program, prepared.streams, prepared.valid, rhythm, log, checkpoints, tell,
                _examples_per_step(prepared), prepared.choices.stacked, seconds,
            )  # fmt: skip
            run = loop.run(run)
    finally:
        if checkpoints is not None:
            checkpoints.close()
    return _result(run, loop, prepared, log)


def _resumed(checkpoints: RunCheckpoints | None, log: Log, run: Run) -> tuple[Run, float]:
    found = None if checkpoints is None else checkpoints.restore(run, lambda text: warnings.warn(text, stacklevel=4))
    if found is None:
        log.rewind(-1)
        return run, 0.0
    step, run, notes = found
    log.rewind(step)
    return run, notes["training_seconds"]


def _result(run: Run, loop: Loop, prepared: _Prepared, log: Log) -> Result:
    chosen = prepared.valid is not None
    return Result(
        params=run.best_params if chosen else run.state.evaluated,
        last=run.state.evaluated,
        best_value=np.asarray(run.best.value) if chosen else None,
        best_step=np.asarray(run.best.step if chosen else run.state.step),
        steps=int(np.max(run.state.step)),
        monitor=prepared.choices.monitor if chosen else None,
        history=tuple(log.rows),
        training_seconds=loop.training_seconds,
        plan=prepared.resolved,
    )


def _streams(train: Any, objective: Term) -> dict[str, Stream]:
    named = train if isinstance(train, Mapping) else {objective.streams[0]: train}
    missing = [name for name in objective.streams if name not in named]
    if missing:
        raise FitError(f"the objective {objective} reads the streams {objective.streams}; train has {tuple(named)}")
    return {name: _stream(name, named[name]) for name in objective.streams}


def _stream(name: str, data: Any) -> Stream:
    x, y = labelled(data, f"the training data ({name})")
    n = len(jax.tree.leaves(x)[0])
    return Stream(*jax.tree.map(jnp.asarray, (x, y)), jnp.arange(n, dtype=jnp.int32), jnp.int32(n))


def labelled(data: Any, what: str) -> tuple[Any, Any]:
    """`(x, y)` of any accepted form of labelled arrays; raises `FitError` on lengths that differ, no examples, or NaN."""
    if hasattr(data, "x") and hasattr(data, "y"):
        x, y = data.x, data.y
    elif isinstance(data, tuple | list) and len(data) == 2:
        x, y = data
    else:
        raise FitError(f"{what} should be (x, y) or have .x and .y; found {type(data).__name__}")
    lengths = {len(leaf) for leaf in jax.tree.leaves((x, y))}
    if len(lengths) != 1 or lengths == {0}:
        raise FitError(f"{what} needs as many labels as inputs and at least one; found lengths {sorted(lengths)}")
    for part, leaf in (("inputs", x), ("labels", y)):
        for array in jax.tree.leaves(leaf):
            bad = np.size(array) - np.count_nonzero(np.isfinite(array)) if np.asarray(array).dtype.kind == "f" else 0
            if bad:
                raise FitError(f"{what}: {bad} values of the {part} are NaN or infinite; clean or impute them first")
    return x, y


def _own_subsets(stream: Stream, subsets: Sequence[np.ndarray] | None, count: int) -> Stream:
    if subsets is None:
        subsets = [np.asarray(stream.subset)] * count
    sizes = [len(s) for s in subsets]
    if min(sizes) == 0:
        raise FitError(f"run {sizes.index(0)} has an empty subset of the training data")
    padded = np.zeros((count, max(sizes)), np.int32)
    for row, indices in zip(padded, subsets):
        row[: len(indices)] = indices
    return stream._replace(subset=jnp.asarray(padded), size=jnp.asarray(sizes, jnp.int32))


def _batch_sizes(options: Options, streams: Mapping[str, Stream]) -> dict[str, int]:
    given = options.batch_size
    sizes = {name: given[name] if isinstance(given, Mapping) else given for name in streams}
    for name, size in sizes.items():
        if size < 1 or size % options.accumulate:
            raise FitError(f"batch_size {size} of {name!r} must be positive and a multiple of accumulate={options.accumulate}")
    return sizes


def _rhythm(options: Options) -> Rhythm:
    if options.steps < 1:
        raise FitError(f"steps must be at least 1; found {options.steps}")
    every = options.eval_every or max(1, options.steps // 20)
    rhythm = Rhythm(options.steps, options.log_every or every, every, options.save_every or every)
    if min(dataclasses.astuple(rhythm)) < 1:
        raise FitError(f"eval_every, log_every and save_every must be at least 1; found {rhythm}")
    return rhythm


def _metric(model: Model, params: Params, streams: Mapping[str, Stream], y: Any, options: Options) -> tuple[Metric, str]:
    x = next(iter(streams.values())).x
    sample = jax.tree.map(lambda a: jax.ShapeDtypeStruct((2, *a.shape[1:]), a.dtype), x)
    width = jax.eval_shape(model.apply, params, sample).logits.shape[-1]
    if jnp.issubdtype(y.dtype, jnp.integer):
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= width:
            raise FitError(f"the labels go from {low} to {high}, but {model.name} has {width} outputs: they must be 0..{width - 1}")
        metric, monitor = _default_metric("classification", width), "accuracy"
    else:
        metric, monitor = _default_metric("regression", width), "rmse"
    return options.metric or metric, options.monitor or monitor


@functools.cache
def _default_metric(kind: str, width: int) -> Metric:
    return classification(width) if kind == "classification" else regression(width)


def _padded(valid: Any, most: int = 512) -> Batch | None:
    """Validation data as `[batches, B, ...]` with weight 0 on the padding."""
    if valid is None:
        return None
    x, y = labelled(valid, "the validation data")
    n = len(jax.tree.leaves(x)[0])
    size = min(n, most)
    batches = -(-n // size)

    def cut(a: Any) -> jax.Array:
        a = np.asarray(a)
        padding = np.zeros((batches * size - n, *a.shape[1:]), a.dtype)
        return jnp.asarray(np.concatenate([a, padding]).reshape(batches, size, *a.shape[1:]))

    return Batch(*jax.tree.map(cut, (x, y)), cut(np.ones(n, np.float32)))


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
    apply: Callable[..., Any], objective: Term, plan: _Frozen, optimizer: Any, clip_norm: Any, accumulate: int, ema: Any, choices: Choices
) -> Program:  # fmt: skip
    """Compiled once per configuration: equal arguments give the same program."""
    model = Model(init=None, apply=apply)  # type: ignore[arg-type]
    step = make_step(model, objective, plan.resolved, optimizer, clip_norm=clip_norm, accumulate=accumulate, ema=ema)
    return make_program(model, step, choices)


def _fingerprints(prepared: _Prepared, run: Run) -> dict[str, str]:
    """What tells two runs apart beyond their stated settings: the compiled program's text, the start, and the data."""
    lowered = prepared.program.advance.lower(run, prepared.streams, jnp.int32(1))
    text = lowered.as_text()
    data = checksum((prepared.streams, prepared.valid))
    return {
        "training program (optimiser, schedule, loss, model)": hashlib.sha256(text.encode()).hexdigest()[:16],
        "starting parameters and seeds": _digest(checksum(run.state)),
        "training and validation data": _digest(data),
    }


def _digest(sums: Any) -> str:
    return hashlib.sha256(np.asarray(sums).tobytes()).hexdigest()[:16]


def _examples_per_step(prepared: _Prepared) -> int:
    runs = 1 if not prepared.choices.stacked else next(iter(prepared.streams.values())).subset.shape[0]
    return runs * sum(size for _, size in prepared.choices.batch_sizes)
