"""Products of arrays whose axes have labels, as in an einsum."""

from collections.abc import Collection, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from tljax.types import Array

Labels = tuple[int, ...]


def contract(x: Array, of_x: Labels, y: Array, of_y: Labels, keep: Collection[int], **how: Any) -> tuple[Array, Labels]:
    """``x y`` summed over every label that is not in `keep`, and the labels of the result.

    `how` goes to `lax.dot_general`.

    >>> y, labels = contract(jnp.ones((7, 2, 3)), (0, 1, 2), jnp.ones((7, 3, 5)), (0, 2, 3), keep={0, 1, 3})
    >>> y.shape, labels
    ((7, 2, 5), (0, 1, 3))
    """
    x, of_x = _summed(x, of_x, {*keep, *of_y})
    y, of_y = _summed(y, of_y, {*keep, *of_x})
    shared = [label for label in of_x if label in of_y]
    batch = [label for label in shared if label in keep]
    over = [label for label in shared if label not in keep]

    def places(labels: list[int]) -> tuple[list[int], list[int]]:
        return [of_x.index(label) for label in labels], [of_y.index(label) for label in labels]

    free = [label for label in (*of_x, *of_y) if label not in shared]
    return lax.dot_general(x, y, (places(over), places(batch)), **how), (*batch, *free)


def spread(x: Array, labels: Labels, target: Labels, shape: Sequence[int]) -> Array:
    """`x` with its axes in the order of `target` and repeated along those that it does not have: an array of `shape`.

    >>> spread(jnp.ones((2, 3)), (1, 0), (0, 5, 1), (3, 4, 2)).shape
    (3, 4, 2)
    """
    order = sorted(range(len(labels)), key=lambda i: target.index(labels[i]))
    if order != list(range(len(order))):
        x = lax.transpose(x, order)
    if x.shape == tuple(shape):
        return x
    return lax.broadcast_in_dim(x, shape, [target.index(labels[i]) for i in order])


def _summed(x: Array, labels: Labels, keep: Collection[int]) -> tuple[Array, Labels]:
    lone = [i for i, label in enumerate(labels) if label not in keep]
    if not lone:
        return x, labels
    left = tuple(label for label in labels if label in keep)
    return (lax.squeeze(x, lone) if all(x.shape[i] == 1 for i in lone) else jnp.sum(x, tuple(lone))), left
