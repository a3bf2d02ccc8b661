"""What a term's functions must give, checked when they are traced: so that a mistake is told by the term's name."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp

from tljax.tree import named_leaves
from tljax.types import Array, TljaxError

TAKEN = ("loss", "grad_norm", "step", "split", "run")
"""What the trainer itself logs."""
_OF = " of the term "


class TermError(TljaxError):
    """A term whose functions give something other than a term's."""


@contextmanager
def named(term: Any, what: str) -> Iterator[None]:
    """Errors that a term's own code raises get a note of which term it is, and what it reads.

    >>> try:
    ...     with named("mine()", "init"):
    ...         {}["target"]
    ... except KeyError as error:
    ...     print(error.__notes__)
    ['in init of the term mine()']
    """
    try:
        yield
    except Exception as error:
        told = any(_OF in note for note in getattr(error, "__notes__", ()))  # by the summand itself
        if not isinstance(error, TljaxError) and not told:
            error.add_note(f"in {what}{_OF}{term}")
        raise


def checked(found: Any, before: Any, term: str) -> tuple[Array, Any, dict[str, Array]]:
    """What `apply` gave, as arrays: a value, the next state, which is to be like the one `before`, and metrics.

    Raises `TermError`.

    >>> value, state, metrics = checked((0.5, (), {"mine": 1}), (), "mine()")
    >>> value.dtype, state, metrics["mine"].dtype
    (dtype('float32'), (), dtype('float32'))
    >>> checked((jnp.ones(3), (), {}), (), "mine()")
    Traceback (most recent call last):
    tljax.objectives.contract.TermError: mine(): the value that apply returns is one float; found float32[3]
    """
    if not isinstance(found, tuple) or len(found) != 3:
        raise TermError(f"{term}: apply returns (value, state, metrics); found {_shown(found)}")
    value, state, metrics = found
    if not isinstance(metrics, Mapping):
        raise TermError(f"{term}: the metrics that apply returns are a dict by name; found {_shown(metrics)}")
    for name in metrics:
        if not isinstance(name, str) or name in TAKEN:
            raise TermError(
                f"{term}: metrics have names, none of those that the trainer logs, {', '.join(TAKEN)}; found {name!r}"
            )
    _check_like(state, before, term)
    numbers = {name: _scalar(metric, f"{term}: the metric {name!r}") for name, metric in metrics.items()}
    return _scalar(value, f"{term}: the value that apply returns", floating=True), state, numbers


def check_params(params: Any, term: str) -> None:
    """Raise `TermError` where what a term owns as parameters cannot learn.

    >>> check_params({"n": jnp.zeros(3, int)}, "mine()")
    Traceback (most recent call last):
    tljax.objectives.contract.TermError: mine(): parameters are floats, as they learn; 'n' is int32[3]: make it state
    """
    for name, leaf in named_leaves(params).items():
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TermError(f"{term}: parameters are floats, as they learn; {name!r} is {_shown(leaf)}: make it state")


def _scalar(value: Any, what: str, *, floating: bool = False) -> Array:
    if isinstance(value, bool | int | float):
        return jnp.float32(value)
    kinds, dtype = (jnp.floating,) if floating else (jnp.number, jnp.bool_), getattr(value, "dtype", None)
    if dtype is None or not any(jnp.issubdtype(dtype, kind) for kind in kinds) or jnp.ndim(value):
        raise TermError(f"{what} is one {'float' if floating else 'number'}; found {_shown(value)}")
    return jnp.asarray(value)


def _check_like(state: Any, before: Any, term: str) -> None:
    """The state keeps its structure, shapes and types from step to step."""
    rule = f"{term}: the state that apply returns is like the one that it got, which init made"
    found, expected = (str(jax.tree.structure(tree)) for tree in (state, before))
    if found != expected:
        raise TermError(f"{rule}; found {found} after {expected}")
    for (name, new), old in zip(named_leaves(state).items(), jax.tree.leaves(before), strict=True):
        if _shown(new) != _shown(old):
            raise TermError(f"{rule}; {name!r} is {_shown(new)} after {_shown(old)}")


def _shown(value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype}{list(value.shape)}"
    return f"{type(value).__name__} {value!r:.60}"
