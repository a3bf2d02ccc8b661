"""What losses ask of the shapes of their arguments, and terms of their options."""

from typing import Any

import jax
import jax.numpy as jnp

from tljax.objectives.stream import LabelError


def fitting(loss: str, **arrays: tuple[Any, str]) -> None:
    """Raises `LabelError` unless every array has the axes that are named for it, and a name one length throughout.

    The classes, "C", are 2 or more: the softmax of one logit is 1, whatever that is.

    >>> fitting("agreement", first=(jnp.ones((2, 3)), "B C"), second=(jnp.ones((2, 4)), "B C"))
    Traceback (most recent call last):
    tljax.objectives.stream.LabelError: agreement needs first [B, C] and second [B, C]; found [2, 3] and [2, 4]
    """
    lengths: dict[str, int] = {}
    for array, axes in arrays.values():
        names, shape = axes.split(), jnp.shape(array)
        matched = len(names) == len(shape) and all(lengths.setdefault(n, size) == size for n, size in zip(names, shape))
        if not matched or lengths.get("C", 2) < 2:
            needed = " and ".join(f"{name} [{axes.replace(' ', ', ')}]" for name, (_, axes) in arrays.items())
            found = " and ".join(str(list(jnp.shape(array))) for array, _ in arrays.values())
            classes = "" if lengths.get("C", 2) > 1 else ", C 2 or more"
            raise LabelError(f"{loss} needs {needed}{classes}; found {found}")


def above_zero(term: str, **options: float) -> None:
    """Raises `LabelError`, naming the term, for an option that is not above 0; of one that is traced nobody knows.

    >>> above_zero("mcc()", temperature=0)
    Traceback (most recent call last):
    tljax.objectives.stream.LabelError: mcc(): temperature=0; expected a number above 0
    """
    for name, value in options.items():
        if not isinstance(value, jax.core.Tracer) and not value > 0:
            raise LabelError(f"{term}: {name}={value!r}; expected a number above 0")


def not_below_zero(term: str, **options: float) -> None:
    """Raises `LabelError`, naming the term, for an option below 0, which would turn a part of it round.

    >>> not_below_zero("mcd()", weight=-1)
    Traceback (most recent call last):
    tljax.objectives.stream.LabelError: mcd(): weight=-1; expected 0 or more
    """
    for name, value in options.items():
        if not isinstance(value, jax.core.Tracer) and not value >= 0:
            raise LabelError(f"{term}: {name}={value!r}; expected 0 or more")
