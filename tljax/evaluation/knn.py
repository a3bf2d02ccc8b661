"""k nearest neighbours on frozen features: what a representation is worth before any training."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp

from tljax.types import Array, TljaxError

Distance = Literal["cosine", "euclidean"]
_CHUNK = 256
"""Queries compared at once: `256 * N` similarities are held."""


class KnnError(TljaxError):
    """Features or options that no neighbours can be taken of."""


def knn_predict(
    features: Array,
    labels: Array,
    queries: Array,
    *,
    num_classes: int,
    k: int = 5,
    metric: Distance = "cosine",
    temperature: float | None = None,
    weight: Array | None = None,
) -> Array:
    """Class probabilities `[M, C]` of the queries: the share of each class among the k nearest examples.

    With a temperature, neighbours vote by ``exp(similarity / temperature)`` instead of one each; the similarity is the
    cosine, or minus the distance. Of equally near examples the earlier ones are taken. `k` is capped at the number of
    examples; without any, every class is equally likely. A feature that is NaN makes the probabilities NaN.

    Args:
        features: `[N, D]`, the examples.
        labels: `[N]` int in 0..C-1; an example labelled otherwise votes for no class.
        queries: `[M, D]`.
        num_classes: C.
        k: how many neighbours vote.
        metric: `"cosine"` (a zero vector has similarity 0 to everything) or `"euclidean"`.
        temperature: above 0; None counts votes.
        weight: `[N]`; 0 takes an example out, so subsets padded to one length share one compiled program.

    Raises:
        KnnError: shapes that do not fit, `k` below 1, an unknown metric, a temperature that is not above 0.

    Reference: Wu et al. 2018, arXiv:1805.01978 (weighted votes; temperature 0.07 there).

    >>> features, labels = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), jnp.array([0, 0, 1])
    >>> print(knn_predict(features, labels, jnp.array([[1.0, 0.2]]), num_classes=2, k=2))
    [[1. 0.]]
    """
    features, labels, queries = (jnp.asarray(a) for a in (features, labels, queries))
    weight = jnp.ones(features.shape[:1]) if weight is None else jnp.asarray(weight)
    _check(features, labels, queries, weight, k, metric, temperature)
    scale = None if temperature is None else jnp.float32(temperature)
    return _predict(
        features.astype(jnp.float32),
        labels.astype(jnp.int32),
        queries.astype(jnp.float32),
        weight > 0,
        scale,
        num_classes=num_classes,
        k=min(k, len(features)),
        metric=metric,
    )


@functools.partial(jax.jit, static_argnames=("num_classes", "k", "metric"))
def _predict(
    features: Array,
    labels: Array,
    queries: Array,
    real: Array,
    temperature: Array | None,
    *,
    num_classes: int,
    k: int,
    metric: Distance,
) -> Array:
    features = jnp.where(real[:, None], features, 0)  # whatever padding holds
    if metric == "cosine":
        features, queries = _normalised(features), _normalised(queries)
    else:
        # Distances do not change when the origin moves; |a|^2 - 2 ab + |b|^2 cancels less near it.
        centre = jnp.sum(features, axis=0, keepdims=True) / jnp.maximum(jnp.sum(real), 1).astype(jnp.float32)
        features, queries = features - centre, queries - centre
    votes = jax.nn.one_hot(labels, num_classes)

    def of_chunk(chunk: Array) -> Array:
        similarity = jnp.where(real[None], _similarity(chunk, features, metric), -jnp.inf)
        best, nearest = jax.lax.top_k(similarity, k)
        found = best > -jnp.inf
        if temperature is None:
            share = found.astype(jnp.float32)
        else:
            share = jnp.where(found, jnp.exp((best - best[:, :1]) / temperature), 0)
        counts = jnp.sum(share[:, :, None] * votes[nearest], axis=1)
        total = jnp.sum(counts, axis=1, keepdims=True)
        even = jnp.full_like(counts, 1 / num_classes)
        bad = jnp.any(jnp.isnan(similarity), axis=1, keepdims=True)
        return jnp.where(bad, jnp.nan, jnp.where(total > 0, counts / jnp.where(total > 0, total, 1), even))

    size = min(_CHUNK, len(queries))
    chunks = -(-len(queries) // size)
    padded = jnp.pad(queries, ((0, chunks * size - len(queries)), (0, 0)))
    found = jax.lax.map(of_chunk, padded.reshape(chunks, size, -1))
    return found.reshape(chunks * size, num_classes)[: len(queries)]


def _normalised(x: Array) -> Array:
    length = jnp.linalg.norm(x, axis=1, keepdims=True)
    return x / jnp.where(length > 0, length, 1)


def _similarity(queries: Array, features: Array, metric: Distance) -> Array:
    """`[M, N]`, the larger the nearer."""
    inner = jnp.matmul(queries, features.T, precision=jax.lax.Precision.HIGHEST)
    if metric == "cosine":
        return inner
    squares = jnp.sum(queries**2, axis=1)[:, None] + jnp.sum(features**2, axis=1)[None] - 2 * inner
    return -jnp.sqrt(jnp.maximum(squares, 0))


def _check(
    features: Array,
    labels: Array,
    queries: Array,
    weight: Array,
    k: int,
    metric: str,
    temperature: float | None,
) -> None:
    if (
        features.ndim != 2
        or queries.ndim != 2
        or features.shape[1] != queries.shape[1]
        or not len(features)
        or not len(queries)
        or labels.shape != features.shape[:1]
        or weight.shape != features.shape[:1]
    ):
        raise KnnError(
            "knn_predict() needs features [N, D], labels [N], queries [M, D] and weight [N], none of them empty; found "
            f"{features.shape}, {labels.shape}, {queries.shape} and {weight.shape}"
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise KnnError(f"knn_predict() needs integer labels, found {labels.dtype}")
    if metric not in ("cosine", "euclidean"):
        raise KnnError(f"metric must be 'cosine' or 'euclidean', found {metric!r}")
    if k < 1 or (temperature is not None and temperature <= 0):
        raise KnnError(f"knn_predict() needs k >= 1 and temperature > 0 or None, found {k} and {temperature}")
