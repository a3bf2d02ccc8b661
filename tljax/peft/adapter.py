"""What every kind of adapter is: a value beside one frozen leaf, and how it changes that leaf.

To add a kind, write one file: the reference and the formula, a dataclass with `kind` and `factor` (or `merge`, where
the effective weight is no product of factors), and a constructor. Nothing else knows kinds by name.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from tljax.peft.factors import Factored
from tljax.types import Array, TljaxError

Adapters = dict[str, Any]
"""Adapters by the path of the base leaf that they change, and arrays that several of them read under ``shared/``."""
Shared = Mapping[str, Array]
"""The arrays that adapters share, by name."""


class PeftError(TljaxError):
    """Adapters that cannot be made, or do not fit a tree."""


class Adapter:
    """The base of all kinds: frozen dataclasses that are pytrees of their arrays.

    Arrays in a field called `constants` never learn.
    """

    kind: ClassVar[str]

    def merge(self, weight: Array, shared: Shared) -> Array:
        """The effective weight, computed in float32 and cast back to the dtype of `weight`: what the adapter means."""
        factored = self.factor(weight, shared)
        assert factored is not None, f"{type(self).__name__} needs a merge of its own"
        return factored.dense()

    def factor(self, weight: Array, shared: Shared) -> Factored | None:
        """The same weight in factors; None if it has none, and must be merged."""
        return None
