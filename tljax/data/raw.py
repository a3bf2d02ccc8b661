"""From what a person writes to raw parts: which file or folder is meant, and by which reader it is read."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tljax.data.builtin import BUILT_IN
from tljax.data.error import DataError
from tljax.data.files import Raw, missing, reading, siblings
from tljax.data.folder import SUFFIXES, read_folder
from tljax.data.idx import find_idx, is_idx, read_idx
from tljax.data.npz import read_npz
from tljax.data.table import is_table, read_table
from tljax.tree.paths import nearest, quoted


def two_sides(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """A size of images as (height, width); raises `DataError` for what is none.

    >>> two_sides(8)
    (8, 8)
    """
    shape = (size, size) if isinstance(size, int) else size
    if shape is not None and (len(shape) != 2 or min(shape) < 1):
        raise DataError(f"size is a number or (height, width), 1 or more; found {size!r}")
    return shape


def prepared_images(x: np.ndarray, name: str, prepare: Callable[[Any], np.ndarray]) -> np.ndarray:
    """What `prepare` makes of images `[N, H, W]` or `[N, H, W, C]`; raises `DataError` for other arrays."""
    if x.ndim not in (3, 4):
        raise DataError(f"data set {name!r} holds no images to prepare; its x is {list(x.shape)}")
    return prepare(_as_bytes(x[..., None] if x.ndim == 3 else x, name))


def _as_bytes(x: np.ndarray, name: str) -> np.ndarray:
    if x.dtype == np.uint8:
        return x
    low, high = (float(end) for end in (np.min(x, initial=0), np.max(x, initial=0)))
    if not 0 <= low <= high <= 1 + 1e-3:
        raise DataError(
            f"data set {name!r} has images of {x.dtype} from {low:g} to {high:g}; to be prepared as those of the model "
            "they must be bytes (uint8), or numbers from 0 to 1"
        )
    return np.rint(255 * x.astype(np.float64)).clip(0, 255).astype(np.uint8)


def read_raw(
    spec: str,
    label: str | int | None,
    size: tuple[int, int] | None,
    prepare: Callable[[Any], np.ndarray] | None,
    features: Sequence[str] = (),
) -> tuple[str, Raw]:
    """The name and the raw parts of what `spec` says, its images made into arrays by `prepare`; see `load`."""
    name, raw = _raw(spec, label, size, prepare, features)
    if prepare is not None and not raw.prepared:
        raw = raw._replace(x={part: prepared_images(x, name, prepare) for part, x in raw.x.items()})
    return name, raw


def _raw(
    spec: str, label: str | int | None, size: tuple[int, int] | None, prepare: Any, features: Sequence[str]
) -> tuple[str, Raw]:
    if label is not None and spec.strip() and not is_table(Path(spec)):
        raise DataError(f"label={label!r} chooses a column of a table (.csv, .tsv); {spec!r} is none")
    name, path, group = locate(spec)
    if path is None:
        return name, BUILT_IN[spec]()
    if path.is_dir():
        with reading(path, "folder"):
            images = find_idx(path)
            raw = read_folder(path, size, prepare) if images is None else _with_siblings(images, read_idx)
        return name, raw
    if path.suffix.lower() == ".npz":
        return name, _with_siblings(path, read_npz) if group is None else read_npz(path, group)
    if is_table(path):
        return name, _with_siblings(path, lambda file: read_table(file, label, features))
    if is_idx(path):
        return name, _with_siblings(path, read_idx)
    raise no_kind(path, "give the folder above its class folder")


class Place(NamedTuple):
    """Where data are."""

    name: str
    path: Path | None
    """A file or a folder that is there; None for a built-in name."""
    group: str | None
    """Which arrays of an npz file."""


def locate(spec: str) -> Place:
    """What `spec` names.

    Raises:
      DataError: nothing, or what is not there; `#name` behind what is no npz file.

    >>> locate("digits")
    Place(name='digits', path=None, group=None)
    """
    if not spec.strip():
        raise DataError(f"no data set is named; built-in ones: {quoted(BUILT_IN)}")
    if spec in BUILT_IN:
        return Place(spec, None, None)
    path, group = Path(spec).expanduser(), None
    with reading(path, "path"):
        there = path.exists()
        if not there and "#" in spec:
            before, group = spec.rsplit("#", 1)
            path = Path(before).expanduser()
            there = path.exists()
    if group is not None and path.suffix.lower() != ".npz":
        raise DataError(f"'#{group}' chooses arrays of an npz file; '{path}' is none")
    if not there:
        known = f"; built-in data sets: {quoted(nearest(spec, BUILT_IN) or BUILT_IN)}" if path.name == spec else ""
        raise DataError(f"{missing(path)}{known}")
    if path.is_dir():
        return Place(path.resolve().name, path, None)
    name = path.name.split(".")[0]
    return Place(name if group is None else f"{name}#{group}", path, group)


def no_kind(path: Path, advice: str) -> DataError:
    """The error for a file that no reader is for; `advice` is for an image."""
    hint = advice if path.suffix.lower() in SUFFIXES else "convert it"
    return DataError(f"'{path}' is of no kind that is read (.npz, .csv, .tsv, idx, folders of images); {hint}")


def _with_siblings(path: Path, reader: Callable[[Path], Raw]) -> Raw:
    """What is in the file, and in the files of the other parts beside it if it holds one part alone."""
    raw = reader(path)
    others = siblings(path) if set(raw.x) == {"train"} else {}
    for split, other in others.items():
        more = reader(other)
        if set(more.x) != {"train"} or more.classes != raw.classes or more.features != raw.features:
            raise DataError(
                f"'{other}' looks like the {split} part of '{path.name}', but its columns or classes differ"
            )
        raw.x[split], raw.y[split] = more.x["train"], more.y["train"]
        raw = raw._replace(notes=(*raw.notes, f"{split} part: {other.name}"))
    return raw


def as_inputs(x: np.ndarray, name: str) -> np.ndarray:
    """Numbers that are no pixels as floats; a channel axis where `x` is grey images `[N, H, W]`."""
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim == 4 and x.shape[1] in (1, 3, 4) and x.shape[3] > 4:
        raise DataError(
            f"data set {name!r}: images must be [N, H, W, C]; {list(x.shape)} has the channels first. "
            "Write x.transpose(0, 2, 3, 1)"
        )
    return x.astype(np.float32) if x.dtype.kind in "iub" and x.dtype != np.uint8 else x
