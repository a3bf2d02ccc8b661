"""Which format a file has: its first bytes decide; its suffix only tells what to expect."""

import os
import pathlib
import zipfile
from collections.abc import Mapping

from tljax.checkpoints.errors import CheckpointError, guard, shown
from tljax.checkpoints.torch import MAGIC as TORCH_MAGIC

SUFFIXES: Mapping[str, str] = {
    ".safetensors": "safetensors",
    ".npz": "npz",
    ".msgpack": "msgpack",
    ".flax": "msgpack",
    ".orbax": "orbax",
    ".pt": "torch",
    ".pth": "torch",
    ".bin": "torch",
    ".th": "torch",
    ".tar": "torch",
    ".ckpt": "torch",
}
"""The format that a suffix promises."""

_FOREIGN: Mapping[bytes, str] = {
    b"\x93NUMPY": "a single .npy array without a name; expected an .npz of named arrays",
    b"\x89HDF": "HDF5 (Keras); save it from Keras as .npz or safetensors",
    b"GGUF": "GGUF, quantised for llama.cpp; take the safetensors of the same model",
    b"version https://git-lfs": "a Git LFS pointer, not the weights themselves; run git lfs pull where it was cloned",
    b"<!DOCTYPE": "a web page; the download failed or asked for a login",
    b"<html": "a web page; the download failed or asked for a login",
    b"\x1f\x8b": "gzip; unpack it first",
    b"\x08\x00\x00\x00TFL3": "a TensorFlow Lite program",
}


def detect(path: pathlib.Path) -> str:
    """The format of the file at `path`: "safetensors", "npz", "msgpack" or "torch".

    Raises `CheckpointError`, with what the file seems to be, when it is none of these.
    """
    with guard(path, "opening"), open(path, "rb") as file:
        head = file.read(512)
        size = os.fstat(file.fileno()).st_size
    if not head:
        raise CheckpointError(f"{path}: the file is empty")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_format(path)
    if head.startswith(TORCH_MAGIC):
        return "torch"
    # Before the others, since any bytes may begin the length that comes first.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return "safetensors"
    for magic, kind in _FOREIGN.items():
        if head.startswith(magic):
            raise CheckpointError(f"{path} is {kind}")
    if head[257:262] == b"ustar":
        raise CheckpointError(
            f"{path} is a tar archive (as torch made before 2017); unpack it, or save it again with torch.save"
        )
    if head[0] == 0x80 and len(head) > 1 and head[1] <= 5:
        raise CheckpointError(f"{path} is a bare pickle, which could run code and is never read; expected torch.save's")
    if 0x81 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF):
        return "msgpack"
    return _promised(path, head)


def _promised(path: pathlib.Path, head: bytes) -> str:
    """The format that the suffix names: its reader will say what is wrong with the file."""
    promised = SUFFIXES.get(path.suffix.lower())
    if promised == "safetensors":
        return promised
    known = "safetensors, npz, flax msgpack or torch"
    raise CheckpointError(f"{path} begins with {shown(repr(head[:12]))}; expected {known}")


def _zip_format(path: pathlib.Path) -> str:
    with guard(path, "reading the zip archive"), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return "torch"
    if any(name.endswith(".npy") for name in names) or not names:
        return "npz"
    raise CheckpointError(
        f"{path} is a zip archive of {shown(', '.join(names))}; expected .npy arrays or torch's data.pkl"
    )


def mismatch(path: pathlib.Path, found: str) -> str | None:
    """A sentence when the suffix of `path` promises another format than the one `found`.

    >>> mismatch(pathlib.Path("model.bin"), "safetensors")
    'the suffix .bin promises torch; the content is safetensors'
    """
    promised = SUFFIXES.get(path.suffix.lower())
    if promised in (None, found):
        return None
    return f"the suffix {path.suffix} promises {promised}; the content is {found}"
