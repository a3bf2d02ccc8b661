"""A resize rule makes a leaf of the source fit a target leaf of another shape or another order."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tljax.tree.paths import dtype_of
from tljax.types import TljaxError

Apply = Callable[[str, Any, Any], Any]


class ResizeError(TljaxError):
    """A leaf that a rule cannot resize."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """A resize rule: ``rule(name, source, target) -> array``, in the end in the shape of `target`.

    `source` is an array; `target` is the leaf to be replaced, maybe abstract, and also what new rows keep.
    Any function of these three will do as a rule; this class adds what the report prints.

    >>> transpose = Rule("transpose", lambda name, source, target: source.T)
    >>> transpose("head/kernel", np.ones((2, 3)), np.zeros((3, 2))).shape, str(transpose)
    ((3, 2), 'transpose')
    """

    name: str
    apply: Apply
    detail: str = ""
    reorders: bool = True
    """Whether the rule has work to do on a leaf whose shape fits already."""

    def __call__(self, name: str, source: Any, target: Any) -> Any:
        return self.apply(name, source, target)

    def __str__(self) -> str:
        return f"{self.name} ({self.detail})" if self.detail else self.name


def shape_text(leaf: Any) -> str:
    """The shape of `leaf`, as in messages.

    >>> shape_text(np.zeros((3, 2)))
    '[3, 2]'
    """
    return str(list(np.shape(leaf)))


def fresh_copy(name: str, target: Any, source: Any, why: str) -> np.ndarray:
    """The target's own values, to write the source's into: in the narrowest dtype that holds both.

    Raises `ResizeError` when the target is abstract, naming `why` its values are needed.
    """
    if isinstance(target, jax.ShapeDtypeStruct):
        raise ResizeError(f"{name}: {why} and keep the target's fresh values, but the target is abstract")
    return np.array(target, dtype=np.promote_types(dtype_of(source), dtype_of(target)))
