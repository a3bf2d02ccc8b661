"""One call for every kind of data: a built-in name, an `.npz`, MNIST's idx files, a folder of images, a CSV or TSV."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tljax.data.arrays import Dataset, require_every_class
from tljax.data.error import DataError
from tljax.data.files import Raw
from tljax.data.images import resize_images
from tljax.data.labels import Reading, read_labels
from tljax.data.raw import as_inputs, read_raw, two_sides
from tljax.data.splits import stratified_split


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
    features: Sequence[str] = (),
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
      features: of a table with a header these columns are read, in this order, and others left out.
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
    name, raw = read_raw(str(spec), label, shape, prepare, features)
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

    Nothing is held out, and there may be few examples, or of one class only. Few labels do not tell whether they are
    classes or numbers: give the `task` where it is known.

    Args:
      spec, label, size, prepare, task, features: as for `load`.

    Raises:
      DataError: as `load`.

    >>> load_whole("digits").x.shape
    (1797, 8, 8, 1)
    """
    name, raw = read_raw(str(spec), label, two_sides(size), prepare, features)
    parts = list(_parts(name, raw, two_sides(size), task)[0].values())
    x, y = (np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "y"))
    return Dataset(x, y, parts[0].classes, name)


def _parts(name: str, raw: Raw, size: tuple[int, int] | None, task: Reading | None) -> tuple[dict[str, Dataset], str]:
    """The data sets by part, and how their labels were read."""
    where = f"data set {name!r}"
    labels = read_labels(raw.y, classes=raw.classes, task=task, where=where)
    parts = {
        split: Dataset(as_inputs(x, name), labels.y[split], labels.classes, f"{name} {split}")
        for split, x in raw.x.items()
    }
    if size is not None:
        resized = {split: resize_images(part.x, size, where=where) for split, part in parts.items()}
        parts = {split: dataclasses.replace(part, x=resized[split]) for split, part in parts.items()}
    _check_shapes(parts)
    return parts, labels.note


def _hold_out(whole: Dataset, name: str, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    train, test = stratified_split(whole.y, (1 - fraction, fraction), seed=seed, classes=whole.classes, name=name)
    return whole.take(train, f"{name} train"), whole.take(test, f"{name} test")


def _check_shapes(parts: dict[str, Dataset]) -> None:
    train = parts["train"]
    for part in parts.values():
        if part.x.shape[1:] != train.x.shape[1:]:
            raise DataError(
                f"{part.name!r} holds examples of {list(part.x.shape[1:])}, {train.name!r} of "
                f"{list(train.x.shape[1:])}; they must be alike"
            )
