"""The nearest class mean: a head without anything to tune."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from tljax.probes.inputs import ABSENT, ProbeError, class_labels, finite_features
from tljax.probes.left_out import dot
from tljax.probes.linear import Linear
from tljax.types import Array


def centroid(
    features: Any,
    labels: Any,
    *,
    num_classes: int | None = None,
    metric: Literal["cosine", "euclidean"] = "cosine",
) -> Linear:
    r"""The head that answers with the class whose mean is nearest.

    Both metrics are linear in the features. With :math:`m_c` the mean of a class, the euclidean score is
    :math:`x \cdot m_c - |m_c|^2 / 2`, half the squared distance but for what all classes share; origin is the mean of
    all examples. For the cosine, features are brought to length 1 first and so is :math:`m_c`; the score is
    :math:`x \cdot m_c`, the cosine times the length of x. A class without examples is never nearest.

    Args:
      features: `[N, D]`.
      labels: classes `[N]`, integers or names.
      num_classes: C; by default as many as the largest label needs.
      metric: "cosine" or "euclidean".

    Raises `ProbeError` for shapes that do not fit, features that are not finite, labels outside of the classes or all
    of one class, or another metric.

    Reference: Snell et al. 2017, Prototypical networks, arXiv:1703.05175 (euclidean); Wang et al. 2019, SimpleShot,
    arXiv:1911.04623 (features of length 1).

    >>> found = centroid([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]], ["a", "a", "b"])
    >>> [found.classes[i] for i in jnp.argmax(found.predict([[9.0, 1.0], [1.0, 1.1]]), axis=1)]
    ['a', 'b']
    """
    x = finite_features(features)
    y, classes = class_labels(labels, len(x), num_classes)
    if metric not in ("cosine", "euclidean"):
        raise ProbeError(f"metric is 'cosine' or 'euclidean'; found {metric!r}")
    votes = jnp.asarray(np.eye(len(classes))[y], x.dtype)
    counts = jnp.sum(votes, axis=0)
    share = votes / jnp.maximum(counts, 1)[None]
    if metric == "cosine":
        means = _unit(dot(share.T, _unit(x)))
        bias = jnp.zeros(len(classes), x.dtype)
    else:
        origin = jnp.mean(x, axis=0)
        means = dot(share.T, x - origin[None])
        bias = -jnp.sum(jnp.square(means), axis=1) / 2 - dot(means, origin)
    return Linear(
        jnp.where(counts[None] > 0, means.T, 0), jnp.where(counts > 0, bias, jnp.asarray(ABSENT, x.dtype)), classes
    )


@jax.jit
def _unit(x: Array) -> Array:
    size = jnp.max(jnp.abs(x), axis=1, keepdims=True)  # so that no square overflows
    x = x / jnp.where(size > 0, size, 1)
    length = jnp.linalg.norm(x, axis=1, keepdims=True)
    return x / jnp.where(length > 0, length, 1)
