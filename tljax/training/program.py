"""Many steps, or an evaluation, as one compiled program; for one run, or for a stack of runs.

Data stay on the device, a `fori_loop` makes as many steps as it is told, the run's buffers are donated. A stack of runs
(seeds, rates, subsets of the data) goes through the same program; see `stack`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tljax.data import batch_indices, fold_seed
from tljax.evaluation import Metric
from tljax.objectives.stream import in_order
from tljax.training.compile import Ahead, Compiling
from tljax.training.dispatch import Launch, Steps
from tljax.training.placement import Placement
from tljax.training.scaling import Scaling, all_finite, exhausted
from tljax.training.stack import each_run, over_runs
from tljax.training.state import Run, judge, start_run
from tljax.training.step import Step
from tljax.types import Array, Batch, Model, Params


class Stream(NamedTuple):
    """Training examples on the device, and which of them a run draws from."""

    x: Any
    """`[N, ...]`, or a pytree of such arrays."""
    y: Any
    """`[N, ...]`."""
    subset: Array
    """Indices, int32 `[n]`; a stack of runs has `[R, n]`."""
    size: Array
    """How many of them count, int32 `[]` or `[R]`; the rest is padding."""


class Fed(NamedTuple):
    """The examples of one step, which a feed brings: the order of the data was its doing."""

    x: Any
    """`[B, ...]`, or a pytree of such arrays."""
    y: Any
    """`[B, ...]`."""


class Note(NamedTuple):
    """What the host reads of a run after a launch of steps: copies, for the run's buffers are donated to the next."""

    failed: Array
    stopped: Array
    sums: dict[str, Array]
    summed: Array
    scale: Array | None
    """Of the loss, in float16."""


class Program(NamedTuple):
    """The parts of a training run, to be compiled. Functions take and return a `Run`, or a stack of runs where
    `stacked`."""

    start: Ahead
    """`start(params, seeds, rates, streams)`."""
    advance: Steps
    """`advance.begin(run, streams)` gives `launch(run, streams, n)`: `n` more steps; a run that was stopped stays as it
    is."""
    validate: Ahead
    """`validate(run, valid) -> (run, scores)`: evaluates, and keeps the better parameters."""
    tally: Callable[..., Any]
    """`tally(run, sums, batch) -> sums`: one batch of an evaluation whose data are streamed; `sums` None to begin."""
    conclude: Callable[..., Any]
    """`conclude(run, sums) -> (run, scores)`: what `validate` returns, out of the sums."""
    note: Ahead
    """`note(run) -> Note`."""
    clear: Ahead
    """Empties the metric sums, after they were logged."""
    losses: tuple[str, ...]
    """Which metrics must be finite: `Step.losses`."""

    def begin(self, run: Run, streams: Mapping[str, Any], valid: Batch | None) -> "Ready":
        """Begin to compile what a run like `run` needs, of which only shapes are read; `valid`: data in memory."""
        return Ready(
            self.advance.begin(run, streams),
            self.validate if valid is None else self.validate.begin(run, valid),
            self.tally,
            self.conclude,
            self.note.begin(run),
            self.clear.begin(run),
        )


class Ready(NamedTuple):
    """The parts of a program as they are called, compiled for one run's shapes; those of streamed validation data are
    compiled at their first call."""

    advance: Launch
    validate: Callable[..., Any]
    tally: Callable[..., Any]
    conclude: Callable[..., Any]
    note: Callable[..., Any]
    clear: Callable[..., Any]

    def wait(self) -> None:
        """Until all is compiled."""
        for part in (*self.advance, self.validate, self.note, self.clear):
            if isinstance(part, Compiling):
                part.wait()


class Choices(NamedTuple):
    """What `make_program` needs to know beside the step."""

    batch_sizes: tuple[tuple[str, int], ...]
    stacked: bool = False
    metric: Metric | None = None
    validated: bool = False
    """Whether a validator chooses, in the place of the metric: see `choosing`."""
    monitor: str = "accuracy"
    sign: int = 1
    patience: int | None = None
    augment: Callable[..., Batch] | tuple[tuple[str, Callable[..., Batch]], ...] | None = None
    """For all streams, or pairs of a stream's or a view's name and its own."""
    views: tuple[tuple[str, str], ...] = ()
    """Pairs of a view and the stream whose examples it shows."""
    fed: tuple[tuple[str, int], ...] = ()
    """The streams whose batches a feed brings, and how many examples they have."""
    shared: frozenset[str] = frozenset()
    """Frozen leaves that all runs of a stack have in common, without an axis for the runs."""
    compiler: tuple[tuple[str, Any], ...] = ()
    """What XLA is told when it compiles the steps."""
    placement: Placement | None = None
    """Where the run lies on a mesh; None for one device, or wherever its arrays are."""


def make_program(model: Model, step: Step, choices: Choices) -> Program:
    """The program of `step` under `choices`; each of its functions is compiled once per shape of its
    arguments."""
    start, single, advance = _stepping(step, choices)
    finish = partial(_finished, choices)
    validate, tally, conclude = _judging(model, choices)
    note, clear = Ahead(_noted), Ahead(partial(_cleared, choices), donate=0)
    if not choices.stacked:
        return Program(
            Ahead(start),
            Steps(advance, single, finish, options=dict(choices.compiler)),
            Ahead(validate, donate=0),
            Ahead(tally, donate=1),
            Ahead(conclude, donate=0),
            note,
            clear,
            step.losses,
        )
    shared = choices.shared
    return Program(
        Ahead(lambda p, seeds, rates, streams: over_runs(start, p, seeds, rates, streams=streams, shared=shared)),
        Steps(
            lambda run, streams, n: over_runs(
                lambda one, mine: advance(one, mine, n), run, streams=streams, shared=shared, stopping=True
            ),
            single,
            finish,
            shared,
            dict(choices.compiler),
        ),
        Ahead(lambda run, valid: each_run(lambda r: validate(r, valid), run, shared=shared), donate=0),
        _unstreamed,
        _unstreamed,
        note,
        clear,
        step.losses,
    )


def _stepping(step: Step, choices: Choices) -> tuple[Callable[..., Run], Callable[..., Run], Callable[..., Run]]:
    """Beginning a run, one step of it, and several."""

    def start(params: Params, seed: Array, rate: Array, streams: Mapping[str, Stream]) -> Run:
        batches = jax.eval_shape(lambda: _draw(streams, choices, jnp.uint32(0), jnp.int32(0)))
        state = step.init(params, batches, seed=seed, rate=rate)
        _, metrics = jax.eval_shape(step.update, state, batches)
        evaluated = choices.validated or choices.metric is not None
        return _held(start_run(state, metrics, sign=choices.sign, evaluated=evaluated), choices)

    def single(run: Run, streams: Mapping[str, Stream]) -> Run:
        state, metrics = step.update(run.state, _draw(streams, choices, run.state.seed, run.state.step))
        made, metrics = _made(state.scaling, metrics)
        sums = jax.tree.map(jnp.add, run.sums, metrics)
        first = run.failed < 0
        broken = {name: jnp.where(first, ~jnp.isfinite(m), run.broken[name]) for name, m in metrics.items()}
        run = run._replace(state=state, sums=sums, summed=run.summed + made, broken=broken)
        lost = [broken[name] for name in step.losses]
        return _held(_note_failure(run, jnp.any(jnp.stack([*lost, exhausted(state.scaling)]))), choices)

    def advance(run: Run, streams: Mapping[str, Stream], n: Array) -> Run:
        return _finished(choices, jax.lax.fori_loop(0, n, lambda _, run: single(run, streams), run))

    return start, single, advance


def _judging(model: Model, choices: Choices) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Evaluating a run on data in memory, or batch by batch, and the end of the latter."""

    def judged(run: Run, scores: dict[str, Array]) -> tuple[Run, dict[str, Array]]:
        return _held(judge(run, scores[choices.monitor], choices.sign, choices.patience), choices), scores

    def validate(run: Run, valid: Batch) -> tuple[Run, dict[str, Array]]:
        return judged(run, score(model, choices.metric, run.state.evaluated, valid))

    def tally(run: Run, sums: Any, batch: Batch) -> Any:
        metric = _required(choices.metric)
        sums = metric.init() if sums is None else sums
        return metric.update(sums, model.apply(run.state.evaluated, batch.x).logits, batch.y, batch.weight)

    def conclude(run: Run, sums: Any) -> tuple[Run, dict[str, Array]]:
        return judged(run, _scalars(_required(choices.metric), sums))

    return validate, tally, conclude


def _held(run: Run, choices: Choices) -> Run:
    return run if choices.placement is None else choices.placement.hold(run)


def _finished(choices: Choices, run: Run) -> Run:
    return _held(_note_failure(run, ~all_finite((run.state.trainable, run.state.stats))), choices)


def _noted(run: Run) -> Note:
    scale = None if run.state.scaling is None else run.state.scaling.scale
    return jax.tree.map(jnp.copy, Note(run.failed, run.best.stopped, run.sums, run.summed, scale))


def _cleared(choices: Choices, run: Run) -> Run:
    run = run._replace(sums=jax.tree.map(jnp.zeros_like, run.sums), summed=jnp.zeros_like(run.summed))
    return _held(run, choices)


def score(model: Model, metric: Metric | None, params: Params, valid: Batch) -> dict[str, Array]:
    """The metric's scalars over `valid`, whose leaves are `[batches, B, ...]` with weight 0 on padding."""
    metric = _required(metric)

    def one(sums: Any, batch: Batch) -> tuple[Any, None]:
        return metric.update(sums, model.apply(params, batch.x).logits, batch.y, batch.weight), None

    return _scalars(metric, jax.lax.scan(one, metric.init(), valid)[0])


def _required(metric: Metric | None) -> Metric:
    assert metric is not None
    return metric


def _scalars(metric: Metric, sums: Any) -> dict[str, Array]:
    return {name: value for name, value in metric.compute(sums).items() if jnp.ndim(value) == 0}


def _unstreamed(*arguments: Any) -> Any:
    raise AssertionError("a stack of runs is not streamed to: fit_many refuses it")


def _draw(streams: Mapping[str, Stream | Fed], choices: Choices, seed: Array, step: Array) -> dict[str, Batch]:
    """The batch of every stream and view at `step`: the order of the data is a function of `(seed, step)`."""
    # Seeds that are unrelated to the run's, from which the step draws.
    own = {name: fold_seed(seed, i) for i, name in enumerate([*in_order(streams), *dict(choices.views)])}
    drawn = {}
    for name, stream in sorted(streams.items()):
        x, y, batch_size = stream.x, stream.y, dict(choices.batch_sizes)[name]
        if isinstance(stream, Stream):
            rows = stream.subset[batch_indices(own[name], step, batch_size, stream.size)]
            x, y = jax.tree.map(lambda a, rows=rows: a[rows], (x, y))
        else:  # the feed has the same order
            rows = batch_indices(own[name], step, batch_size, dict(choices.fed)[name])
        batch = Batch(x, y, index=rows)
        drawn[name] = batch if choices.placement is None else choices.placement.spread(batch)
    drawn |= {view: drawn[name] for view, name in choices.views}
    return {
        name: augment(jax.random.fold_in(jax.random.key(own[name]), step), batch) if augment else batch
        for name, batch in drawn.items()
        for augment in [_augment(choices, name)]
    }


def _augment(choices: Choices, name: str) -> Callable[..., Batch] | None:
    return dict(choices.augment).get(name) if isinstance(choices.augment, tuple) else choices.augment


def _made(scaling: Scaling | None, metrics: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
    """How many steps the last one counts for, and its metrics: nothing where it was skipped."""
    if scaling is None:
        return jnp.int32(1), metrics
    zeroed = {name: jnp.where(scaling.skipped, jnp.zeros_like(m), m) for name, m in metrics.items()}
    return jnp.where(scaling.skipped, jnp.int32(0), jnp.int32(1)), zeroed


def _note_failure(run: Run, failed: Array) -> Run:
    return run._replace(failed=jnp.where((run.failed < 0) & failed, run.state.step, run.failed))
