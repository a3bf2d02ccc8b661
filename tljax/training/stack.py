"""A stack of runs: what each has of its own lies on a first axis; data, and a frozen base, are there once.

A run of the stack is computed like any other: its own leaves are put together with the shared ones, and taken apart
again.  So shared leaves pass through no loop, no branch and no output of a run, where batching would make a copy of
them for each.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from tljax.training.state import Run
from tljax.tree import map_named, merge
from tljax.types import Array, Params

Names = frozenset[str]
"""The leaves that all runs share: frozen ones."""


def apart(whole: Any, shared: Names) -> tuple[Any, Params]:
    """A parameter tree or a `Run` without its shared leaves, and these; both with None in the holes.

    >>> apart({"base": 1.0, "head": 2.0}, frozenset({"base"}))
    ({'base': None, 'head': 2.0}, {'base': 1.0, 'head': None})
    """
    tree = whole.state.frozen if isinstance(whole, Run) else whole
    own = map_named(lambda name, leaf: None if name in shared else leaf, tree)
    base = map_named(lambda name, leaf: leaf if name in shared else None, tree)
    return _with(whole, own), base


def joined(own: Any, base: Params) -> Any:
    """The inverse of `apart`.

    >>> joined(*apart({"base": 1.0, "head": 2.0}, frozenset({"base"})))
    {'base': 1.0, 'head': 2.0}
    """
    return _with(own, merge(own.state.frozen if isinstance(own, Run) else own, base))


def one_of(stack: Any, i: Any, shared: Names) -> Any:
    """Run number `i` of a stack of runs, or of parameter trees.

    >>> import numpy as np
    >>> one_of({"base": np.arange(2), "head": np.array([3, 4])}, 1, frozenset({"base"}))
    {'base': array([0, 1]), 'head': np.int64(4)}
    """
    own, base = apart(stack, shared)
    return joined(jax.tree.map(lambda a: a[i], own), base)


def put(stack: Run, run: Run, i: Array, shared: Names) -> Run:
    """`stack` with `run` as its number `i`."""
    own, base = apart(stack, shared)
    return joined(jax.tree.map(lambda all_, one: all_.at[i].set(one), own, apart(run, shared)[0]), base)


def each_run(f: Callable[..., Any], first: Any, *stacked: Any, shared: Names, stopping: bool = False) -> Any:
    """`f(first, *stacked)` for every run; `first` is a stack of `Run` or of parameters, and so is the result, or the
    first of a pair.

    One after the other on CPU, where batching over weights makes convolutions slow, and side by side on accelerators.
    `stopping`: runs that were stopped stay as they are.

    >>> import jax.numpy as jnp
    >>> add = lambda params, x: {"base": params["base"], "head": params["head"] + params["base"] + x}
    >>> start = {"base": jnp.float32(10.0), "head": jnp.array([1.0, 2.0])}
    >>> found = each_run(add, start, jnp.array([0.5, 0.25]), shared=frozenset({"base"}))
    >>> found["base"].item(), found["head"].tolist()
    (10.0, [11.5, 12.25])
    """
    own, base = apart(first, shared)

    def one(mine: Any, *rest: Any) -> Any:
        result = f(joined(mine, base), *rest)
        return (apart(result[0], shared)[0], *result[1:]) if _is_pair(result) else apart(result, shared)[0]

    if jax.default_backend() == "cpu":
        found = jax.lax.map(lambda items: (_unless_stopped(one) if stopping else one)(*items), (own, *stacked))
    else:
        found = jax.vmap(one)(own, *stacked)
        if stopping:  # a branch under vmap would make both, and a copy of the base for each run besides
            found = jax.tree.map(lambda now, old: _chosen(own.best.stopped, old, now), found, own)
    return (joined(found[0], base), *found[1:]) if _is_pair(found) else joined(found, base)


def each_of(f: Callable[[Params], Any], stack: Params, shared: Names) -> Any:
    """`f(params)` of every run of a stack of parameter trees, whatever it is, with the runs on the first axis.

    >>> import jax.numpy as jnp
    >>> params = {"base": jnp.float32(10.0), "head": jnp.array([1.0, 2.0])}
    >>> each_of(lambda p: p["base"] + p["head"], params, frozenset({"base"})).tolist()
    [11.0, 12.0]
    """
    own, base = apart(stack, shared)
    side_by_side = jax.default_backend() != "cpu"  # as in `each_run`
    over = jax.vmap if side_by_side else lambda one: lambda mine: jax.lax.map(one, mine)
    return over(lambda mine: f(joined(mine, base)))(own)


def over_runs(
    f: Callable[..., Any], first: Any, *stacked: Any, streams: Mapping[str, Any], shared: Names, stopping: bool = False
) -> Any:
    """`each_run` of ``f(first, *stacked, streams)``, where each run has its own subset of every stream."""
    own = {name: (s.subset, s.size) for name, s in streams.items()}

    def one(*items: Any) -> Any:
        mine = {name: streams[name]._replace(subset=a, size=b) for name, (a, b) in items[-1].items()}
        return f(*items[:-1], mine)

    return each_run(one, first, *stacked, own, shared=shared, stopping=stopping)


def own_streams(streams: Mapping[str, Any], i: Array) -> dict[str, Any]:
    """The streams of run `i` of a stack."""
    return {name: s._replace(subset=s.subset[i], size=s.size[i]) for name, s in streams.items()}


def _unless_stopped(one: Callable[..., Run]) -> Callable[..., Run]:
    return lambda mine, *rest: jax.lax.cond(mine.best.stopped, lambda: mine, lambda: one(mine, *rest))


def _chosen(stopped: Array, old: Array, new: Array) -> Array:
    return jnp.where(stopped.reshape(-1, *[1] * (new.ndim - 1)), old, new)


def _is_pair(result: Any) -> bool:
    return type(result) is tuple


def _with(whole: Any, tree: Params) -> Any:
    if not isinstance(whole, Run):
        return tree
    return whole._replace(state=whole.state._replace(frozen=tree))
