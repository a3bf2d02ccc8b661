"""A data set in memory: NumPy arrays that have been checked, and the names of the classes.

A `Dataset` that exists is sound: the checks run when it is made, so nothing after needs to ask again whether labels are
in range or values finite.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from tljax.data import checks
from tljax.data.classes import class_indices
from tljax.data.error import DataError

Task = Literal["classes", "labels", "regression"]


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Examples and their labels, checked when made.

    Raises:
      DataError: when the set is empty, `x` and `y` differ in length, have the wrong rank or hold objects, a value is
        NaN or infinite, or a label is no class.

    >>> data = Dataset(np.zeros((4, 8, 8, 1)), np.array([0, 1, 1, 0]), ("cat", "dog"), "pets")
    >>> data.x.dtype, data.y.dtype, len(data), data.task
    (dtype('float32'), dtype('int32'), 4, 'classes')
    >>> Dataset(np.zeros((2, 3)), np.array([0, 7]), ("cat", "dog"), "pets")
    Traceback (most recent call last):
        ...
    tljax.data.error.DataError: data set 'pets': 1 label lies outside 0 .. 1 (2 classes); the first is 7 at y[1]
    """

    x: np.ndarray
    """Inputs `[N, ...]`: float32, or int32 for codes such as tokens. Images are `[N, H, W, C]`. Given uint8, `x` is
    divided by 255; other floats become float32."""
    y: np.ndarray
    """One of: classes `[N]` int32; soft or multiple labels `[N, C]` float32 in 0 .. 1; regression targets `[N]` or
    `[N, K]` float32."""
    classes: tuple[str, ...] = None  # type: ignore[assignment]  # a tuple as soon as the set is made
    """The names of the C classes; () means regression. By default integers `[N]` are taken for classes `"0"`, `"1"` ...
    and floats for regression."""
    name: str = "data"

    def __post_init__(self) -> None:
        where = f"data set {self.name!r}"
        x, y = checks.array(self.x, "x", where), checks.array(self.y, "y", where)
        if len(x) != len(y):
            raise DataError(f"{where}: x holds {len(x)} examples and y {len(y)} labels; each needs the other")
        if not len(x):
            raise DataError(f"{where} is empty: x is {list(x.shape)}")
        if x.ndim < 2:
            raise DataError(f"{where}: x must be [N, ...] with at least one feature axis; found {list(x.shape)}")
        if 0 in x.shape:
            raise DataError(f"{where}: an example has no values: x is {list(x.shape)}")
        classes = checks.class_names(self.classes, y, where)
        object.__setattr__(self, "x", checks.inputs(x, where))
        object.__setattr__(self, "y", checks.labels(y, classes, where) if classes else checks.targets(y, where))
        object.__setattr__(self, "classes", classes)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def task(self) -> Task:
        """What `y` holds: `"classes"` (one class each), `"labels"` (soft or multiple) or `"regression"`."""
        if not self.classes:
            return "regression"
        return "classes" if self.y.ndim == 1 else "labels"

    @property
    def outputs(self) -> int:
        """How many numbers a model must return per example: the classes, or the regression targets."""
        return len(self.classes) if self.classes else int(np.prod(self.y.shape[1:]))

    def counts(self) -> np.ndarray:
        """Examples per class `[C]` int64; of several labels per example those count that are 0.5 or more.

        >>> Dataset(np.zeros((3, 2)), np.array([0, 2, 2])).counts()
        array([1, 0, 2])
        """
        if self.task == "regression":
            raise DataError(f"data set {self.name!r} is a regression: it has no classes to count")
        if self.task == "labels":
            return (self.y >= 0.5).sum(0)
        return np.bincount(self.y, minlength=self.outputs)

    def take(self, indices: Sequence[int] | np.ndarray, name: str | None = None) -> "Dataset":
        """The examples at `indices`, in that order, with all classes kept.

        >>> Dataset(np.zeros((3, 2)), np.array([0, 2, 1])).take([2, 0]).y
        array([1, 0], dtype=int32)
        """
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
            raise DataError(f"indices must be a list of integers; found {chosen.dtype} {list(chosen.shape)}")
        wrong = np.flatnonzero((chosen < -len(self)) | (chosen >= len(self)))
        if wrong.size:
            raise DataError(f"data set {self.name!r} holds {len(self)} examples; there is none at {chosen[wrong[0]]}")
        chosen = chosen.astype(np.int64)
        return dataclasses.replace(self, x=self.x[chosen], y=self.y[chosen], name=name or self.name)

    def only(self, classes: str | Iterable[str | int]) -> "Dataset":
        """The examples of some classes, which become classes 0, 1 ... in the order given.

        `classes` is `"0-4"`, `"0,2,5"`, names as in `"cat,dog"`, a mixture, or a list of names and numbers; see
        `class_indices`.

        >>> data = Dataset(np.zeros((4, 2)), np.array([0, 1, 2, 1]), ("cat", "dog", "owl"), "pets")
        >>> data.only("owl,dog").y, data.only("1-2").classes
        (array([1, 0, 1], dtype=int32), ('dog', 'owl'))
        """
        if self.task != "classes":
            raise DataError(f"data set {self.name!r} has not one class per example: it holds {self.task}")
        chosen = class_indices(classes, self.classes)
        new = np.full(len(self.classes), -1, np.int32)
        new[chosen] = np.arange(len(chosen), dtype=np.int32)
        kept = np.flatnonzero(new[self.y] >= 0)
        names = tuple(self.classes[i] for i in chosen)
        if not kept.size:
            raise DataError(f"data set {self.name!r} has no example of {', '.join(map(repr, names))}")
        return Dataset(self.x[kept], new[self.y[kept]], names, self.name)

    def describe(self) -> str:
        """The set in one line.

        >>> print(Dataset(np.zeros((4, 8, 8, 1)), np.array([0, 1, 1, 1]), ("cat", "dog"), "pets").describe())
        pets: 4 examples of 8x8x1, 2 classes (1 to 3 each)
        """
        start = f"{self.name}: {len(self):,} examples of {'x'.join(map(str, self.x.shape[1:]))}"
        if self.task == "regression":
            return (
                f"{start}, {self.outputs} target{'s' * (self.outputs > 1)} ({self.y.min():.4g} to {self.y.max():.4g})"
            )
        counts = self.counts()
        kind = "classes" if self.task == "classes" else "labels"
        return f"{start}, {len(counts)} {kind} ({counts.min():,} to {counts.max():,} each)"


def require_every_class(dataset: Dataset) -> None:
    """Raises a `DataError` naming the classes that have no example.

    >>> require_every_class(Dataset(np.zeros((2, 3)), np.array([0, 0]), ("cat", "dog"), "pets"))
    Traceback (most recent call last):
        ...
    tljax.data.error.DataError: data set 'pets' has no example of class 'dog', ...
    """
    absent = [dataset.classes[i] for i in np.flatnonzero(dataset.counts() == 0)] if dataset.classes else []
    if absent:
        some = ", ".join(map(repr, absent[:5])) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        raise DataError(
            f"data set {dataset.name!r} has no example of class {some}, so it cannot be learned: "
            "add examples, or leave the class out"
        )
