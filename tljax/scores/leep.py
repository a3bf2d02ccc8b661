"""LEEP and NCE: how well the classes of the source tell those of the target."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tljax.scores.inputs import Labelled, ScoreError, exact, labelled
from tljax.scores.validators import distributions
from tljax.types import Array


def leep(probabilities: Any, labels: Any) -> float:
    """LEEP: the mean log-likelihood of a classifier that goes through the source's classes; at most 0.

        mean_i log sum_z P(y_i | z) theta_i(z),    P(y | z) = sum_{i: y_i = y} theta_i(z) / sum_i theta_i(z)

    Higher is better. Source classes without any mass add nothing (published code divides 0 by 0 there).

    Args:
        probabilities: theta, the source model's class probabilities `[N, S]` of the target examples.
        labels: the target's classes `[N]`.

    Raises `ScoreError` for negative probabilities or rows that do not sum to 1, and as `labelled` says.

    Reference: Nguyen et al. 2020, arXiv:2002.12462.

    >>> round(leep([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], [0, 1, 0]), 4)
    -0.2703
    """
    data = labelled(probabilities, labels, what="probabilities")
    distributions(data.x)
    return float(_leep(data.x, data.y, data.classes))


@partial(jax.jit, static_argnums=2)
def _leep(theta: Array, y: Array, classes: int) -> Array:
    return leep_of(theta, y, Labelled(theta, y, classes).one_hot)


def leep_of(theta: Array, y: Array, one_hot: Array) -> Array:
    """LEEP of probabilities `[N, S]` and classes `[N]`, also as `[N, C]`.

    >>> theta, y = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]), jnp.array([0, 1, 0])
    >>> round(float(leep_of(theta, y, jnp.eye(2)[y])), 4)
    -0.2703
    """
    joint = exact(one_hot.T, theta)
    mass = jnp.sum(joint, axis=0)
    given = jnp.where(mass[None] > 0, joint / jnp.where(mass > 0, mass, 1)[None], 0)
    return jnp.mean(jnp.log(jnp.sum(theta * given[y], axis=1)))


def nce(source_labels: Any, labels: Any) -> float:
    """NCE: minus the entropy of the target's class where the source's is known, in nats; at most 0, higher is better.

        sum_{y, z} P(y, z) log P(y | z)

    Args:
        source_labels: the class of the source `[N]` that each target example is given: the model's most likely one.
        labels: the target's classes `[N]`.

    Raises `ScoreError` for labels of differing number, or of one class only.

    Reference: Tran et al. 2019, arXiv:1908.08142.

    >>> nce([0, 0, 1, 1], ["cat", "cat", "dog", "dog"]), round(nce([0, 0, 0, 0], [0, 0, 1, 1]), 4)
    (0.0, -0.6931)
    """
    source = np.asarray(source_labels)
    if source.ndim != 1 or not len(source):
        raise ScoreError(f"source_labels must be [N], one class an example; found the shape {source.shape}")
    z = np.unique(source, return_inverse=True)[1].reshape(-1)
    y = np.asarray(labelled(np.zeros((len(z), 1), np.float32), labels).y)
    joint = np.zeros((y.max() + 1, z.max() + 1))
    np.add.at(joint, (y, z), 1 / len(y))
    given = joint / joint.sum(axis=0)  # no column is empty: the classes are those that occur
    return float(np.sum(joint[joint > 0] * np.log(given[joint > 0]))) + 0.0  # no minus zero
