"""The error of every reader and writer, and the guard that turns what parsers raise into it."""

import contextlib
import os
from collections.abc import Iterator

from tljax.types import TljaxError


class CheckpointError(TljaxError):
    """A weight file that cannot be read or written. The message names the file, what was found, what was expected."""


@contextlib.contextmanager
def guard(path: str | os.PathLike[str], doing: str) -> Iterator[None]:
    """Any failure inside becomes one `CheckpointError` that names `path` and what we were `doing`.

    The parsers below us (zipfile, numpy, torch, tensorstore) answer a damaged file with nearly every exception
    there is, so only the broad net is complete.

    >>> with guard("a.npz", "reading an npz file"):
    ...     raise KeyError("lost")
    Traceback (most recent call last):
    tljax.checkpoints.errors.CheckpointError: a.npz: reading an npz file failed: KeyError: 'lost'
    """
    try:
        yield
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: {doing} failed: {error.strerror or error}") from error
    except Exception as error:
        raise CheckpointError(f"{path}: {doing} failed: {type(error).__name__}: {first_line(error)}") from error


def first_line(error: object, width: int = 300) -> str:
    """The first line of a message, cut to `width` characters.

    >>> first_line(ValueError("short\\nand a long tail"))
    'short'
    """
    lines = str(error).strip().splitlines() or ["no message"]
    return shown(lines[0], width)


def shown(value: object, width: int = 60) -> str:
    """`value` as text that is safe to print and at most `width` characters: for names and numbers out of a file.

    >>> shown("a\\x1b[31mred"), shown("long " * 9, 12)
    ('a\\\\x1b[31mred', 'long lo [...]')
    """
    text = str(value)
    text = text if len(text) <= width else text[: max(width - 5, 1)] + " [...]"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
