"""What the labelled examples say of one candidate: every score of a subset from one decomposition of its features."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax.probes.temperature import likeliest_scale
from tljax.scores.h_score import shrunk
from tljax.scores.leep import leep_of
from tljax.scores.logme import evidence
from tljax.selection.heads import centroids_left_out, gram_spectrum, neighbours_left_out, ridge_left_out
from tljax.types import Array

NEIGHBOURS = (1, 5)


class Votes(NamedTuple):
    """Of each, more is better; `[]`, or `[S]` for subsets."""

    ridge: Any
    """The accuracy of ridge regression on what it has not seen."""
    likelihood: Any
    """The geometric mean of the probabilities that it gives there to the true class, at the likeliest temperature."""
    nearest: Any
    """The accuracy of the nearest neighbour."""
    neighbours: Any
    """That of five."""
    centroid: Any
    """That of the nearest class mean by cosine."""
    logme: Any
    """The exact log evidence per example, with an intercept."""
    h_score: Any
    """The shrunk H-score, divided by its bound C - 1."""
    leep: Any
    """LEEP; NaN without probabilities."""


class Given(NamedTuple):
    """One candidate's arrays on the device."""

    x: Array
    """`[N, K]`: the features, turned to as few directions as there are examples, padded with zeros."""
    cosines: Array
    """`[N, N]`."""
    width: Array
    """D, float: how many features there are; padding is none."""
    theta: Array
    """Probabilities of the source's classes `[N, S]`; of width 0 without any."""


def prepare(features: np.ndarray, probabilities: np.ndarray | None) -> Given:
    """The arrays of a candidate. Only few widths occur, so that candidates share compiled programs.

    >>> given = prepare(np.ones((4, 100), np.float32), None)
    >>> given.x.shape, given.cosines.shape, float(given.width)
    ((4, 4), (4, 4), 100.0)
    """
    x = np.asarray(features, np.float64)
    n, d = x.shape
    length = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / np.where(length > 0, length, 1)
    centred = x - x.mean(0)
    scale = np.abs(centred).max() or 1.0
    centred /= scale
    if d > n:  # a rotation: nothing that is measured here changes
        values, vectors = np.linalg.eigh(centred @ centred.T)
        centred = vectors * np.sqrt(np.maximum(values, 0))
        centred -= centred.mean(0)
    columns = padded_width(centred.shape[1])
    held = np.zeros((n, columns), np.float32)
    held[:, : centred.shape[1]] = centred
    theta = np.zeros((n, 0), np.float32) if probabilities is None else np.asarray(probabilities, np.float32)
    return Given(*map(jnp.asarray, (held, (unit @ unit.T).astype(np.float32), np.float32(d), theta)))


def padded_width(columns: int) -> int:
    """The next number of the form ``2^k`` or ``3 2^k``, so that few shapes are compiled.

    >>> [padded_width(n) for n in (3, 100, 130, 512, 768)]
    [3, 128, 192, 512, 768]
    """
    size = 1
    while size < columns:
        size *= 2
    return size * 3 // 4 if size >= 4 and columns <= size * 3 // 4 else size


def votes_of(given: Given, labels: np.ndarray, rows: np.ndarray, classes: int) -> Votes:
    """The votes of every subset: `rows` `[S, M]` and their common labels `[M]`; leaves `[S]` float64.

    >>> x = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]], np.float32)
    >>> found = votes_of(prepare(x, None), np.array([0, 0, 1, 1]), np.array([[0, 1, 2, 3]]), 2)
    >>> found.ridge.tolist(), found.centroid.tolist()
    ([1.0], [1.0])
    """
    with jax.enable_x64(True):
        found = _votes(given, jnp.asarray(labels, jnp.int32), jnp.asarray(rows, jnp.int32), classes)
    return Votes(*(np.asarray(vote, np.float64) for vote in found))


@partial(jax.jit, static_argnums=3)
def _votes(given: Given, labels: Array, rows: Array, classes: int) -> Votes:
    one_hot = jax.nn.one_hot(labels, classes, dtype=jnp.float64)
    counts = jnp.sum(one_hot, axis=0)
    told = counts[labels] > 1  # of a class with one example nothing is left when it is left out
    of_subset = partial(_subset, given, labels, one_hot, told)
    return jax.lax.map(of_subset, rows)


def _subset(given: Given, labels: Array, one_hot: Array, told: Array, rows: Array) -> Votes:
    x, cosines = given.x[rows].astype(jnp.float64), given.cosines[rows][:, rows].astype(jnp.float64)
    found = gram_spectrum(x)
    number = jnp.maximum(jnp.sum(told), 1).astype(x.dtype)

    def accuracy(scores: Array) -> Array:
        right = jnp.argmax(scores, axis=1).astype(labels.dtype) == labels
        return jnp.where(jnp.any(told), jnp.sum(right & told).astype(x.dtype) / number, jnp.nan)

    loo = ridge_left_out(found, 2 * one_hot - 1, given.width.astype(x.dtype))
    near = [accuracy(neighbours_left_out(cosines, one_hot, min(k, len(rows) - 1))) for k in NEIGHBOURS]
    targets = one_hot - jnp.mean(one_hot, axis=0, keepdims=True)
    evidences = jax.vmap(partial(evidence, found, len(rows) - 1), in_axes=1)(targets)
    theta = given.theta[rows].astype(jnp.float64)
    return Votes(
        ridge=accuracy(loo),
        likelihood=jnp.where(jnp.any(told), _likelihood(loo, labels, told), jnp.nan),
        nearest=near[0],
        neighbours=near[1],
        centroid=accuracy(centroids_left_out(cosines, one_hot)),
        logme=jnp.mean(evidences),
        h_score=shrunk(x, found, one_hot, given.width.astype(x.dtype)) / (one_hot.shape[1] - 1),
        leep=leep_of(theta, labels, one_hot) if theta.shape[1] else jnp.asarray(jnp.nan, x.dtype),
    )


def _likelihood(loo: Array, labels: Array, told: Array) -> Array:
    loo = jnp.where(told[:, None], loo, 0)  # of which the scale does not depend
    logs = jax.nn.log_softmax(likeliest_scale(loo, labels, jnp.ones((), loo.dtype)) * loo)
    own = jnp.take_along_axis(logs, labels[:, None], axis=1)[:, 0]
    return jnp.exp(jnp.sum(jnp.where(told, own, 0)) / jnp.maximum(jnp.sum(told), 1).astype(loo.dtype))
