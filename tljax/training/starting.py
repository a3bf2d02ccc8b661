"""From the arguments of `fit` and `fit_many` to what a run starts from; and compiling for several of them at once."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from tljax.objectives import Term
from tljax.plans import Plan, plan
from tljax.processes import several, together
from tljax.training.inputs import FitError, own_subsets
from tljax.training.options import options_from
from tljax.training.prepare import prepare
from tljax.training.prepared import Prepared
from tljax.training.stack import apart, one_of
from tljax.tree import named_leaves, select
from tljax.types import Array, Model, Params


class Start(NamedTuple):
    """A run that can start, or a stack of them."""

    prepared: Prepared
    params: Params
    seed: Array
    """uint32 `[]`, or `[R]` for a stack."""
    rate: Array
    """The factor on all updates, float32 `[]` or `[R]`."""

    def placed(self) -> "Start":
        """With parameters where the run's layout wants them."""
        placement = self.prepared.placement
        return self if placement is None else self._replace(params=placement.put(self.params))


def one_run(
    model: Model, params: Params, objective: Term, plan: Plan = plan(), train: Any = None, valid: Any = None, *,  # noqa: B008
    optimizer: Any, seed: int = 0, **options: Any,
) -> Start:  # fmt: skip
    """The start of a run with the arguments of `fit`, which are checked."""
    chosen = options_from(options)
    prepared = together(lambda: prepare(model, params, objective, plan, train, valid, optimizer, chosen))
    return Start(prepared, params, jnp.asarray(_seed(seed), jnp.uint32), jnp.float32(1.0))


def many_runs(
    model: Model, params: Params, objective: Term, plan: Plan = plan(), train: Any = None, valid: Any = None, *,  # noqa: B008
    optimizer: Any, seeds: Sequence[int], rates: Sequence[float] | None = None, subsets: Any = None, shared: Any = (),
    **options: Any,
) -> Start:  # fmt: skip
    """The start of a stack of runs with the arguments of `fit_many`, which are checked."""
    count = len(seeds)
    common = frozenset(select(shared).names(params))
    for name, leaf in named_leaves(apart(params, common)[0]).items():
        if np.shape(leaf)[:1] != (count,) or not count:
            raise FitError(
                f"fit_many got {count} seeds, so every leaf of params needs as many runs, one or more, on axis 0; "
                f"found {name!r} of the shape {np.shape(leaf)}. Frozen leaves that all runs share are named with "
                "shared='backbone/**'"
            )
    factors = [1.0] * count if rates is None else [float(factor) for factor in rates]
    if len(factors) != count or not all(0 < factor < np.inf for factor in factors):
        raise FitError(f"rates are positive numbers, one for each of the {count} seeds; found {factors}")
    starts = jnp.asarray([_seed(seed) for seed in seeds], jnp.uint32)
    chosen, rate = options_from(options), jnp.asarray(factors, jnp.float32)
    given = (objective, plan, train, valid, optimizer, chosen)
    if chosen.mesh is not None or several():  # one after the other: prepared is one of them
        one = one_of(params, 0, common)
        return Start(together(lambda: prepare(model, one, *given, shared=common, in_turn=True)), params, starts, rate)
    prepared = prepare(model, params, *given, shared=common)
    prepared.streams = own_subsets(prepared.streams, subsets, count)
    return Start(prepared, params, starts, rate)


def _seed(seed: Any) -> int:
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise FitError(f"a seed is a whole number from 0 to {2**32 - 1}; found {seed!r}")
    return int(seed)
