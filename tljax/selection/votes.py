"""What the labelled examples say of one candidate: every score of a subset from one decomposition of its features.

Features are brought to length one first, so that all that is needed of them are the cosines between examples: an
`[N, N]` matrix, however wide the features, and one compiled program for all candidates. Of the ways to prepare features
that were tried (raw, standardised, centred, length one) none was better, see docs/rank.md.
"""

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
    """Of each, more is better; `[]`, or `[S]` for subsets. Likelihoods are geometric means over examples left out."""

    ridge: Any
    """The accuracy of ridge regression on what it has not seen."""
    ridge_likelihood: Any
    """What it gives there to the true class, at the likeliest temperature."""
    centroid: Any
    """The accuracy of the nearest class mean by cosine."""
    centroid_likelihood: Any
    """What that gives to the true class, at the likeliest temperature."""
    nearest: Any
    """The accuracy of the nearest neighbour."""
    neighbours: Any
    """That of five."""
    logme: Any
    """The restricted log evidence per example; of all examples only, else NaN."""
    h_score: Any
    """The shrunk H-score, divided by its bound C - 1; of all examples only, else NaN."""
    leep: Any
    """LEEP; of all examples only, and NaN without probabilities."""


class Given(NamedTuple):
    """One candidate's arrays."""

    cosines: np.ndarray
    """`[N, N]` float64."""
    inner: np.ndarray
    """`[N, N]` float64: inner products of the same features with their mean taken off, which leaves small numbers."""
    width: np.ndarray
    """D, float."""
    theta: np.ndarray
    """Probabilities of the source's classes `[N, S]`; of width 0 without any."""


def prepare(features: np.ndarray, probabilities: np.ndarray | None) -> Given:
    """The arrays of a candidate; of features that are 0 the cosines are 0.

    >>> given = prepare(np.array([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]]), None)
    >>> given.cosines.round(6).tolist()
    [[1.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    x = np.asarray(features, np.float64)
    x = x / (np.abs(x).max() or 1.0)  # so that no square overflows
    length = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / np.where(length > 0, length, 1)
    theta = np.zeros((len(x), 0)) if probabilities is None else np.asarray(probabilities, np.float64)
    centred = unit - unit.mean(0)
    return Given(unit @ unit.T, centred @ centred.T, np.array(x.shape[1], np.float64), theta)


def votes_of(given: Given, labels: np.ndarray, rows: np.ndarray, classes: int, *, whole: bool = False) -> Votes:
    """The votes of every subset: `rows` `[S, M]` and their common labels `[M]`; leaves `[S]` float64.

    `whole` asks for those that are told of all examples only.

    >>> x = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]], np.float32)
    >>> found = votes_of(prepare(x, None), np.array([0, 0, 1, 1]), np.array([[0, 1, 2, 3]]), 2)
    >>> found.ridge.tolist(), found.centroid.tolist(), found.logme.tolist()
    ([1.0], [1.0], [nan])
    """
    with jax.enable_x64(True):
        found = _votes(given, labels.astype(np.int32), rows.astype(np.int32), classes, whole)
    return Votes(*(np.asarray(vote, np.float64) for vote in found))


@partial(jax.jit, static_argnums=(3, 4))
def _votes(given: Given, labels: Array, rows: Array, classes: int, whole: bool) -> Votes:
    one_hot = jax.nn.one_hot(labels, classes, dtype=jnp.float64)
    told = jnp.sum(one_hot, axis=0)[labels] > 1  # of a class with one example nothing is left when it is left out
    return jax.lax.map(partial(_subset, given, labels, one_hot, told, whole), rows)


def _subset(given: Given, labels: Array, one_hot: Array, told: Array, whole: bool, rows: Array) -> Votes:
    cosines = jnp.asarray(given.cosines)[rows][:, rows]
    found = gram_spectrum(jnp.asarray(given.inner)[rows][:, rows])
    accuracy, likelihood = partial(_accuracy, labels, told), partial(_likelihood, labels, told)
    width = jnp.asarray(given.width)
    loo, means = ridge_left_out(found, 2 * one_hot - 1, width), centroids_left_out(cosines, one_hot)
    near = [accuracy(neighbours_left_out(cosines, one_hot, min(k, len(rows) - 1))) for k in NEIGHBOURS]
    heads = accuracy(loo), likelihood(loo), accuracy(means), likelihood(means)
    logme = h_score = leep = jnp.asarray(jnp.nan, cosines.dtype)
    if whole:
        targets = one_hot - jnp.mean(one_hot, axis=0, keepdims=True)
        logme = jnp.mean(evidence(found, len(rows) - 1, targets))
        h_score = shrunk(found.u * found.s[None], found, one_hot, width) / (one_hot.shape[1] - 1)
        theta = jnp.asarray(given.theta)[rows]
        leep = leep_of(theta, labels, one_hot) if theta.shape[1] else leep
    return Votes(*heads, near[0], near[1], logme, h_score, leep)


def _accuracy(labels: Array, told: Array, scores: Array) -> Array:
    right = (jnp.argmax(scores, axis=1).astype(labels.dtype) == labels) & told
    return jnp.sum(right).astype(scores.dtype) / jnp.sum(told).astype(scores.dtype)


def _likelihood(labels: Array, told: Array, scores: Array) -> Array:
    scores = jnp.where(told[:, None], scores, 0)  # on which the scale does not depend
    logs = jax.nn.log_softmax(likeliest_scale(scores, labels, jnp.ones((), scores.dtype)) * scores)
    own = jnp.take_along_axis(logs, labels[:, None], axis=1)[:, 0]
    return jnp.exp(jnp.sum(jnp.where(told, own, 0)) / jnp.sum(told).astype(scores.dtype))
