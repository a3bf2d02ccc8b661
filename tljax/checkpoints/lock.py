"""A folder that one process writes to at a time."""

import os
import pathlib


class FolderLock:
    """A lock on `folder` that the system releases when its holder ends, however it ends.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first, second = FolderLock(pathlib.Path(folder)), FolderLock(pathlib.Path(folder))
    ...     print(first.acquire(), second.acquire(), first.release(), second.acquire(), second.release())
    True False None True None
    """

    def __init__(self, folder: pathlib.Path):
        self._file, self._handle = folder / ".lock", -1

    def acquire(self) -> bool:
        """Take the lock; False when another holds it. Where the system has no such locks, True."""
        try:
            import fcntl
        except ImportError:  # Windows
            return True
        self._handle = os.open(self._file, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            return False
        except OSError:  # a file system without locks
            return True
        return True

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
