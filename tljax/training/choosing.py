"""Choosing the best step by a validator: a program gives what the model answers, the host what it is worth.

Validators sort, factorise and iterate, on the answers for all examples at once: so they are no part of a compiled
program, and only the logits and the features of the validation data are held for them, on the host.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax.data import ExampleStream
from tljax.evaluation import Answers, EvaluationError, Validator
from tljax.evaluation.evaluate import outputs_of
from tljax.processes import fetched, from_first
from tljax.training.inputs import FitError, cut, labelled
from tljax.training.placement import Placement, placed_apply
from tljax.training.stack import Names, each_of, each_run
from tljax.training.state import Run, judge
from tljax.types import Array, Batch, Model, Output, Params


class ChoosingProgram(NamedTuple):
    """The compiled parts, for one run or for a stack of them."""

    answer: jax.stages.Wrapped
    """`answer(run, x, i) -> (logits, features)` of batch `i` of `x`, whose leaves are `[batches, B, ...]`."""
    judge: jax.stages.Wrapped
    """`judge(run, value) -> run`: keeps the better parameters."""


@dataclasses.dataclass(frozen=True)
class Chooser:
    """A validator, and the validation data that it reads."""

    validator: Validator
    program: ChoosingProgram
    data: dict[str, Batch]
    """By stream `[batches, B, ...]`, with weight 0 on the padding."""
    stacked: bool
    with_features: bool
    """Whether any of them reads features; else they do not come to the host."""

    def evaluate(self, run: Run) -> tuple[Run, dict[str, Any]]:
        """The numbers of all validators, arrays `[R]` for a stack, and `run` with the better parameters.

        Runs that have stopped are not evaluated: their numbers are NaN.
        """
        answers = {name: self._answers(run, batch) for name, batch in self.data.items()}
        if not self.stacked:
            # By the first of several processes: another's rounding could choose another step.
            found = from_first(lambda: {name: float(number) for name, number in self.validator(answers).items()})
            return self._judged(run, jnp.float32(self.validator.value(found))), found
        going = np.flatnonzero(~np.array(run.best.stopped)).tolist()
        each = {i: self.validator({name: _of_run(given, i) for name, given in answers.items()}) for i in going}
        values = np.full(len(run.best.stopped), np.nan, np.float32)
        scores: dict[str, Any] = {}
        for i, found in each.items():
            values[i] = self.validator.value(found)
            for name, number in found.items():
                scores.setdefault(name, np.full(len(values), np.nan))[i] = number
        return self._judged(run, jnp.asarray(values)), scores

    def placed(self, model: Model, placement: Placement, patience: int | None) -> "Chooser":
        """The same for a run on a mesh."""
        program = _program(placed_apply(model.apply, placement), None, patience, placement)
        return dataclasses.replace(self, program=program, data=placement.everywhere(placement.filled(self.data)))

    def text(self, run: Run) -> str:
        """What the evaluation is, for telling runs apart. `run`: of shapes."""
        shapes = [jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), self.data[n].x) for n in self.data]
        number = jax.ShapeDtypeStruct((), jnp.int32)
        return "".join([str(self.validator), *(self.program.answer.lower(run, x, number).as_text() for x in shapes)])

    def _judged(self, run: Run, value: Array) -> Run:
        """`run` with the better parameters; at the start as it is where that may not be chosen."""
        may_be = self.validator.start or int(np.max(run.state.step)) > 0
        return self.program.judge(run, value) if may_be else run

    def _answers(self, run: Run, batch: Batch) -> Answers:
        """On the host; of a stack, logits and features have the runs on their first axis."""
        parts = []
        for i in range(len(batch.weight)):  # the device never holds more than one batch of them
            found = self.program.answer(run, batch.x, jnp.int32(i))
            parts.append(fetched(list(found if self.with_features else found[:1])))
        real = np.asarray(batch.weight).reshape(-1) > 0
        axis = 1 if self.stacked else 0
        logits, *features = (np.compress(real, np.concatenate(leaves, axis), axis) for leaves in zip(*parts))
        labels = None if batch.y is None else np.asarray(batch.y).reshape(-1)[real]
        return Answers(logits, features[0] if features else None, labels)


def chooser(
    model: Model, params: Params, valid: Any, validator: Validator, *, shared: Names | None, patience: int | None
) -> Chooser:
    """The choice by `validator` on `valid`, which is checked; raises `FitError`.

    `params`: of one run. `shared`: for a stack of runs, the names of the leaves that have no axis for the runs.

    >>> from tljax.evaluation import validator
    >>> from tljax.models import mlp
    >>> model, x = mlp((4,), num_classes=2), np.zeros((5, 3), np.float32)
    >>> params = model.init(jax.random.key(0), x)
    >>> found = chooser(model, params, {"target": (x, None)}, validator("im"), shared=None, patience=None)
    >>> found.data["target"].x.shape
    (1, 5, 3)
    """
    if not isinstance(valid, Mapping):
        raise FitError(
            f'{validator} reads validation data by stream, as valid={{"source": (x, y), "target": (x, None)}}; '
            f"found {type(valid).__name__}"
        )
    given = {name: _checked(model, params, name, data) for name, data in valid.items()}
    try:
        known = {name: y is not None for name, (_, y) in given.items()}
        read, computed = validator.read(known), validator.computed(known)
    except EvaluationError as error:
        raise FitError(str(error)) from error
    for name, (x, _) in given.items():
        size = len(jax.tree.leaves(x)[0])
        if size < 2:
            raise FitError(f"the validation data ({name}) need two examples or more; found {size}")
    data = {name: cut(x, y) for name, (x, y) in given.items() if name in read}
    return Chooser(validator, _program(model.apply, shared, patience), data, shared is not None, "dev" in computed)


def _checked(model: Model, params: Params, name: str, data: Any) -> tuple[Any, Any]:
    what = f"the validation data ({name})"
    if isinstance(data, ExampleStream):
        raise FitError(f"{what} are a stream, and a validator needs arrays: all of its answers are compared at once")
    x, y = labelled(data, what)
    width = outputs_of(model, params, x, f" of {what}", FitError)
    if width < 2:
        raise FitError(f"{model.name} has {width} output, and validators read those of two classes or more")
    if y is None:
        return x, y
    if not hasattr(y, "ndim") or y.ndim != 1 or not jnp.issubdtype(y.dtype, jnp.integer):
        raise FitError(f"the labels of {what} should be classes, integers [N], or None where they are not known")
    if int(y.min()) < 0 or int(y.max()) >= width:
        raise FitError(f"the labels of {what} go from {y.min()} to {y.max()}; {model.name} has {width} outputs")
    return x, y


def _of_run(answers: Answers, i: int) -> Answers:
    features = None if answers.features is None else answers.features[i]
    return answers._replace(logits=answers.logits[i], features=features)


@functools.lru_cache(maxsize=16)
def _program(
    apply: Callable[..., Output], shared: Names | None, patience: int | None, placement: Placement | None = None
) -> ChoosingProgram:
    """Compiled once for a model, whatever it learns and whichever validator chooses: of all, more is better."""

    def answers(params: Params, x: Any) -> tuple[Array, Array]:
        output = apply(params, x, train=False)
        return output.logits, output.features

    def answer(run: Run, x: Any, i: Array) -> tuple[Array, Array]:
        part = jax.tree.map(lambda a: a[i], x)
        params = run.state.evaluated
        return answers(params, part) if shared is None else each_of(lambda p: answers(p, part), params, shared)

    def judged(run: Run, value: Array) -> Run:
        run = judge(run, value, 1, patience)
        return run if placement is None else placement.hold(run)

    def judged_stack(run: Run, values: Array) -> Run:
        return each_run(judged, run, values, shared=shared or frozenset())

    judging = judged if shared is None else judged_stack
    return ChoosingProgram(jax.jit(answer), jax.jit(judging, donate_argnums=0))
