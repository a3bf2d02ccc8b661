"""k nearest neighbours on frozen features: what a representation is worth before any training."""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from tljax.probes.inputs import Names, ProbeError, class_labels
from tljax.types import Array

Metric = Literal["cosine", "euclidean"]
_CHUNK = 256
"""Queries compared at once: `256 * N` similarities are held."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["features", "labels", "weight", "temperature"],
    meta_fields=["classes", "k", "metric"],
)
@dataclasses.dataclass(frozen=True)
class Neighbours:
    """The examples that vote, and how."""

    features: Array
    """`[N, D]`."""
    labels: Array
    """`[N]` int32."""
    weight: Array
    """`[N]`: 0 for examples that do not vote."""
    temperature: Array | None
    """`[]`, or None for one vote each."""
    classes: Names
    """The names of the columns `[C]`."""
    k: int
    metric: Metric

    def predict(self, features: Any) -> Array:
        """The probabilities `[M, C]` of features `[M, D]`: the share of each class among the k nearest examples.

        Of equally near examples the earlier ones are taken. A feature that is NaN makes the probabilities NaN.
        Raises `ProbeError` for another shape.

        >>> found = knn([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]], ["a", "a", "b"], k=2)
        >>> found.predict([[1.0, 0.2]]).tolist()
        [[1.0, 0.0]]
        """
        queries = jnp.asarray(features)
        if queries.ndim != 2 or queries.shape[1] != self.features.shape[1] or not len(queries):
            raise ProbeError(
                f"features should be [M, {self.features.shape[1]}], one row or more; found {queries.shape}"
            )
        return _predict(
            self.features,
            self.labels,
            queries.astype(jnp.float32),
            self.weight > 0,
            self.temperature,
            num_classes=len(self.classes),
            k=self.k,
            metric=self.metric,
        )


def knn(
    features: Any,
    labels: Any,
    *,
    num_classes: int | None = None,
    k: int = 5,
    metric: Metric = "cosine",
    temperature: float | None = None,
    weight: Any = None,
) -> Neighbours:
    """The vote of the k nearest of `features`.

    With a temperature, neighbours vote by ``exp(similarity / temperature)`` instead of one each; the similarity is the
    cosine, or minus the distance. Without any example that votes, every class is equally likely.

    Args:
        features: `[N, D]`, the examples, 1 or more.
        labels: classes `[N]`, integers or names.
        num_classes: C; by default as many as the largest label needs.
        k: how many neighbours vote; at most N are there.
        metric: `"cosine"` (a zero vector has similarity 0 to everything) or `"euclidean"`.
        temperature: above 0; None counts votes.
        weight: `[N]`; 0 takes an example out, so subsets padded to one length share one compiled program.

    Works inside of `jax.jit` where `labels` are known outside.

    Raises `ProbeError` for shapes that do not fit, features that are NaN or infinite where the weight is not 0, labels
    outside of the classes, all of one class, `k` below 1, an unknown metric, or a temperature that is not above 0.

    Reference: Wu et al. 2018, arXiv:1805.01978 (weighted votes; temperature 0.07 there).

    >>> found = knn([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]], ["cat", "cat", "dog"], k=1)
    >>> found.classes[int(jnp.argmax(found.predict([[0.1, 2.0]])))]
    'dog'
    """
    given = features if isinstance(features, jax.Array) else np.asarray(features)
    if given.ndim != 2 or 0 in given.shape or given.dtype.kind in "OUSMm":
        raise ProbeError(f"features should be numbers [N, D], not empty; found {given.dtype} of shape {given.shape}")
    x = jnp.asarray(given)
    y, classes = class_labels(labels, len(x), num_classes)
    if metric not in ("cosine", "euclidean"):
        raise ProbeError(f"metric must be 'cosine' or 'euclidean'; found {metric!r}")
    if k < 1 or (temperature is not None and not temperature > 0):
        raise ProbeError(f"k must be 1 or more, and a temperature above 0; found {k} and {temperature}")
    votes = jnp.ones(len(x)) if weight is None else jnp.asarray(weight)
    if votes.shape != (len(x),):
        raise ProbeError(f"weight should be [{len(x)}], one an example; found the shape {votes.shape}")
    x = x.astype(jnp.float32)
    _require_finite(x, votes)
    heat = None if temperature is None else jnp.float32(temperature)
    return Neighbours(x, jnp.asarray(y), votes, heat, classes, min(k, len(x)), metric)


def _require_finite(x: Array, votes: Array) -> None:
    if isinstance(x, jax.core.Tracer) or isinstance(votes, jax.core.Tracer):
        return
    bad = int(np.sum(~np.isfinite(np.asarray(x)).all(1) & (np.asarray(votes) > 0)))
    if bad:
        raise ProbeError(f"features have values that are NaN or infinite, in {bad} of {len(x)} rows")


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
    metric: Metric,
) -> Array:
    features = jnp.where(real[:, None], features, 0)  # whatever padding holds
    if metric == "cosine":
        features, queries = _normalised(features), _normalised(queries)
    else:
        # Metrics do not change when the origin moves; |a|^2 - 2 ab + |b|^2 cancels less near it.
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


def _similarity(queries: Array, features: Array, metric: Metric) -> Array:
    """`[M, N]`, the larger the nearer."""
    inner = jnp.matmul(queries, features.T, precision=jax.lax.Precision.HIGHEST)
    if metric == "cosine":
        return inner
    squares = jnp.sum(queries**2, axis=1)[:, None] + jnp.sum(features**2, axis=1)[None] - 2 * inner
    return -jnp.sqrt(jnp.maximum(squares, 0))
