"""One call for every kind of data: a built-in name, an `.npz`, MNIST's idx files, a folder of images, a CSV or TSV."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tljax.data.arrays import Dataset, require_every_class
from tljax.data.builtin import BUILT_IN
from tljax.data.error import DataError
from tljax.data.files import Raw, missing, reading, siblings
from tljax.data.folder import SUFFIXES, read_folder
from tljax.data.idx import find_idx, is_idx, read_idx
from tljax.data.images import resize_images
from tljax.data.labels import Reading, read_labels
from tljax.data.npz import read_npz
from tljax.data.splits import stratified_split
from tljax.data.table import columns_called, is_table, read_table
from tljax.tree.paths import nearest, quoted


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A data set by its parts; all have the same classes and examples of the same shape."""

    name: str
    train: Dataset
    test: Dataset
    valid: Dataset | None = None
    """The validation part, where the files have one."""
    notes: tuple[str, ...] = ()
    """What was decided in reading, each a sentence for a person: a split, a resize, labels read as classes."""
    features: tuple[str, ...] = ()
    """The names of the columns that examples are made of, where a table has them."""

    def map(self, function: Callable[[Dataset], Dataset]) -> "Source":
        """The source with `function` applied to every part.

        >>> load("digits").map(lambda part: part.only("0-4")).train.classes
        ('0', '1', '2', '3', '4')
        """
        valid = None if self.valid is None else function(self.valid)
        return dataclasses.replace(self, train=function(self.train), test=function(self.test), valid=valid)

    def describe(self) -> str:
        """The parts and the notes, a line each.

        >>> print(load("diabetes").describe())
        diabetes train: 354 examples of 10, 1 target (31 to 341)
        diabetes test: 88 examples of 10, 1 target (25 to 346)
          labels are regression targets
          test part: 20 % of the examples, held out with seed 0
        """
        parts = [part.describe() for part in (self.train, self.valid, self.test) if part is not None]
        return "\n".join(parts + [f"  {note}" for note in self.notes])


def load(
    spec: str | Path,
    *,
    label: str | int | None = None,
    size: int | tuple[int, int] | None = None,
    prepare: Callable[[Any], np.ndarray] | None = None,
    task: Reading | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Source:
    """The data set that `spec` names, with a test part.

    `spec` is a name in `BUILT_IN`, or the path of: an `.npz` file (`#name` behind it chooses the pair `name_x`,
    `name_y`), an idx file of images or the folder of idx files, a folder of images by class, a `.csv` or `.tsv` file
    (`.gz` too). Where the data has no test part of its own (in the file, or beside it: `mnist_train.npz`,
    `mnist_test.npz`), one is held out, stratified by class. Images become `[N, H, W, C]`, and uint8 pixels float32 in
    0 .. 1.

    Args:
      spec: what to load.
      label: the column of labels in a table: a name, or a number from 0.
      size: images are resized to this height and width.
      prepare: makes of an image, from Pillow or uint8, the array that a model takes, as a `Preprocessor` does; nothing
        else is done to images then.
      task: how to read labels: `"classification"` or `"regression"`; by default they are looked at.
      test_fraction: the share of the test part, where one has to be held out.
      seed: of that split. Keep it, or results on the test part do not compare.

    Raises:
      DataError: nothing is there, it cannot be read, or it holds what cannot be used.

    >>> source = load("digits")
    >>> source.train.x.shape, source.test.x.shape, source.train.outputs
    ((1438, 8, 8, 1), (359, 8, 8, 1), 10)
    """
    shape = two_sides(size)
    if not 0 < test_fraction < 1:
        raise DataError(f"test_fraction must lie between 0 and 1; found {test_fraction}")
    name, raw = _read(str(spec), label, shape, prepare)
    parts, note = _parts(name, raw, shape, task)
    if len(parts["train"].classes) == 1:
        raise DataError(f"data set {name!r} has a single class, {parts['train'].classes[0]!r}: nothing to learn")
    notes = [*raw.notes, *([note] if note else [])]
    if "test" not in parts:
        parts["train"], parts["test"] = _hold_out(parts["train"], name, test_fraction, seed)
        kind = ", stratified" if parts["train"].task == "classes" else ""
        notes.append(f"test part: {100 * test_fraction:g} % of the examples, held out{kind} with seed {seed}")
    if parts["train"].task == "classes":
        require_every_class(parts["train"])
    return Source(name, parts["train"], parts["test"], parts.get("valid"), tuple(notes), raw.features)


def load_whole(
    spec: str | Path,
    *,
    label: str | int | None = None,
    size: int | tuple[int, int] | None = None,
    prepare: Callable[[Any], np.ndarray] | None = None,
    task: Reading | None = None,
    features: Sequence[str] = (),
) -> Dataset:
    """All examples that `spec` names as one data set, whatever part they stand in: to evaluate on, not to train.

    Nothing is held out, and there may be few examples, or of one class only.

    Args:
      spec, label, size, prepare, task: as for `load`.
      features: of a table with a header these columns are read, in this order.

    Raises:
      DataError: as `load`, or a table lacks one of `features`.

    >>> load_whole("digits").x.shape
    (1797, 8, 8, 1)
    """
    name, raw = _read(str(spec), label, two_sides(size), prepare)
    if features and raw.features:
        kept = columns_called(features, raw.features, f"data set {name!r}")
        raw = raw._replace(x={part: x[:, kept] for part, x in raw.x.items()})
    parts = list(_parts(name, raw, two_sides(size), task)[0].values())
    x, y = (np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "y"))
    return Dataset(x, y, parts[0].classes, name)


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
    pixels = x if x.dtype == np.uint8 else np.rint(255 * x.astype(np.float64)).clip(0, 255).astype(np.uint8)
    return prepare(pixels[..., None] if x.ndim == 3 else pixels)


def _read(spec: str, label: str | int | None, size: tuple[int, int] | None, prepare: Any) -> tuple[str, Raw]:
    """The name and the raw parts of what `spec` says, its images made into arrays by `prepare`."""
    name, raw = _raw(spec, label, size, prepare)
    if prepare is not None and not raw.prepared:
        raw = raw._replace(x={part: prepared_images(x, name, prepare) for part, x in raw.x.items()})
    return name, raw


def _raw(spec: str, label: str | int | None, size: tuple[int, int] | None, prepare: Any) -> tuple[str, Raw]:
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
        return name, _with_siblings(path, lambda file: read_table(file, label))
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


def _parts(name: str, raw: Raw, size: tuple[int, int] | None, task: Reading | None) -> tuple[dict[str, Dataset], str]:
    """The data sets by part, and how their labels were read."""
    labels = read_labels(raw.y, classes=raw.classes, task=task, where=f"data set {name!r}")
    parts = {
        split: Dataset(as_inputs(x, name), labels.y[split], labels.classes, f"{name} {split}")
        for split, x in raw.x.items()
    }
    if size is not None:
        parts = {split: dataclasses.replace(part, x=resize_images(part.x, size)) for split, part in parts.items()}
    _check_shapes(parts)
    return parts, labels.note


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


def _hold_out(whole: Dataset, name: str, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    train, test = stratified_split(whole.y, (1 - fraction, fraction), seed=seed, classes=whole.classes)
    return whole.take(train, f"{name} train"), whole.take(test, f"{name} test")


def _check_shapes(parts: dict[str, Dataset]) -> None:
    train = parts["train"]
    for part in parts.values():
        if part.x.shape[1:] != train.x.shape[1:]:
            raise DataError(
                f"{part.name!r} holds examples of {list(part.x.shape[1:])}, {train.name!r} of "
                f"{list(train.x.shape[1:])}; they must be alike"
            )
