"""What an array must be to stand in a data set; each function returns it in the dtype it is kept in, or raises."""

from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np

from tljax.data.error import DataError

MOST_CLASSES = 1_000_000
"""Larger labels are a mistake, and a name for each would fill the memory."""


def array(value: object, letter: str, where: str) -> np.ndarray:
    """`value` as a NumPy array; raises where it cannot be one, or holds objects."""
    try:
        array = np.asarray(value)
    except ValueError as error:  # NumPy refuses nested lists of different lengths
        raise DataError(f"{where}: {letter} is no rectangular array: {error}") from error
    if not (array.dtype.kind in "fiub" or jnp.issubdtype(array.dtype, jnp.floating)):
        raise DataError(f"{where}: {letter} must hold numbers; found dtype {array.dtype}")
    if array.ndim == 0:
        raise DataError(f"{where}: {letter} must be an array with the examples on its first axis; found a scalar")
    return array


def inputs(x: np.ndarray, where: str) -> np.ndarray:
    """`x` in the dtype of inputs: float32, or int32 for codes; uint8 is divided by 255."""
    if x.dtype == np.uint8:
        return np.divide(x, np.float32(255), dtype=np.float32)
    if x.dtype.kind in "iu":
        info = np.iinfo(np.int32)
        if x.min() < info.min or x.max() > info.max:
            raise DataError(f"{where}: x holds integers from {x.min()} to {x.max()}, which do not fit into int32")
        return x.astype(np.int32, copy=False)
    return finite_floats(x, "x", where)


def finite_floats(array: np.ndarray, letter: str, where: str) -> np.ndarray:
    """`values` as float32; raises where one is NaN, infinite or too large."""
    with np.errstate(all="ignore"):
        floats = array.astype(np.float32, copy=False)
        if np.isfinite(floats.sum()):  # one pass without a temporary; NaN and inf never sum to a finite number
            return floats
    wrong = np.argwhere(~np.isfinite(floats))
    if len(wrong):
        first = tuple(int(i) for i in wrong[0])
        n = f"{len(wrong)} values of {letter} are" if len(wrong) > 1 else f"1 value of {letter} is"
        raise DataError(
            f"{where}: {n} not finite in float32; the first is {array[first]} at {letter}{list(first)}. "
            "Remove or fill them"
        )
    return floats


def class_names(classes: Iterable[str] | None, y: np.ndarray, where: str) -> tuple[str, ...]:
    """The names of the classes, given or inferred from `y`; () in a regression."""
    if classes is None:
        if y.ndim != 1 or y.dtype.kind not in "iub":
            return ()
        most = max(int(y.max()), 0)
        if most > MOST_CLASSES:
            raise DataError(f"{where}: the largest label is {most}; is y a class? For regression give classes=()")
        return tuple(map(str, range(most + 1)))
    if isinstance(classes, str):
        raise DataError(f"{where}: classes must be a list of names; found the text {classes!r}")
    names = tuple(map(str, classes))
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise DataError(f"{where}: two classes are called {twice[0]!r}; a name must tell them apart")
    return names


def labels(y: np.ndarray, classes: tuple[str, ...], where: str) -> np.ndarray:
    """Classes `[N]` int32, or soft or multiple labels `[N, C]` float32."""
    c = len(classes)
    if y.ndim == 1:
        if y.dtype.kind not in "iub":
            y = _whole(finite_floats(y, "y", where), where)
        wrong, what = np.argwhere((y < 0) | (y >= c)), f"lies outside 0 .. {c - 1} ({c} classes)"
    elif y.ndim == 2 and y.shape[1] == c:
        y = finite_floats(y, "y", where)
        wrong, what = (
            np.argwhere((y < 0) | (y > 1)),
            "lies outside 0 .. 1, where soft and multiple labels are",
        )
    else:
        raise DataError(
            f"{where}: with {c} classes y must be [N] integers or [N, {c}] labels in 0 .. 1; found {list(y.shape)}"
        )
    if len(wrong):
        first = tuple(int(i) for i in wrong[0])
        n = f"{len(wrong)} labels {what.replace('lies', 'lie')}" if len(wrong) > 1 else f"1 label {what}"
        raise DataError(f"{where}: {n}; the first is {y[first]} at y{list(first)}")
    return y.astype(np.int32 if y.ndim == 1 else np.float32, copy=False)


def _whole(y: np.ndarray, where: str) -> np.ndarray:
    wrong = np.flatnonzero(y != np.round(y))
    if wrong.size:
        raise DataError(
            f"{where}: a class must be an integer; y[{wrong[0]}] is {y[wrong[0]]}. For regression give classes=()"
        )
    return y


def targets(y: np.ndarray, where: str) -> np.ndarray:
    """`y` as regression targets, float32."""
    if y.ndim > 2:
        raise DataError(f"{where}: y must be [N] or [N, K]; found {list(y.shape)}")
    return finite_floats(y, "y", where)
