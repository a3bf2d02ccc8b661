"""Writers of small files in formats that the readers of tljax must understand."""

import gzip
import struct
import types
from pathlib import Path

import numpy as np
import pytest

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 5, 4), np.uint8)
LABELS = np.tile(np.arange(3, dtype=np.uint8), 4)


def _idx(array: np.ndarray, code: int = 8) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.tobytes()


def _write_mnist(folder: Path, packed: bool, dot: str = "-") -> Path:
    for part, images, labels in (("train", PIXELS, LABELS), ("t10k", PIXELS[:6] + 1, LABELS[:6])):
        for kind, content in ((f"images{dot}idx3", images), (f"labels{dot}idx1", labels)):
            name = folder / f"{part}-{kind}-ubyte{'.gz' if packed else ''}"
            name.write_bytes(gzip.compress(_idx(content)) if packed else _idx(content))
    return folder


def _save(path: Path, pixels: np.ndarray, **options) -> None:
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.fromarray(pixels).save(path, **options)


def _table(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture
def files() -> types.SimpleNamespace:
    """The writers, and the twelve grey images of three classes that they write."""
    return types.SimpleNamespace(pixels=PIXELS, labels=LABELS, idx=_idx, mnist=_write_mnist, image=_save, table=_table)
