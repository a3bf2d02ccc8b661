"""The two sides of a transfer, read, split, brought to one shape and standardised."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from tljax.data import (
    Augment,
    Dataset,
    Standardiser,
    fit_standardiser,
    k_shot,
    load,
    match_images,
    random_crop,
    standardise,
    stratified_split,
)
from tljax.data.error import DataError
from tljax.objectives import Term, cross_entropy, mse
from tljax.recipes.options import SettingsError
from tljax.recipes.settings import Settings
from tljax.tree.paths import quoted

Examples = Any
"""Labelled examples, in memory: a `Dataset`, or the `TextData` of sentences."""
VALIDATION_SHARE = 0.2
VALIDATION_MOST = 500
"""Validation examples: a fifth of what is not test data, at most this many."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One side: what is learnt from, what chooses, what is tested on."""

    name: str
    train: Examples
    """The source's training data; for the target the pool from which the few labels are drawn."""
    valid: Examples
    test: Examples
    notes: tuple[str, ...]
    statistics: Standardiser | None = None
    """What standardised the inputs, where one did."""
    features: tuple[str, ...] = ()
    """The names of the columns of a table."""

    @property
    def regression(self) -> bool:
        """Whether numbers are predicted rather than classes."""
        return self.train.task == "regression"

    @property
    def objective(self) -> Term:
        """The loss of the task."""
        return mse() if self.regression else cross_entropy()

    def described(self) -> dict[str, object]:
        """Sizes and classes, as JSON values."""
        sizes = {"train": len(self.train), "valid": len(self.valid), "test": len(self.test)}
        return {
            "name": self.name,
            "classes": list(self.train.classes or ()),
            **sizes,
            "input": list(jax.tree.leaves(self.train.x)[0].shape[1:]),
        }


def load_tasks(settings: Settings) -> tuple[Task, Task]:
    """Source and target as `settings` say, on one input shape, standardised by the source's training data."""
    source = _side(settings.source, settings.classes[0], settings)
    target = _side(settings.target, settings.classes[1], settings)
    if source.regression:
        raise SettingsError(f"the source {source.name!r} has numbers as labels; pretraining here needs classes")
    source = _fitted(source, target)
    statistics = fit_standardiser(source.train.x)

    def scaled(data: Dataset) -> Dataset:
        return dataclasses.replace(data, x=standardise(data.x, statistics))

    return tuple(
        dataclasses.replace(t, train=scaled(t.train), valid=scaled(t.valid), test=scaled(t.test), statistics=statistics)
        for t in (source, target)
    )  # type: ignore[return-value]


def few_labels(task: Task, shots: tuple[int, ...], seed: int) -> dict[int, np.ndarray]:
    """For each number of labels per class the indices into the pool; the smaller sets are contained in the larger.

    In a regression there are no classes, and the numbers count examples in tens.
    """
    if task.regression:
        order = np.random.default_rng(seed).permutation(len(task.train))
        return {k: order[: min(10 * k, len(order))] for k in shots}
    classes = task.train.classes or ()
    largest = k_shot(task.train.y, max(shots), seed=seed, classes=classes)
    return {k: largest[: k * len(classes)] for k in shots}


def _side(spec: str, classes: str | None, settings: Settings) -> Task:
    label = settings.label if spec.split(".gz")[0].endswith((".csv", ".tsv")) else None
    whole = load(spec, label=label, size=settings.image_size)
    if classes is not None:
        whole = whole.map(lambda part: part.only(classes))
    if whole.train.task == "labels":
        raise SettingsError(
            f"{spec!r} has several labels per example; tljax transfer needs one class or one number each"
        )
    if whole.train.task != "regression" and whole.train.outputs < 2:
        raise SettingsError(f"{spec!r} with the classes {classes!r} has a single class: nothing to learn; choose more")
    train, valid = with_validation(whole.train, whole.valid, settings.seed)
    name = f"{whole.name} {classes}" if classes else whole.name
    return Task(name, train, valid, whole.test, whole.notes)


def with_validation(train: Examples, valid: Examples | None, seed: int) -> tuple[Examples, Examples]:
    """`train` and `valid`, which is cut off from `train`, stratified, where there is none.

    >>> train, valid = with_validation(Dataset(np.zeros((10, 2)), np.arange(10) % 2), None, 0)
    >>> len(train), len(valid)
    (8, 2)
    """
    if valid is not None:
        return train, valid
    share = min(VALIDATION_SHARE, VALIDATION_MOST / len(train))
    kept, held = stratified_split(train.y, (1 - share, share), seed=seed, classes=train.classes or (), name=train.name)
    return train.take(kept), train.take(held)


def relabelled(data: Examples, classes: tuple[str, ...]) -> Examples:
    """`data`, a `Dataset` or sentences, labelled by the classes that a model knows.

    Raises:
      DataError: it has not one class per example, or of classes that are not among them.

    >>> part = Dataset(np.zeros((2, 3)), np.array([0, 1]), ("dog", "owl"), "pets")
    >>> relabelled(part, ("cat", "dog", "owl")).y.tolist()
    [1, 2]
    """
    _require_classes(data)
    unknown = [data.classes[i] for i in np.unique(data.y) if data.classes[i] not in classes]
    if unknown:
        raise DataError(f"{data.name!r} has classes that the training part lacks: {unknown[:5]}")
    return of_classes(data, classes)


def of_classes(data: Examples, classes: tuple[str, ...]) -> Examples:
    """The examples of some classes, which become 0, 1 ... in the order given; those of others are left out.

    Raises:
      DataError: `data` has not one class per example, or no example of these.

    >>> part = Dataset(np.zeros((3, 2)), np.array([0, 1, 0]), ("dog", "owl"), "pets")
    >>> of_classes(part, ("cat", "dog")).y.tolist()
    [1, 1]
    """
    _require_classes(data)
    new = np.array([classes.index(name) if name in classes else -1 for name in data.classes], np.int32)[data.y]
    kept = np.flatnonzero(new >= 0)
    if not kept.size:
        raise DataError(f"{data.name!r} has no example of {quoted(classes[:8])}")
    return dataclasses.replace(data if kept.size == len(data) else data.take(kept), y=new[kept], classes=classes)


def _require_classes(data: Examples) -> None:
    if data.task != "classes":
        raise DataError(f"{data.name!r} is labelled with {data.task}; one class per example is needed")


def _fitted(source: Task, target: Task) -> Task:
    """The source with inputs of the target's shape."""
    wanted, found = target.train.x.shape[1:], source.train.x.shape[1:]
    if wanted == found:
        return source
    if len(wanted) != 3 or len(found) != 3:
        raise SettingsError(
            f"the source {source.name!r} has examples of shape {list(found)}, the target {target.name!r} of "
            f"{list(wanted)}: only images can be brought to one shape"
        )
    train, valid, test = (match_images(part, *wanted) for part in (source.train, source.valid, source.test))
    note = f"source images were brought to {'x'.join(map(str, wanted))}"
    return Task(source.name, train, valid, test, (*source.notes, note))


def shifts(shape: Sequence[int]) -> Augment:
    """Shifts of images of `shape` by up to an eighth of the shorter side, and a pixel at least.

    >>> from tljax.types import Batch
    >>> batch = Batch(np.ones((2, 8, 8, 1), np.float32))
    >>> shifts((8, 8, 1))(jax.random.key(0), batch).x.shape
    (2, 8, 8, 1)
    """
    return random_crop(max(1, min(shape[:2]) // 8))
