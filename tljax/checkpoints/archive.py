"""zip archives from strangers: what is checked before a byte is unpacked.

Nothing is ever unpacked to disk, so a name cannot escape a folder; names that try are refused all the same.
"""

import contextlib
import os
import stat
import zipfile
from collections.abc import Iterator

from tljax.checkpoints.errors import CheckpointError, guard, shown

MAX_EXPANSION = 100
"""How many times its own size an archive may unpack to, once that is more than `FREE_BYTES`. Trained weights
shrink by a tenth; only a bomb, or a file of zeros, by a hundredth."""
FREE_BYTES = 64 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@contextlib.contextmanager
def open_archive(path: os.PathLike[str]) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """The zip file at `path` and its members by name.

    Raises `CheckpointError` for a damaged directory, names given twice or leading out of the archive, encryption,
    unusual compression, and contents out of proportion to the file.
    """
    with guard(path, "reading the zip archive"), zipfile.ZipFile(path) as archive:
        members: dict[str, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            _check_member(info, f"{path}: member {shown(info.filename)!r}")
            if info.filename in members:
                raise CheckpointError(f"{path}: two members are called {shown(info.filename)!r}")
            if not info.is_dir():
                members[info.filename] = info
        check_expansion(sum(info.file_size for info in members.values()), os.stat(path).st_size, path)
        yield archive, members


def check_expansion(unpacked: int, packed: int, path: os.PathLike[str]) -> None:
    """Raise where `packed` bytes on disk claim to hold `unpacked` bytes, and that is beyond belief.

    >>> check_expansion(10**12, 10**6, "a.npz")
    Traceback (most recent call last):
    tljax.checkpoints.errors.CheckpointError: a.npz: 1000000 bytes claim to unpack to 1000000000000; more than 100 \
times is taken for a decompression bomb
    """
    if unpacked > max(FREE_BYTES, MAX_EXPANSION * packed):
        raise CheckpointError(
            f"{path}: {packed} bytes claim to unpack to {unpacked}; more than {MAX_EXPANSION} times is taken for "
            "a decompression bomb"
        )


def _check_member(info: zipfile.ZipInfo, where: str) -> None:
    if info.compress_type not in _METHODS:
        raise CheckpointError(f"{where} has compression method {info.compress_type}; expected stored or deflated")
    if info.flag_bits & 0x1:
        raise CheckpointError(f"{where} is encrypted; expected plain data")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise CheckpointError(f"{where} is a symbolic link; expected plain data")
    parts = info.orig_filename.replace("\\", "/").split("/")
    if ".." in parts or "\0" in info.orig_filename:
        raise CheckpointError(f"{where} leads out of the archive; expected a plain name")
