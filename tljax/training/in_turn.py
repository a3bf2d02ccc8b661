"""The runs of `fit_many` on a mesh: one after the other, each spread over all of it, by one compiled program."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tljax.processes import at_hand, fetched
from tljax.training.inputs import own_subsets
from tljax.training.log import Row
from tljax.training.prepared import Prepared
from tljax.training.result import Result
from tljax.training.stack import Names, apart, joined, own_streams
from tljax.types import Params


def run_in_turn(
    prepared: Prepared, count: int, subsets: Any, run: Callable[[Prepared, int], Result], shared: Names
) -> Result:
    """The results of `count` runs as that of a stack, on the host; `run(prepared, i)` makes run number `i`.

    In the run folder each has a folder of its own, by its number.
    """
    found = []
    for i, mine in enumerate(turns(prepared, count, subsets)):
        result = run(mine, i)
        params, last, terms = fetched(result.params), fetched(result.last), at_hand(result.terms)
        found.append(dataclasses.replace(result, params=params, last=last, terms=terms))
    return _stacked(found, shared)


def turns(prepared: Prepared, count: int, subsets: Any) -> Iterator[Prepared]:
    """The runs that are made one after the other, each with its own subset; all have the same programs."""
    alone = prepared.alone
    assert alone is not None
    own, placed = own_subsets(alone.streams, subsets, count), own_subsets(prepared.streams, subsets, count)
    for i in range(count):
        yield dataclasses.replace(
            prepared,
            streams=_placed_subset(prepared, own_streams(placed, jnp.int32(i))),
            alone=dataclasses.replace(alone, streams=own_streams(own, jnp.int32(i))),
            options=_options(prepared.options, i, count),
            tolerant=True,
        )


def _placed_subset(prepared: Prepared, streams: Any) -> Any:
    placement = prepared.placement
    assert placement is not None
    return {
        name: s._replace(subset=placement.everywhere(s.subset), size=placement.everywhere(s.size))
        for name, s in streams.items()
    }


def _options(options: Any, i: int, count: int) -> Any:
    folder = None if options.run_dir is None else pathlib.Path(options.run_dir) / str(i)
    title = f"{options.progress} {i + 1}/{count}" if isinstance(options.progress, str) else options.progress
    numbered = [_numbered(listener, i) for listener in options.on_log]
    return dataclasses.replace(options, run_dir=folder, progress=title, on_log=numbered)


def _numbered(listener: Callable[[Row], None], i: int) -> Callable[[Row], None]:
    return lambda row: listener(_of_run(row, i))


def _of_run(row: Row, i: int) -> Row:
    """A row as a stack has it."""
    return {"step": row["step"], "split": row["split"], "run": i} | row


def _stacked(results: Sequence[Result], shared: Names) -> Result:
    first = results[0]
    rows = [_of_run(row, i) for i, result in enumerate(results) for row in result.history]
    seconds = [result.step_seconds for result in results]
    chosen = first.best_value is not None
    return dataclasses.replace(
        first,
        params=_stack([result.params for result in results], shared),
        last=_stack([result.last for result in results], shared),
        best_value=np.stack([result.best_value for result in results]) if chosen else None,
        best_step=np.stack([result.best_step for result in results]),
        steps=max(result.steps for result in results),
        history=tuple(sorted(rows, key=lambda row: (row["step"], row["split"]))),
        training_seconds=sum(result.training_seconds for result in results),
        compile_seconds=sum(result.compile_seconds for result in results),
        step_seconds=None if None in seconds else sum(s for s in seconds if s is not None),
        optimizer_bytes=sum(result.optimizer_bytes for result in results),
        shared=shared,
        terms=jax.tree.map(lambda *leaves: jnp.stack(leaves), *[result.terms for result in results]),
    )


def _stack(trees: Sequence[Params], shared: Names) -> Params:
    own, base = zip(*(apart(tree, shared) for tree in trees))
    return joined(jax.tree.map(lambda *leaves: np.stack(leaves), *own), base[0])
