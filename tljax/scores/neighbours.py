"""k nearest neighbours as a score: nothing to fit, and hard to beat."""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from tljax.scores.inputs import Labelled, ScoreError, exact, labelled
from tljax.types import Array

_CHUNK = 256


def knn(features: Any, labels: Any, *, k: int = 1, metric: Literal["cosine", "euclidean"] = "cosine") -> float:
    """The share of examples whose class the `k` nearest *other* examples tell; 0..1, higher is better.

    Of classes with equally many votes the first is taken, of examples equally near the earlier one.

    Args:
        features: `[N, D]`.
        labels: classes `[N]`.
        k: how many neighbours vote; at most N - 1.
        metric: "cosine" or "euclidean".

    Raises `ScoreError` as `labelled` says, and for another metric or a `k` outside its range.

    Reference: Cover and Hart 1967; as a score Sorkhei et al. 2025, arXiv:2503.18528.

    >>> knn([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]], ["a", "a", "b", "b"])
    1.0
    """
    data = labelled(features, labels)
    if metric not in ("cosine", "euclidean") or not 1 <= k < len(data.x):
        raise ScoreError(
            f"metric is 'cosine' or 'euclidean', and k from 1 to {len(data.x) - 1}; found {metric!r} and {k!r}"
        )
    return float(_leave_one_out(data.x, data.y, data.classes, k, metric == "cosine"))


@partial(jax.jit, static_argnums=(2, 3, 4))
def _leave_one_out(x: Array, y: Array, classes: int, k: int, cosine: bool) -> Array:
    if cosine:
        length = jnp.linalg.norm(x, axis=1, keepdims=True)
        x = x / jnp.where(length > 0, length, 1)
    else:
        x = x - jnp.mean(x, axis=0, keepdims=True)  # near the origin |a|^2 - 2 ab + |b|^2 cancels less
    votes, squares = Labelled(x, y, classes).one_hot, jnp.sum(x**2, axis=1)

    def right(i: Array) -> Array:
        near = exact(x[i], x.T) if cosine else 2 * exact(x[i], x.T) - squares[None]
        near = jnp.where(i[:, None] == jnp.arange(len(x))[None], -jnp.inf, near)
        _, found = jax.lax.top_k(near, k)
        return jnp.argmax(jnp.sum(votes[found], axis=1), axis=1).astype(y.dtype) == y[i]

    size = min(_CHUNK, len(x))
    chunks = -(-len(x) // size)
    places = jnp.arange(chunks * size) % len(x)
    hits = jax.lax.map(right, places.reshape(chunks, size)).reshape(-1)[: len(x)]
    return jnp.mean(hits.astype(x.dtype))
