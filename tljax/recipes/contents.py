"""What is in the files that settings name: so that results are not taken for those of other data or other code."""

import hashlib
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

WHOLE = 1 << 26
"""Up to so many bytes a file is read whole; of larger ones the size and both ends are."""
_END = 1 << 20


def contents(config: Mapping[str, Any], *, without: pathlib.Path | None = None) -> dict[str, str]:
    """A digest for each file or folder that a value of `config` names, by the value: ``data.npz#part``,
    ``net.py:Net(width=3)`` or a path. Of a folder the names and sizes of its files count, but those in `without`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder) / "net.py"
    ...     _ = file.write_text("one")
    ...     first = contents({"model": f"{file}:Net(width=3)", "steps": 3, "source": "digits"})
    ...     _ = file.write_text("two")
    ...     len(first), first == contents({"model": f"{file}:Net(width=3)"})
    (1, False)
    """
    named = {value: _path(value) for value in _strings(list(config.values()))}
    return {value: _digest(path, without) for value, path in named.items() if path is not None}


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _strings(each)


def _path(value: str) -> pathlib.Path | None:
    for path in (value, value.partition("#")[0], value.partition("(")[0].rpartition(":")[0]):
        try:
            if path and pathlib.Path(path).exists():
                return pathlib.Path(path)
        except (OSError, ValueError):  # no path at all, as what is too long for one
            continue
    return None


def _digest(path: pathlib.Path, without: pathlib.Path | None) -> str:
    try:
        content = _listing(path, without) if path.is_dir() else _bytes(path)
    except OSError:  # who reads it in earnest says so
        return "unreadable"
    return hashlib.sha256(content).hexdigest()[:16]


def _listing(folder: pathlib.Path, without: pathlib.Path | None) -> bytes:
    own = None if without is None else without.resolve()
    files = (f for f in sorted(folder.rglob("*")) if f.is_file() and (own is None or own not in f.resolve().parents))
    return "".join(f"{file.relative_to(folder)} {file.stat().st_size}\n" for file in files).encode()


def _bytes(file: pathlib.Path) -> bytes:
    size = file.stat().st_size
    if size <= WHOLE:
        return file.read_bytes()
    with file.open("rb") as opened:
        start = opened.read(_END)
        opened.seek(-_END, 2)
        return str(size).encode() + start + opened.read()
