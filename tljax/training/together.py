"""Compiling for several runs at once."""

import functools
import inspect
import pathlib
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from tljax.training.fit import fit, fit_many
from tljax.training.in_turn import turns
from tljax.training.inputs import FitError
from tljax.training.microbatches import with_microbatches
from tljax.training.result import Result
from tljax.training.stack import one_of
from tljax.training.starting import Start, many_runs, one_run
from tljax.tree import select
from tljax.types import Batch


def compile_all(fits: Iterable[functools.partial[Result]]) -> float:
    """Compile the programs of several runs side by side, before the first of them is started.

    Tracing is Python, and goes one after the other; XLA's compiler works in threads. When the runs are started, with
    the same objects, nothing is left to compile. The programs of 16 configurations are kept.

    Args:
      fits: each a `functools.partial` of `fit` or `fit_many` with all arguments.

    Returns:
      The wall time that it took, in seconds.

    Raises:
      FitError: what is no such partial; and as `fit` and `fit_many` do.

    >>> import numpy as np, optax
    >>> from tljax.models import mlp
    >>> from tljax.objectives import cross_entropy
    >>> from tljax.plans import linear_probe, plan
    >>> x, y = np.ones((8, 3), np.float32), np.arange(8) % 2
    >>> model, objective = mlp((4,), num_classes=2), cross_entropy()
    >>> fits = [functools.partial(fit, model, model.init(jax.random.key(0), x), objective, rules, (x, y), steps=2,
    ...                           optimizer=optax.sgd(0.1), progress=False) for rules in (plan(), linear_probe())]
    >>> compile_all(fits) > 0
    True
    >>> [run().steps for run in fits]
    [2, 2]
    """
    began, begun, ready = time.perf_counter(), [], []
    for call in fits:
        function: Any = getattr(call, "func", None)
        if function not in _STARTING:
            raise FitError(f"compile_all takes functools.partial(tl.fit, ...) or of tl.fit_many; found {call!r}")
        start = _STARTING[function](*call.args, **call.keywords)
        if np.ndim(start.seed) and not start.prepared.choices.stacked:
            start = _first(start, call)
        start = start.placed()
        folder = start.prepared.options.run_dir
        prepared = with_microbatches(*start, None if folder is None else pathlib.Path(folder))
        begun.append((prepared, prepared.program.start.begin(*start[1:], prepared.streams)))  # its arrays may go
    for prepared, first in begun:
        run = jax.tree.map(_placed, first.traced.out_info, first.wait().output_shardings)
        in_memory = prepared.valid if isinstance(prepared.valid, Batch) and prepared.exam is None else None
        ready.append(prepared.program.begin(run, prepared.streams, in_memory))
    for program in ready:
        program.wait()
    return time.perf_counter() - began


_STARTING: dict[Any, Callable[..., Start]] = {fit: one_run, fit_many: many_runs}


def _first(start: Start, call: functools.partial[Result]) -> Start:
    """The first of the runs that `fit_many` makes one after the other on a mesh; its programs are those of all."""
    given = inspect.signature(fit_many).bind(*call.args, **call.keywords).arguments
    common = frozenset(select(given.get("shared", ())).names(start.params))
    first = next(turns(start.prepared, len(start.seed), given.get("subsets")))
    return Start(first, one_of(start.params, 0, common), start.seed[0], start.rate[0])


def _placed(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
