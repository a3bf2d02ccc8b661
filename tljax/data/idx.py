"""MNIST's own file format: `train-images-idx3-ubyte`, plain or gzipped, with its labels beside it.

A file is two zero bytes, a byte for the type, a byte for the rank, the lengths of the axes as big-endian
int32, and the values in C order, big-endian.
"""

import gzip
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tljax.data.error import DataError
from tljax.data.files import Inputs, Raw, joined, reading
from tljax.tree.paths import quoted

DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_NAME = re.compile(r"idx\d[-.]ubyte(\.gz)?$")


def is_idx(path: Path) -> bool:
    """Whether a file is called as idx files are.

    >>> [is_idx(Path(name)) for name in ("train-images-idx3-ubyte.gz", "t10k-labels.idx1-ubyte", "a.npz")]
    [True, True, False]
    """
    return bool(_NAME.search(path.name))


def find_idx(folder: Path) -> Path | None:
    """The file of the training images in a folder of idx files; None where there are no idx files.

    Raises:
      DataError: there are several files of images and not one of them alone is for training.
    """
    files = sorted(path for path in folder.iterdir() if is_idx(path))
    if not files:
        return None
    images = _images(files)
    train = [path for path in images if "train" in path.name] or images
    if len(train) != 1:
        names = quoted(path.name for path in train or files)
        what = "several files of images" if train else "no file of images"
        raise DataError(f"'{folder}' holds {what}: {names}. Give the file of the training images")
    return train[0]


def _images(files: Sequence[Path]) -> list[Path]:
    """Those of images; the same file plain and gzipped is one file."""
    images = [path for path in files if "images" in path.name]
    return [path for path in images if path.suffix != ".gz" or path.with_suffix("") not in images]


def read_idx(path: Path) -> Raw:
    """The images of an idx file, and the labels from the file beside it.

    Raises:
      DataError: a file is missing or damaged, or the two do not belong together.
    """
    return Raw({"train": _image_array(path)}, {"train": read_idx_array(_labels_of(path))})


def read_idx_inputs(path: Path) -> Inputs:
    """The images of an idx file, or of all those in a folder, without labels.

    Raises:
      DataError: a file is damaged, there is none of images, or images have several sizes.
    """
    files = _images(sorted(file for file in path.iterdir() if is_idx(file))) if path.is_dir() else [path]
    if not files:
        raise DataError(f"'{path}' holds no idx file of images")
    arrays = [_image_array(file) for file in files]
    x = joined(arrays, f"'{path}'")
    return Inputs(x, tuple(f"{file.name}[{i}]" for file, array in zip(files, arrays) for i in range(len(array))))


def _image_array(path: Path) -> np.ndarray:
    if "images" not in path.name:
        raise DataError(f"'{path}' is no file of images; give the file with 'images' in its name")
    return read_idx_array(path)


def _labels_of(images: Path) -> Path:
    plain = images.name.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz")
    for name in (plain, f"{plain}.gz"):
        if images.with_name(name).is_file():
            return images.with_name(name)
    raise DataError(f"'{images}' has no labels: there is no '{plain}' or '{plain}.gz' beside it")


def read_idx_array(path: Path) -> np.ndarray:
    """The array in one idx file, in the machine's byte order.

    Raises:
      DataError: the first bytes are not those of an idx file, or the size is not what the header says.
    """
    with reading(path, "idx file"):
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            content = file.read()
        if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in DTYPES:
            raise DataError(f"'{path}' is no idx file: it begins with {content[:4].hex(' ') or 'nothing'}")
        dtype, start = np.dtype(DTYPES[content[2]]), 4 + 4 * content[3]
        if len(content) < start:
            raise DataError(f"'{path}' is truncated: it ends within its header of {start} bytes")
        shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
        wanted = start + math.prod(shape) * dtype.itemsize
        if len(content) != wanted:
            what = "truncated" if len(content) < wanted else "damaged"
            raise DataError(
                f"'{path}' is {what}: its header says {shape} {dtype.name}, {wanted} bytes with the header; "
                f"found {len(content)}"
            )
        return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
