"""A data set in an `.npz` file: pairs of arrays under the names that people give them."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from tljax.data.error import DataError
from tljax.data.files import SPLIT_NAMES, Inputs, Raw, joined, reading
from tljax.tree.paths import nearest, quoted

Found = TypeVar("Found")
INPUTS = ("x", "images", "image", "data", "features", "inputs", "input")
TARGETS = ("y", "labels", "label", "target", "targets")
CLASSES = ("classes", "class_names", "label_names", "target_names")


def read_npz(path: Path, group: str | None = None) -> Raw:
    """The arrays of an `.npz` file; never unpickles.

    Inputs and labels are called `x` and `y` (or images/labels, data/target ...), or `train_x`, `x_train`,
    `test_y` and so on; capitals do not matter. `group` asks for the pair `<group>_x`, `<group>_y` alone.
    Class names stand under `classes`.

    Raises:
      DataError: the file is damaged, holds pickled objects, or not the arrays looked for.
    """
    with _opened(path) as archive:
        pairs = find_pairs(archive.files, group)
        if "train" not in pairs:
            raise DataError(f"'{path}' {_advice(archive.files, group)}")
        x = {split: _member(archive, keys[0], path) for split, keys in pairs.items()}
        y = {split: _member(archive, keys[1], path) for split, keys in pairs.items()}
        return Raw(x, y, _classes(archive, path))


def read_npz_inputs(path: Path, group: str | None = None) -> Inputs:
    """The inputs of an `.npz` file, of all its parts one after the other, whether they have labels or not.

    Raises:
      DataError: as `read_npz`, or arrays of several shapes.
    """
    with _opened(path) as archive:
        keys = find_inputs(archive.files, group)
        if not keys:
            looked = f"no array '{group}_x'" if group else "no inputs"
            raise DataError(f"'{path}' holds {looked}; its arrays are {quoted(archive.files[:12])}. Call them x")
        parts = [_member(archive, key, path) for key in keys]
    x = joined(parts, f"'{path}'")
    return Inputs(x, tuple(f"{key}[{i}]" for key, part in zip(keys, parts) for i in range(len(part))))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    with reading(path, "npz file"), open(path, "rb") as file:  # np.load leaves a damaged file open
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"'{path}' holds a single array; an npz file holds x and y: np.savez(path, x=x, y=y)")
        with archive:
            yield archive


def find_inputs(keys: Sequence[str], group: str | None = None) -> list[str]:
    """The keys of inputs, of the training part first.

    >>> find_inputs(["test_x", "x_train", "y_train"]), find_inputs(["images"]), find_inputs(["a_x", "b_x"], "b")
    (['x_train', 'test_x'], ['images'], ['b_x'])
    """
    return list(_by_part(lambda prefix: _key(keys, prefix, INPUTS), group).values())


def find_pairs(keys: Sequence[str], group: str | None = None) -> dict[str, tuple[str, str]]:
    """The keys of inputs and labels by part.

    >>> find_pairs(["train_x", "train_y", "X_test", "y_test", "note"])
    {'train': ('train_x', 'train_y'), 'test': ('X_test', 'y_test')}
    >>> find_pairs(["images", "labels"])
    {'train': ('images', 'labels')}
    >>> find_pairs(["photo_x", "photo_y", "sketch_x", "sketch_y"], group="photo")
    {'train': ('photo_x', 'photo_y')}
    """
    return _by_part(lambda prefix: _pair(keys, prefix), group)


def _by_part(look: Callable[[str], Found | None], group: str | None) -> dict[str, Found]:
    """What `look` finds under the names of each part, of training data without a name too; or of `group` alone."""
    prefixes: Mapping[str, tuple[str, ...]] = {**SPLIT_NAMES, "train": (*SPLIT_NAMES["train"], "")}
    if group is not None:
        prefixes = {"train": (group,)}
    found = {split: next(filter(None, map(look, names)), None) for split, names in prefixes.items()}
    return {split: one for split, one in found.items() if one is not None}


def _pair(keys: Sequence[str], prefix: str) -> tuple[str, str] | None:
    """The keys of the inputs and the labels of one part, `("train_x", "train_y")`."""
    x, y = (_key(keys, prefix, names) for names in (INPUTS, TARGETS))
    return (x, y) if x and y else None


def _key(keys: Sequence[str], prefix: str, names: Sequence[str]) -> str | None:
    """The key of the array that is called one of `names`, with `prefix` before or behind it."""
    by_name = {key.lower(): key for key in keys}
    wanted = [w for n in names for w in ((f"{prefix}_{n}", f"{n}_{prefix}") if prefix else (n,))]
    return next((by_name[w.lower()] for w in wanted if w.lower() in by_name), None)


def _advice(keys: Sequence[str], group: str | None) -> str:
    groups = [key[:-2] for key in keys if key.lower().endswith("_x") and _pair(keys, key[:-2])]
    if group is not None:
        near = quoted(nearest(group, groups) or groups)
        return f"holds no arrays '{group}_x' and '{group}_y'; groups in it: {near}"
    first, second = (_key(keys, "train", names) for names in (INPUTS, TARGETS))
    if bool(first) != bool(second):
        what = "labels" if first else "inputs"
        return f"holds '{first or second}' without {what}, which are called {'train_y' if first else 'train_x'}"
    if groups:
        some = f"several groups, {quoted(groups)}; choose one" if len(groups) > 1 else "one group alone; choose it"
        return f"holds {some} by writing '#{groups[0]}' behind the name"
    return (
        f"holds no pair of inputs and labels; its arrays are {quoted(list(keys)[:12])}. "
        "Call them x and y, or train_x, train_y, test_x, test_y"
    )


def _member(archive: np.lib.npyio.NpzFile, key: str, path: Path) -> np.ndarray:
    try:
        return archive[key]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise DataError(
            f"'{path}': array {key!r} holds pickled objects, which are not read because they can run code; "
            "save numbers, or text with dtype str"
        ) from error


def _classes(archive: np.lib.npyio.NpzFile, path: Path) -> tuple[str, ...] | None:
    key = next((key for key in archive.files if key.lower() in CLASSES), None)
    if key is None:
        return None
    names = _member(archive, key, path)
    if names.ndim != 1 or names.dtype.kind not in "USiu":
        raise DataError(f"'{path}': {key!r} must be a list of names; found {names.dtype} {list(names.shape)}")
    return tuple((np.char.decode(names, "utf-8") if names.dtype.kind == "S" else names.astype(str)).tolist())
