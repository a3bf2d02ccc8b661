"""What the readers share: the raw parts of a data set, and files that are missing or damaged."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tljax.data import checks
from tljax.data.error import DataError
from tljax.tree.paths import nearest, quoted

SPLIT_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev"),
    "test": ("test", "testing", "t10k"),
}
"""How files call the parts of a data set."""


class Raw(NamedTuple):
    """A data set as a file holds it, before labels are understood."""

    x: dict[str, np.ndarray]
    """By part: `"train"` always, `"valid"` and `"test"` where the file has them."""
    y: dict[str, np.ndarray]
    """By part: numbers, or text `[N]`."""
    classes: tuple[str, ...] | None = None
    """The names of the classes, where the file says them."""
    notes: tuple[str, ...] = ()
    """What was decided on the way, each a sentence for a person."""
    features: tuple[str, ...] = ()
    """The names of the features, where the file says them."""
    prepared: bool = False
    """Whether the images are as a model takes them, so that nothing is to be done to them any more."""


class Inputs(NamedTuple):
    """Examples as files hold them, without labels."""

    x: np.ndarray
    """`[N, ...]`."""
    names: tuple[str, ...]
    """What each example is called: a file, a row of a table or an array."""
    notes: tuple[str, ...] = ()
    prepared: bool = False
    """As of `Raw`."""


def joined(parts: Sequence[np.ndarray], where: str) -> np.ndarray:
    """The examples of several parts one after the other; pixels of uint8 beside floats are brought to 0..1 first.

    Raises:
      DataError: a part is a single number, or examples have several shapes.

    >>> joined([np.array([[255]], np.uint8), np.array([[0.5]])], "a.npz").tolist()
    [[1.0], [0.5]]
    """
    if any(part.ndim == 0 for part in parts):
        raise DataError(f"{where} holds a single number where examples should be")
    shapes = [list(part.shape[1:]) for part in parts]
    if any(shape != shapes[0] for shape in shapes):
        raise DataError(f"{where} holds examples of several shapes: {shapes}")
    if len({part.dtype == np.uint8 for part in parts}) > 1:
        parts = [checks.inputs(part, where) for part in parts]
    return np.concatenate(parts)


@contextlib.contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turns whatever a decoder raises on a damaged file into one `DataError`.

    >>> with reading(Path("a.npz"), "npz file"):
    ...     raise EOFError("empty")
    Traceback (most recent call last):
        ...
    tljax.data.error.DataError: cannot read 'a.npz': it is no sound npz file, truncated or damaged (EOFError: empty)
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # on damaged bytes decoders raise zlib.error, struct.error, KeyError ...
        if isinstance(error, OSError) and error.strerror:  # the system's own: no permission, name too long ...
            raise DataError(f"cannot read '{path}': {error.strerror}") from error
        fault = "truncated or damaged" + (", or not in UTF-8" if isinstance(error, UnicodeDecodeError) else "")
        raise DataError(
            f"cannot read '{path}': it is no sound {kind}, {fault} ({type(error).__name__}: {error})"
        ) from error


def missing(path: Path) -> DataError:
    """The error for a file that is not there, with the nearest names beside it."""
    folder = path.parent
    while not folder.is_dir():
        folder, path = folder.parent, folder
    names = sorted(name for name in _entries(folder) if not name.startswith("."))
    near = nearest(path.name, names) or names[:3]
    holds = f"the nearest there: {quoted(near)}" if near else "nothing can be seen there"
    return DataError(f"no file or folder '{path}'; {holds}")


def siblings(path: Path) -> dict[str, Path]:
    """The files of the other parts beside a file with "train" in its name: `{"test": ..., "valid": ...}`.

    >>> siblings(Path("nowhere/mnist_train.npz"))
    {}
    """
    there = {name.lower(): name for name in _entries(path.parent)}
    own, found = path.name.lower(), {}
    for part in ("test", "valid"):
        for old, new in ((old, new) for old in SPLIT_NAMES["train"] for new in SPLIT_NAMES[part]):
            # the whole word, in the last place where it stands
            name = re.sub(rf"(.*)(?<![a-z]){old}(?![a-z])", rf"\g<1>{new}", own)
            if name != own and name in there and part not in found:
                found[part] = path.with_name(there[name])
    return found


def _entries(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError:
        return []
