"""A head that is a matrix and a bias, whatever it was fitted by."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from tljax.probes.inputs import Names
from tljax.probes.left_out import dot
from tljax.types import Array


class Linear(NamedTuple):
    """Scores ``features @ weights + bias``; the largest tells the class."""

    weights: Array
    """`[D, C]`."""
    bias: Array
    """`[C]`."""
    classes: Names
    """The names of the columns."""

    def predict(self, features: Any) -> Array:
        """The scores `[M, C]` of features `[M, D]`.

        >>> Linear(jnp.eye(2), jnp.array([0.0, 1.0]), Names("ab")).predict([[3.0, 4.0]]).tolist()
        [[3.0, 5.0]]
        """
        return dot(jnp.asarray(features, self.weights.dtype), self.weights) + self.bias[None]
