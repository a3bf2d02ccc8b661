"""How one leaf is treated by a plan."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from tljax.types import TljaxError

Schedule = Callable[[Any], Any]
"""A function of the step, from 0, as optax has them."""


class PlanError(TljaxError):
    """A plan that cannot be carried out, such as one that trains nothing."""


class Automatic(NamedTuple):
    """A rate that follows from gradients; see `auto_rgn`."""

    block: str
    """Leaves of one block have one rate."""
    batches: int
    """About how many steps are averaged."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """How one leaf is treated."""

    trainable: bool = True
    rate: float | Schedule = 1.0
    """The factor on the optimiser's update, or a function of the step that gives it."""
    decay: float | None = None
    """The weight decay; None: what the optimiser does of itself."""
    opens: int = 0
    """The step at which it begins to learn."""
    automatic: Automatic | None = None
    """Where the update is also multiplied by a relative gradient norm."""

    @property
    def kind(self) -> "Setting":
        """What an optimiser must tell apart: rate and decay alone.

        >>> Setting(rate=2.0, opens=100).kind
        Setting(trainable=True, rate=2.0, decay=None, opens=0, automatic=None)
        """
        return Setting(rate=self.rate, decay=self.decay)

    @property
    def label(self) -> str:
        """The name of the group of leaves that are treated alike by the optimiser.

        >>> Setting().label, Setting(rate=0.1, decay=0.05).label, Setting(trainable=False).label
        ('rate 1', 'rate 0.1, decay 0.05', 'frozen')
        """
        if not self.trainable:
            return "frozen"
        return f"rate {number(self.rate)}" + ("" if self.decay is None else f", decay {number(self.decay)}")


def number(value: float | Schedule) -> str:
    """The number in full, so that rates that differ have labels that differ; of a schedule, the name.

    >>> number(10.0), number(0.1)
    ('10', '0.1')
    """
    if callable(value):
        name = getattr(value, "__qualname__", type(value).__name__)
        return name.split(".<locals>")[0]  # optax's are functions inside the function that made them
    return repr(float(value)).removesuffix(".0")
