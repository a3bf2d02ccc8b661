"""Files that are there whole or not at all: written beside their place, flushed to the disk, then renamed."""

import contextlib
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator
from typing import BinaryIO

from tljax.checkpoints.errors import guard


@contextlib.contextmanager
def atomic_file(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` when the block ends well, and vanishes when it does not.

    Raises `CheckpointError` when it cannot be written; what stood at `path` is then untouched.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_file(pathlib.Path(folder) / "a.txt") as file:
    ...         _ = file.write(b"whole")
    ...     (pathlib.Path(folder) / "a.txt").read_bytes()
    b'whole'
    """
    part = _beside(path)
    with guard(path, "writing"):
        try:
            with open(part, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
            _sync_folder(path.parent)
        finally:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """The path of a folder to make, which takes the place of `path` when the block ends well.

    A folder cannot replace another in one step: the old one is renamed away first, and comes back should the second
    renaming fail.

    Raises `CheckpointError` when it cannot be written; what stood at `path` is then untouched.
    """
    part, old = _beside(path), _beside(path)
    with guard(path, "writing"):
        try:
            yield part
            if path.exists():
                os.replace(path, old)
            try:
                os.replace(part, path)
            except OSError:
                if old.exists():
                    os.replace(old, path)
                raise
            _sync_folder(path.parent)
        finally:
            for folder in (part, old):
                shutil.rmtree(folder, ignore_errors=True)


def _beside(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def _sync_folder(folder: pathlib.Path) -> None:
    """Make the renaming itself durable, where the system lets a folder be opened."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
