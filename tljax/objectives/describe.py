"""Descriptions of terms: the call that made them, as in the source."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tljax.objectives.contract import TermError
from tljax.types import Model


def describe(maker: Callable[..., Any], *names: str, **options: Any) -> str:
    """The call of `maker` with the `options` that differ from its defaults; `names` are positional arguments.

    Raises `TermError` for an option that is a number and not finite.

    >>> def huber(*, delta=1.0, stream="train"): ...
    >>> describe(huber, delta=1.0, stream="train"), describe(huber, delta=0.5, stream="target")
    ('huber()', "huber(delta=0.5, stream='target')")
    """
    defaults = inspect.signature(maker).parameters
    given = [f"{name}={_short(value)}" for name, value in options.items() if not _same(value, defaults[name].default)]
    text = f"{maker.__name__}({', '.join([*names, *given])})"
    for name, value in options.items():
        if isinstance(value, int | float | np.generic) and not np.isfinite(value):
            raise TermError(f"{text}: {name} should be a finite number; found {value}")
    return text


def factor_text(factor: Any) -> str:
    """What a term is multiplied by, as text; raises `TypeError` for what is neither a finite number nor a schedule.

    >>> factor_text(0.5), factor_text(np.float32(0.1))
    ('0.5', '0.1')
    """
    if isinstance(factor, jax.core.Tracer):
        return "weight"
    if isinstance(factor, int | float | np.generic | np.ndarray | jax.Array) and not np.all(np.isfinite(factor)):
        raise TypeError(f"a term is scaled by a finite number or a schedule; found {factor}")
    if isinstance(factor, int | float) and not isinstance(factor, np.generic):
        return repr(factor)
    if isinstance(factor, np.generic | np.ndarray | jax.Array) and np.ndim(factor) == 0:
        return f"{float(factor):g}"
    if callable(factor):
        return getattr(factor, "__name__", type(factor).__name__)
    raise TypeError(
        "a term is scaled by a number or a schedule (a function of the step); "
        f"found {type(factor).__name__}: {factor!s:.60}"
    )


def _same(value: Any, default: Any) -> bool:
    if value is default or value is None or default is None:
        return value is default
    return isinstance(value, int | float | str | tuple) and value == default


def _short(value: Any) -> str:
    if isinstance(value, jax.core.Tracer):
        return "traced"
    if isinstance(value, Model):
        return value.name
    if isinstance(value, tuple) and any(hasattr(part, "_fields") for part in (value, *value)):
        return repr(value)
    if isinstance(value, list | tuple) and any(isinstance(part, list | tuple) for part in value):
        return repr(value)
    if isinstance(value, list | tuple) or hasattr(value, "shape"):
        flat = np.asarray(value).ravel().tolist()
        shown = [f"{x:.4g}" if isinstance(x, float) else str(x) for x in flat[:4]]
        return f"[{', '.join(shown)}{', ...' if len(flat) > 4 else ''}]"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):  # a Flax module
        return _call(value)
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    return repr(value)


def _call(module: Any) -> str:
    fields = [f for f in dataclasses.fields(module) if f.name not in ("parent", "name")]
    given = {f.name: getattr(module, f.name) for f in fields if not _same(getattr(module, f.name, None), f.default)}
    return f"{type(module).__name__}({', '.join(f'{name}={_short(value)}' for name, value in given.items())})"
