"""`fit`: one training run, or a stack of them, from data to the best parameters."""

import contextlib
import pathlib
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from tljax.checkpoints import save_weights
from tljax.checkpoints.run import RunCheckpoints, make_folder
from tljax.evaluation.progress import progress_bar
from tljax.objectives import Owned, Term
from tljax.plans import Plan, plan
from tljax.processes import fetched, from_first, is_first, several
from tljax.training.agreement import Peers
from tljax.training.compile import shapes_of
from tljax.training.dispatch import StepCost
from tljax.training.feeding import open_feeds
from tljax.training.fingerprints import description
from tljax.training.in_turn import run_in_turn
from tljax.training.log import Log
from tljax.training.loop import Loop
from tljax.training.microbatches import with_microbatches
from tljax.training.prepared import Prepared
from tljax.training.result import Result
from tljax.training.stack import one_of
from tljax.training.starting import many_runs, one_run
from tljax.training.state import Run
from tljax.tree import merge, nbytes, select
from tljax.types import Model, Params


def fit(
    model: Model,
    params: Params,
    objective: Term,
    plan: Plan = plan(),  # noqa: B008  (an immutable value)
    train: Any = None,
    valid: Any = None,
    *,
    optimizer: Any,
    seed: int = 0,
    **options: Any,
) -> Result:
    """Train `model` from `params` and return the best parameters found.

    Args:
      model, params: what is trained, from where. `params` stay as they are, and stay usable.
      objective: what is minimised: a term or a sum of terms.
      plan: who learns, at what rate.
      train: labelled arrays: `(x, y)`, a `Batch`, or anything with `.x` and `.y`; or what is read from disk while
        the run goes, as `tl.data.stream` makes it; or a dict of them by stream name.
      valid: such data that choose the best step and stop the run early; never the test data. For choosing without
        labels of the target, a dict by stream and ``metric=tl.validator("im")``: see `tljax.validator`.
      optimizer: any optax transformation; for plans with weight decay a function of it, as
        ``functools.partial(optax.adamw, 3e-4)``.
      seed: of the order of the data, dropout and augmentation.
      options: see `tljax.training.Options`; `steps` must be given.

    A program is compiled once for the same model, objective and optimizer objects, the same plan, options and shapes.

    Raises:
      FitError: arguments that do not fit together.
      PlanError: a plan that trains nothing. NoMatchError: a rule of it that matches nothing.
      NonFiniteError: the loss or a parameter became NaN or infinite.
      RunError: a run folder that cannot be written to, is another run's, is in use, or is damaged throughout.
      Terminated, KeyboardInterrupt: after SIGTERM or SIGINT, once the run is saved, if there is a run folder.

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
    began = time.perf_counter()
    given = one_run(model, params, objective, plan, train, valid, optimizer=optimizer, seed=seed, **options)
    return _run(*given, began)


def fit_many(
    model: Model,
    params: Params,
    objective: Term,
    plan: Plan = plan(),  # noqa: B008
    train: Any = None,
    valid: Any = None,
    *,
    optimizer: Any,
    seeds: Sequence[int],
    rates: Sequence[float] | None = None,
    subsets: Sequence[np.ndarray] | None = None,
    shared: Any = (),
    **options: Any,
) -> Result:
    """Many small runs through one compiled program: like `fit`, with the runs stacked on a first axis.

    Args:
      params: every leaf has the R runs on its first axis, but for those that `shared` selects.
      seeds: the seed of each run.
      rates: a factor on the updates of each run, so that learning rates are compared in one program.
      subsets: for each run the indices of the training examples it may use, of differing lengths; default: all. Where
        the objective reads several streams, a dict of such sequences by stream.
      shared: selects frozen leaves that all runs have in common and that come without an axis for the runs: as with
        K heads or adapters on one backbone, ``shared="backbone/**"``. They are held once, however many runs there are:
        in memory, in checkpoints, and in the result, of which ``result.of(i)`` gives the whole tree of one run.

    On a mesh, and so with several processes, the runs are made one after the other, each on all devices, and in folders
    of their own in `run_dir`; the result is on the host.

    A run whose loss becomes NaN does not end the others: none of its evaluations is ever the best.

    Raises as `fit` does, but for `NonFiniteError`.

    >>> import optax
    >>> from tljax.models import mlp
    >>> from tljax.objectives import cross_entropy
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> y = (x[:, 0] > 0).astype("int32")
    >>> model = mlp((8,), num_classes=2)
    >>> starts = jax.vmap(lambda key: model.init(key, x))(jax.random.split(jax.random.key(0), 2))
    >>> result = fit_many(model, starts, cross_entropy(), train=(x, y), valid=(x, y), optimizer=optax.sgd(0.1),
    ...                   seeds=[0, 1], rates=[1.0, 0.5], subsets=[range(8), range(32)], steps=20, progress=False)
    >>> result.best_value.shape
    (2,)
    """
    began = time.perf_counter()
    given = many_runs(
        model, params, objective, plan, train, valid,
        optimizer=optimizer, seeds=seeds, rates=rates, subsets=subsets, shared=shared, **options,
    )  # fmt: skip
    if given.prepared.placement is None:
        return _run(*given, began)
    common = frozenset(select(shared).names(params))

    def run(mine: Prepared, i: int) -> Result:
        return _run(mine, one_of(params, i, common), given.seed[i], given.rate[i], began)

    return run_in_turn(given.prepared, len(seeds), subsets, run, common)


def _run(prepared: Prepared, params: Params, seed: Any, rate: Any, called: float) -> Result:
    options = prepared.options
    folder = None if options.run_dir is None else pathlib.Path(options.run_dir)
    if folder is not None:
        from_first(lambda: make_folder(folder))  # an error here should not wait for a compiler
    began = time.perf_counter()
    given = (params if prepared.placement is None else prepared.placement.put(params), seed, rate)
    prepared = with_microbatches(prepared, *given, folder)
    start = prepared.program.start.begin(*given, prepared.streams)
    start.wait()
    compiling = time.perf_counter() - began
    run = start(*given, prepared.streams)
    peers = Peers()
    with _checkpoints(folder, prepared, given, run) as checkpoints:
        log = Log(folder / "metrics.jsonl" if folder else None, options.on_log)
        run, seconds = _resumed(checkpoints, log, run)
        title = options.progress if isinstance(options.progress, str) else "training"
        if options.accumulate == "auto" and prepared.accumulate > 1:
            title += f", in {prepared.accumulate} microbatches"
        with (
            progress_bar(title, options.steps, show=bool(options.progress) and is_first()) as tell,
            _feeds(prepared, run, peers) as feeds,
        ):
            loop = Loop(
                prepared.program, prepared.objective, prepared.streams, prepared.valid, feeds, prepared.rhythm, log,
                checkpoints, tell, prepared.choices.monitor, _examples_per_step(prepared), prepared.choices.stacked,
                prepared.choices.stacked or prepared.tolerant, peers, options.patience is not None, called, compiling,
                seconds,
            )  # fmt: skip
            run = loop.run(run)
    result = _result(run, loop, prepared, params, log)
    if folder is not None and not prepared.choices.stacked:
        weights = fetched(result.params)
        from_first(lambda: save_weights(weights, folder / "best.safetensors"))
    return result


def _checkpoints(folder: pathlib.Path | None, prepared: Prepared, given: tuple[Any, ...], run: Run) -> Any:
    """The checkpoints in `folder`, or without one a context of None. Raises where processes have not the same run."""
    if folder is None and not several():
        return contextlib.nullcontext()
    config = description(prepared, given, run)
    if folder is None:
        return contextlib.nullcontext()
    return RunCheckpoints(folder / "checkpoints", config, keep=prepared.options.keep)


def _resumed(checkpoints: RunCheckpoints | None, log: Log, run: Run) -> tuple[Run, float]:
    found = None if checkpoints is None else checkpoints.restore(run, lambda text: warnings.warn(text, stacklevel=6))
    if found is None:
        log.rewind(-1)
        return run, 0.0
    step, run, notes = found
    log.rewind(step, notes["rows"])
    return run, notes["training_seconds"]


def _feeds(prepared: Prepared, run: Run, peers: Peers) -> Any:
    first = int(np.max(run.state.step))
    left = range(first, first if np.all(run.best.stopped) else prepared.options.steps)
    return open_feeds(
        prepared.fed, prepared.exam, seed=run.state.seed, batch_sizes=dict(prepared.choices.batch_sizes), steps=left,
        exams=len(left) // prepared.rhythm.eval_every + 2 if left else 0, placement=prepared.placement, peers=peers,
    )  # fmt: skip


def _result(run: Run, loop: Loop, prepared: Prepared, params: Params, log: Log) -> Result:
    chosen = prepared.valid is not None
    frozen = jax.tree.map(_as_given, run.state.frozen, prepared.resolved.partition(params)[2])
    last = merge(*run.state.learnt, frozen)
    return Result(
        params=merge(run.best.model, run.best.stats, frozen) if chosen else last,
        last=last,
        best_value=np.array(run.best.value) if chosen else None,
        best_step=np.array(run.best.step if chosen else run.state.step),
        steps=int(np.max(run.state.step)),
        monitor=prepared.choices.monitor if chosen else None,
        history=tuple(log.rows),
        training_seconds=loop.training_seconds,
        compile_seconds=loop.compile_seconds,
        first_step_seconds=loop.first_step_seconds,
        step_seconds=float(np.median(loop.step_seconds)) if loop.step_seconds else None,
        optimizer_bytes=nbytes(run.state.opt),
        input_wait=loop.input_wait,
        plan=prepared.resolved,
        shared=prepared.choices.shared,
        step_cost=_step_cost(run, prepared),
        accumulate=prepared.accumulate,
        terms=prepared.objective.apart(Owned(run.state.trainable["terms"], run.state.terms)),
    )


def _as_given(held: jax.Array, given: Any) -> jax.Array:
    """A frozen leaf in its own type, a copy, where the run held it in a narrower one."""
    return held if held.dtype == given.dtype else jax.device_put(given, held.sharding, may_alias=False)


def _step_cost(run: Run, prepared: Prepared) -> Callable[[], StepCost]:
    """The cost of a step when it is asked for; the arrays of the run are not kept for it."""
    program, shapes = prepared.program, shapes_of((run, prepared.streams))
    return lambda: program.advance.cost(*shapes)


def _examples_per_step(prepared: Prepared) -> int:
    runs = 1 if not prepared.choices.stacked else next(iter(prepared.streams.values())).subset.shape[0]
    return runs * sum(size for _, size in prepared.choices.batch_sizes)
