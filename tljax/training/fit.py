"""`fit`: one training run, or a stack of them, from data to the best parameters."""

import dataclasses
import hashlib
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tljax.checkpoints.run import RunCheckpoints, checksum, make_folder
from tljax.objectives import Term
from tljax.plans import Plan, Resolved, plan
from tljax.training.inputs import FitError, own_subsets
from tljax.training.log import Log, Row, progress_bar
from tljax.training.loop import Loop
from tljax.training.prepare import Options, Prepared, prepare
from tljax.training.state import Run
from tljax.types import Model, Params


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
      train: labelled arrays (`(x, y)`, a `Batch`, or anything with `.x` and `.y`), or a dict of them by
      stream name. valid: labelled arrays that choose the best step and stop the run early; never the test
      data. optimizer: any optax transformation.
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
    prepared = prepare(model, params, objective, plan, train, valid, optimizer, Options(**options), stacked=False)
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
      subsets: for each run the indices of the training examples it may use (of differing lengths);
      default: all.
    """
    count = len(seeds)
    wrong = [leaf.shape for leaf in jax.tree.leaves(params) if not leaf.shape or leaf.shape[0] != count]
    if wrong:
        raise FitError(
            f"fit_many got {count} seeds, so every leaf of params needs {count} runs on axis 0; found {wrong[0]}"
        )
    rates = [1.0] * count if rates is None else list(rates)
    for name, given in (("rates", rates), ("subsets", subsets)):
        if given is not None and len(given) != count:
            raise FitError(f"fit_many got {count} seeds but {len(given)} {name}")
    prepared = prepare(model, params, objective, plan, train, valid, optimizer, Options(**options), stacked=True)
    prepared.streams = {name: own_subsets(s, subsets, count) for name, s in prepared.streams.items()}
    return _run(prepared, params, jnp.asarray(seeds, jnp.uint32), jnp.asarray(rates, jnp.float32))


def _run(prepared: Prepared, params: Params, seed: Any, rate: Any) -> Result:
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


def _result(run: Run, loop: Loop, prepared: Prepared, log: Log) -> Result:
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


def _fingerprints(prepared: Prepared, run: Run) -> dict[str, str]:
    """What tells two runs apart beyond their stated settings: the compiled program's text, the start, and
    the data."""
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


def _examples_per_step(prepared: Prepared) -> int:
    runs = 1 if not prepared.choices.stacked else next(iter(prepared.streams.values())).subset.shape[0]
    return runs * sum(size for _, size in prepared.choices.batch_sizes)
