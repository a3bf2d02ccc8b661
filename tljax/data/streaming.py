"""Examples that are read when they are needed, out of anything that has a length and can be indexed."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from tljax.data import checks
from tljax.data.error import DataError
from tljax.tree.paths import nearest, quoted
from tljax.types import Batch

_SAMPLED = 8
_GREY = ("1", "L", "LA", "La", "I", "I;16")


@dataclasses.dataclass(frozen=True, eq=False)
class ExampleStream:
    """What `stream` makes: a source, and how its items become examples."""

    source: Any
    x: str | Sequence[str] | None
    y: str | None
    transform: Callable[[Any], Any] | None
    subset: np.ndarray | None
    classes: tuple[str, ...]
    workers: int
    name: str

    def __len__(self) -> int:
        return len(self.source) if self.subset is None else len(self.subset)

    def __repr__(self) -> str:
        how = f"{self.workers} worker processes" if self.workers else "no worker processes"
        return f"stream of {len(self):,} examples of {self.name}, {how}"

    def example(self, position: int) -> Batch:
        """One example, without a batch axis, in the dtypes of a `Dataset`; raises a `DataError` that names it."""
        index = int(position if self.subset is None else self.subset[position])
        where = f"{self.name}: example {index}"
        try:
            x, y = self._parts(self.source[index])
            x = x if self.transform is None else self.transform(x)
            x = jax.tree.map(lambda leaf: _input(leaf, where), x, is_leaf=_is_list)
            return Batch(x, None if y is None else self._label(y, where))
        except DataError as error:
            raise error if str(error).startswith(where) else DataError(f"{where}: {error}") from error
        except Exception as error:  # whatever the source or the transform raises
            raise DataError(f"{where} cannot be read ({type(error).__name__}: {error})") from error

    def examples(self, positions: Sequence[int] | np.ndarray) -> Batch:
        """The examples at `positions`, perhaps none, stacked: leaves are NumPy arrays `[B, ...]`.

        Raises:
          DataError: one cannot be read, or differs from the first in shape.
        """
        if not len(positions):
            return jax.tree.map(lambda leaf: np.zeros((0, *leaf.shape), leaf.dtype), self.example(0))
        found = [self.example(position) for position in positions]
        shapes = [[leaf.shape for leaf in jax.tree.leaves(example)] for example in found]
        for position, own in zip(positions, shapes):
            if own != shapes[0]:
                raise DataError(
                    f"{self.name}: example {position} has the shapes {own}, example {positions[0]} {shapes[0]}; those "
                    "of a batch must be alike: resize images in transform=, as a preprocessor does"
                )
        return jax.tree.map(lambda *leaves: np.stack(leaves), *found)

    def sample(self) -> Batch:
        """A few examples from evenly spaced places: what the data look like, and by what a resumed run knows them."""
        return self.examples(np.unique(np.linspace(0, len(self) - 1, _SAMPLED).astype(int)))

    def _parts(self, item: Any) -> tuple[Any, Any]:
        """The raw input and label of an item."""
        if isinstance(item, Mapping):
            keys = self.x if isinstance(self.x, str) else tuple(self.x or ())
            x = _pick(item, keys, "x") if isinstance(keys, str) else {key: _pick(item, key, "x") for key in keys}
            return x, None if self.y is None else _pick(item, self.y, "y")
        if hasattr(item, "x") and hasattr(item, "y"):
            return item.x, None if self.y is None else item.y
        if self.y is None:
            return (item[0] if _is_labelled(item) else item), None
        if isinstance(item, tuple | list) and len(item) == 2:
            return item[0], item[1]
        raise DataError(
            f"should be a pair (x, y), a dict, or have .x and .y; found {type(item).__name__}. "
            "Of a source without labels write stream(source, y=None)"
        )

    def _label(self, y: Any, where: str) -> np.ndarray:
        one = checks.array(np.asarray(y)[None], "y", where)
        if self.classes:
            return checks.labels(one, self.classes, where)[0]
        return checks.inputs(one.astype(np.int32) if one.dtype.kind in "ub" else one, where)[0]


def _is_labelled(item: Any) -> bool:
    """Whether an item is an input and its class, rather than an input of two numbers or of two arrays."""
    pair = isinstance(item, tuple | list) and len(item) == 2
    return pair and np.ndim(item[0]) > 0 and np.ndim(item[1]) == 0


def stream(
    source: Any,
    *,
    x: str | Sequence[str] | None = "image",
    y: str | None = "label",
    transform: Callable[[Any], Any] | None = None,
    subset: Sequence[int] | np.ndarray | None = None,
    classes: Sequence[str] = (),
    workers: int = 0,
    name: str | None = None,
) -> ExampleStream:
    """Data for `fit`, `evaluate` and `predict` that are read and decoded batch by batch, in worker processes.

    The order is that of arrays in memory: a function of the seed and the number of the step. So a run that is resumed
    at any step sees what an unbroken one sees, and a streamed run is the run on the same examples in memory.

    Inputs come as in a `Dataset`: uint8 is divided by 255, other numbers become float32 or int32.

    Args:
      source: anything with `len` and an index: an `ImageFolder`, a Hugging Face or torch data set, a list. Its items
        are pairs `(x, y)`, objects with `.x` and `.y`, or dicts.
      x, y: of dicts, the keys of the input (several give a dict of inputs) and of the label. `y=None`: no labels; those
        that items have are left out.
      transform: of one input: a `Preprocessor`, or a function, such as one that resizes.
      subset: the indices to use, as `stratified_split` gives them; by default all.
      classes: the names of the classes, by default those that the source has; then labels are checked against them.
      workers: processes that read ahead, each a batch of its own (needs grain: the extra `data`). They import the
        script that started them, so its work must stand under ``if __name__ == "__main__":``. 0: a thread reads ahead.
      name: for messages.

    Raises:
      DataError: the source cannot be indexed, is empty, or an index is outside of it.

    >>> data = stream([(np.full(3, i), i % 2) for i in range(10)], name="numbers")
    >>> data
    stream of 10 examples of numbers, no worker processes
    >>> data.examples([7, 1]).x.tolist(), data.examples([7, 1]).y.tolist()
    ([[7, 7, 7], [1, 1, 1]], [1, 1])
    """
    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        arrays = ". Arrays in memory need no stream: give them to fit as (x, y)" if hasattr(source, "x") else ""
        raise DataError(f"a stream needs a source with len() and an index; found {type(source).__name__}{arrays}")
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 0:
        raise DataError(f"workers is a number of processes, 0 or more; found {workers!r}")
    name = name or getattr(source, "name", None) or type(source).__name__
    chosen = None if subset is None else np.asarray(subset)
    length = len(source)
    if chosen is not None and (chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu")):
        raise DataError(f"{name}: subset must be a list of indices; found {chosen.dtype} {list(chosen.shape)}")
    if chosen is not None and chosen.size and not (chosen.min() >= 0 and chosen.max() < length):
        raise DataError(f"{name} holds {length} examples; subset goes from {chosen.min()} to {chosen.max()}")
    if not (length if chosen is None else chosen.size):
        raise DataError(f"{name} is empty: there is nothing to stream")
    names = tuple(map(str, classes or getattr(source, "classes", None) or ()))
    keys = x if x is None or isinstance(x, str) else tuple(x)
    return ExampleStream(source, keys, y, transform, chosen, names, workers, str(name))


def _pick(item: Mapping[str, Any], key: str, argument: str) -> Any:
    if key in item:
        return item[key]
    near = nearest(key, list(item)) or list(item)
    raise DataError(f"has no key {key!r}, only {quoted(item)}; write stream(..., {argument}={near[0]!r})")


def _is_list(node: Any) -> bool:
    return isinstance(node, list)


def _input(value: Any, where: str) -> np.ndarray:
    if hasattr(value, "convert") and hasattr(value, "getbands"):  # a Pillow image
        value = np.asarray(value.convert("L" if value.mode in _GREY else "RGB"))
        value = value[..., None] if value.ndim == 2 else value
    return checks.inputs(checks.array(np.asarray(value)[None], "x", where), where)[0]
