"""Candidates as one stacked tree, evaluated by one compiled program."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from tljax.merging.models import check_names, check_shape, with_leaves
from tljax.tree import map_named, named_leaves
from tljax.types import Params


def stack(models: Sequence[Params]) -> Params:
    """`models` as one tree whose leaves have a new first axis, `[M, ...]`.

    Raises `MergingError` where they do not fit together.

    >>> stack([{"w": jnp.ones(3)}, {"w": jnp.zeros(3)}])["w"].shape
    (2, 3)
    """
    columns = [named_leaves(model) for model in models]
    for i, column in enumerate(columns[1:], start=1):
        check_names(columns[0], column, "model 0", f"model {i}")
        for name, leaf in columns[0].items():
            check_shape(name, [leaf, column[name]], ["model 0", f"model {i}"])
    return with_leaves(models[0], {name: jnp.stack([column[name] for column in columns]) for name in columns[0]})


def unstack(stacked: Params) -> list[Params]:
    """The models of a stack: the inverse of `stack`.

    >>> unstack({"w": jnp.array([1.0, 2.0])})
    [{'w': Array(1., dtype=float32)}, {'w': Array(2., dtype=float32)}]
    """
    count = len(next(iter(named_leaves(stacked).values())))
    return [map_named(lambda _, leaf, i=i: leaf[i], stacked) for i in range(count)]


def evaluate_stacked(score: Callable[[Any], Any], stacked: Any) -> Any:
    """``score(candidate)`` for every candidate of a stack, in one compiled program; the results are stacked too.

    Side by side (`vmap`) on accelerators, one after the other (`lax.map`) on CPU, where batching over weights makes
    convolutions slow. `score` is a pure function that JAX can trace. What is stacked need not be models: coefficients,
    with the merge inside `score`, spare the memory of all candidates at once.

    >>> from tljax.merging import interpolate
    >>> start, tuned = {"w": jnp.array(0.0)}, {"w": jnp.array(4.0)}
    >>> score = lambda alpha: -jnp.square(interpolate(start, tuned, alpha)["w"] - 2.0)
    >>> evaluate_stacked(score, jnp.array([0.0, 0.5, 1.0]))
    Array([-4., -0., -4.], dtype=float32)
    """
    side_by_side = jax.default_backend() != "cpu"
    return jax.jit(lambda tree: jax.vmap(score)(tree) if side_by_side else jax.lax.map(score, tree))(stacked)
