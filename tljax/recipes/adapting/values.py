"""Whether the values that a person gives options are what a function is annotated to take."""

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

_SAID = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", types.NoneType: "none"}


def require_fitting(function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raises `TypeError` for a value that `function` is not annotated to take, with what it takes.

    >>> def mcc(*, temperature: float = 2.5, rescaled: bool = False, steps: int | None = None): ...
    >>> require_fitting(mcc, {"temperature": 2, "rescaled": True, "steps": None})
    >>> require_fitting(mcc, {"rescaled": "no"})
    Traceback (most recent call last):
    TypeError: rescaled='no'; expected true or false
    """
    parameters = inspect.signature(function).parameters
    for name, value in options.items():
        wanted = parameters[name].annotation
        if not _fits(value, wanted):
            said = " or ".join(_said(wanted)) or "what only Python can give, see tl.fit"
            raise TypeError(f"{name}={value!r}; expected {said}")


def _fits(value: Any, wanted: Any) -> bool:
    kind = get_origin(wanted) or wanted
    if kind in (Union, types.UnionType):
        return any(_fits(value, one) for one in get_args(wanted))
    if kind is Literal:
        return value in get_args(wanted)
    if kind is Callable:
        return callable(value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def _said(wanted: Any) -> list[str]:
    """What can be given for it in an expression."""
    kind = get_origin(wanted) or wanted
    if kind in (Union, types.UnionType):
        return [said for one in get_args(wanted) for said in _said(one)]
    if kind is Literal:
        return [repr(value) for value in get_args(wanted)]
    if kind is Callable:
        return ["a schedule, as warm_up(steps=200)"]
    return [_SAID[kind]] if kind in _SAID else []
