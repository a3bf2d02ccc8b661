"""What the labels found in a file stand for: classes, several labels per example, or regression targets."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from tljax.data.error import DataError
from tljax.tree.paths import natural_key

Reading = Literal["classification", "regression"]


class Labels(NamedTuple):
    """Labels understood."""

    y: dict[str, np.ndarray]
    """By part: int32 classes `[N]`, or float32 labels `[N, C]` or targets `[N]` or `[N, K]`."""
    classes: tuple[str, ...]
    """The names of the classes; () in regression."""
    note: str = ""
    """A sentence, where there was a choice."""


def read_labels(
    columns: Mapping[str, np.ndarray],
    *,
    classes: Sequence[str] | None = None,
    task: Reading | None = None,
    where: str = "labels",
) -> Labels:
    """Labels by part (`"train"` leads) as classes or targets.

    Text, integers and booleans are classes. Floats are targets, unless all are whole and few: at most 20 different
    ones, or five examples or more for each; `task` overrules that. `[N, C]` of zeros and ones are several labels per
    example, or classes if every row has a single one. With `classes` integers are positions in it; without, the values
    that the training part holds are the classes, in natural order, and their names.

    Raises:
      DataError: a part holds a label that the training part lacks, or what no class can be.

    >>> read_labels({"train": np.array(["dog", "cat", "dog"])})
    Labels(y={'train': array([1, 0, 1], dtype=int32)}, classes=('cat', 'dog'), note='')
    >>> read_labels({"train": np.array([0.5, 2.25])}).classes
    ()
    """
    if task not in (None, "classification", "regression"):
        raise DataError(f"task is 'classification' or 'regression'; found {task!r}")
    columns = {part: _squeezed(y) for part, y in columns.items()}
    train = columns["train"]
    ranks = {y.ndim for y in columns.values()}
    if len(ranks) > 1 or train.ndim > 2 or (train.ndim == 2 and len({y.shape[1] for y in columns.values()}) > 1):
        shapes = ", ".join(f"{part} {list(y.shape)}" for part, y in columns.items())
        raise DataError(f"{where}: labels must be [N] or [N, C], alike in every part; found {shapes}")
    if train.dtype.kind not in "USfiub":
        raise DataError(f"{where}: labels must be numbers or text; found dtype {train.dtype}")
    if not train.size:
        raise DataError(f"{where}: the training part is empty")
    if train.ndim == 2:
        return _several(columns, classes, task, where)
    if task == "regression" and train.dtype.kind not in "US":
        return Labels({part: y.astype(np.float32) for part, y in columns.items()}, ())
    return _single(columns, classes, task, where)


def _squeezed(y: np.ndarray) -> np.ndarray:
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y  # how many files hold plain labels
    return np.char.decode(y, "utf-8") if y.dtype.kind == "S" else y


def _single(columns: dict[str, np.ndarray], classes: Sequence[str] | None, task: Reading | None, where: str) -> Labels:
    train = columns["train"]
    if train.dtype.kind == "U":
        if task == "regression":
            raise DataError(f"{where}: regression needs numbers; the first label is {str(train[0])!r}")
        return _text(columns, classes, task, where)
    if classes is not None:
        return Labels(dict(columns), tuple(classes))  # the data set checks their range
    values, note = np.unique(train), ""
    if train.dtype.kind == "f":
        _finite(train, where)
        partial = values[values != np.round(values)]
        few = len(values) <= 20 or len(train) >= 5 * len(values)
        if task is None and (partial.size or not few):
            targets = {part: y.astype(np.float32) for part, y in columns.items()}
            return Labels(targets, (), "labels are regression targets")
        if partial.size:
            raise DataError(f"{where}: classes must be whole numbers or text; a label is {partial[0]}")
        if task is None:
            note = f"the {len(values)} different labels, all whole numbers, are classes"
    elif train.min() < 0:
        i = int(np.argmax(train < 0))
        raise DataError(f"{where}: classes must be 0 or more; label {i} is {train[i]}. Recode or remove it")
    names = [str(int(value)) for value in values]
    return Labels(_positions(columns, values.tolist(), "the training part", where), tuple(names), note)


def _text(columns: dict[str, np.ndarray], classes: Sequence[str] | None, task: Reading | None, where: str) -> Labels:
    if classes is not None:
        return Labels(_positions(columns, classes, f"the list of {len(classes)} classes", where), tuple(classes))
    names, n = np.unique(columns["train"]).tolist(), len(columns["train"])
    if task is None and n >= 20 and len(names) > n / 2:
        raise DataError(
            f"{where}: {len(names)} different labels in {n} examples, such as {names[0][:40]!r}: are these the labels?"
        )
    names = sorted(names, key=natural_key)
    return Labels(_positions(columns, names, "the training part", where), tuple(names))


def _positions(
    columns: Mapping[str, np.ndarray], known: Sequence[str | float], owner: str, where: str
) -> dict[str, np.ndarray]:
    """Labels as positions in `known`, the values that `owner` holds."""
    position = {value: i for i, value in enumerate(known)}
    encoded = {}
    for part, y in columns.items():
        values, inverse = np.unique(y, return_inverse=True)
        unknown = [value for value in values.tolist() if value not in position]
        if unknown:
            raise DataError(f"{where}: the {part} part has labels that {owner} lacks: {unknown[:5]}")
        table = np.array([position[value] for value in values.tolist()], np.int32)
        encoded[part] = table[inverse.reshape(-1)]
    return encoded


def _several(columns: dict[str, np.ndarray], classes: Sequence[str] | None, task: Reading | None, where: str) -> Labels:
    train = columns["train"]
    if train.dtype.kind in "US":
        raise DataError(f"{where}: text labels must be [N], one per example; found {list(train.shape)}")
    columns = {part: y.astype(np.float32) for part, y in columns.items()}
    if task == "regression":
        return Labels(columns, ())
    binary = all(np.isin(y, (0, 1)).all() for y in columns.values())
    if not binary and classes is None:
        if task == "classification":
            raise DataError(f"{where}: [N, C] labels without class names must be zeros and ones")
        return Labels(columns, (), f"{train.shape[1]} targets per example")
    names = tuple(classes) if classes is not None else tuple(map(str, range(train.shape[1])))
    if binary and all((y.sum(1) == 1).all() for y in columns.values()):
        if len(names) != train.shape[1]:
            raise DataError(f"{where}: {train.shape[1]} label columns but {len(names)} class names")
        one = {part: y.argmax(1).astype(np.int32) for part, y in columns.items()}
        return Labels(one, names, "every row of labels has a single one: it is the class")
    return Labels(columns, names, f"{len(names)} labels per example")


def _finite(y: np.ndarray, where: str) -> None:
    wrong = np.flatnonzero(~np.isfinite(y))
    if wrong.size:
        raise DataError(f"{where}: {wrong.size} labels are NaN or infinite; the first is label {wrong[0]}")
