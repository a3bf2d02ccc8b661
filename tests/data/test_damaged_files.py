"""Every format cut at several points, and with flipped bytes: one error that names the file."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tljax.data import DataError, load


def _csv(files: SimpleNamespace, path: Path) -> Path:
    text = "".join(f"{a},{b},{c}\n" for (a, b), c in zip(np.random.default_rng(0).random((60, 2)), list("pqr") * 20))
    return files.table(path, text)


def _images(files: SimpleNamespace, folder: Path, suffix: str) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a/1", "a/2", "b/1", "b/2"):
        files.image(folder / f"{name}.{suffix}", rng.integers(0, 256, (32, 32, 3), np.uint8))
    return folder


def _npz(files: SimpleNamespace, path: Path, save: Callable) -> Path:
    save(path, x=files.pixels, y=files.labels)
    return path


# How to write a data set into a folder, and the file in it to damage.
FORMATS: dict[str, tuple[Callable[[SimpleNamespace, Path], Path], str]] = {
    "npz": (lambda files, folder: _npz(files, folder / "a.npz", np.savez_compressed), "a.npz"),
    "npz, stored": (lambda files, folder: _npz(files, folder / "a.npz", np.savez), "a.npz"),
    "idx": (lambda files, folder: files.mnist(folder, False), "train-images-idx3-ubyte"),
    "idx labels": (lambda files, folder: files.mnist(folder, False), "t10k-labels-idx1-ubyte"),
    "idx.gz": (lambda files, folder: files.mnist(folder, True), "train-images-idx3-ubyte.gz"),
    "csv.gz": (lambda files, folder: _csv(files, folder / "a.csv.gz"), "a.csv.gz"),
    "png": (lambda files, folder: _images(files, folder, "png"), "b/1.png"),
    "jpg": (lambda files, folder: _images(files, folder, "jpg"), "b/1.jpg"),
    "bmp": (lambda files, folder: _images(files, folder, "bmp"), "b/1.bmp"),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_file_is_named_wherever_it_ends(files: SimpleNamespace, tmp_path: Path, kind: str) -> None:
    write, name = FORMATS[kind]
    spec, damaged = write(files, tmp_path), tmp_path / name
    load(spec)
    whole = damaged.read_bytes()
    # A picture may lack its end mark when all of its pixels are there.
    end = len(whole) - (60 if damaged.suffix in (".png", ".jpg") else 1)
    for part in (0, 1, 3, 7, 20, len(whole) // 3, len(whole) // 2, int(len(whole) * 0.9), end):
        damaged.write_bytes(whole[: min(part, end)])
        with pytest.raises(DataError) as caught:
            load(spec)
        assert damaged.name in str(caught.value), part
        assert "\n" not in str(caught.value)
    damaged.write_bytes(whole)
    load(spec)


@pytest.mark.parametrize("kind", ["npz", "npz, stored", "idx.gz", "csv.gz", "png"])
def test_a_flipped_byte_is_seen_where_the_format_has_checksums(
    files: SimpleNamespace, tmp_path: Path, kind: str
) -> None:
    write, name = FORMATS[kind]
    spec, damaged = write(files, tmp_path), tmp_path / name
    whole = bytearray(damaged.read_bytes())
    for at in range(len(whole) // 3, len(whole) // 3 + 20):
        changed = whole.copy()
        changed[at] ^= 0x55
        damaged.write_bytes(changed)
        with pytest.raises(DataError, match=damaged.name):
            load(spec)


@pytest.mark.parametrize(
    ("cut", "words"), [(2, "line 30 has no label in column 2"), (3, "line 30 has 2 cells, the first has 3")]
)
def test_a_plain_table_cut_within_a_row(files: SimpleNamespace, tmp_path: Path, cut: int, words: str) -> None:
    text = "".join(f"{i},{i + 1},{'pq'[i % 2]}\n" for i in range(30))
    with pytest.raises(DataError, match=rf"a.csv': {words}"):
        load(files.table(tmp_path / "a.csv", text[:-cut]))
