"""What repeated times say: the median, the quartiles, the least, and how far they lie apart."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

WIDE = 0.05
"""A spread from which on a number is marked: the middle half of the times lies further apart than this share."""


class Spread(NamedTuple):
    """Some times of the same thing, or rates of it."""

    median: float
    q1: float
    """A quarter lies below."""
    q3: float
    """A quarter lies above."""
    least: float
    most: float
    repeats: int

    @property
    def width(self) -> float:
        """The distance of the quartiles as a share of the median."""
        return (self.q3 - self.q1) / self.median

    @property
    def wide(self) -> bool:
        """Whether the times disagree so much that something else must have run on the machine."""
        return self.width > WIDE

    def described(self) -> dict[str, Any]:
        """As JSON values."""
        return self._asdict() | {"width": self.width}


def spread(values: Sequence[float]) -> Spread:
    """The spread of some positive numbers; quartiles interpolate between the values beside them.

    >>> spread([4.0, 1.0, 2.0, 3.0])
    Spread(median=2.5, q1=1.75, q3=3.25, least=1.0, most=4.0, repeats=4)
    """
    q1, median, q3 = (float(q) for q in np.quantile(np.asarray(values, np.float64), (0.25, 0.5, 0.75)))
    return Spread(median, q1, q3, float(min(values)), float(max(values)), len(values))
