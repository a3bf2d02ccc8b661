"""Examples without labels: a folder of images in any order, arrays, rows of a table, sentences."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tljax.data import checks
from tljax.data.builtin import BUILT_IN
from tljax.data.error import DataError
from tljax.data.files import Inputs, joined, reading
from tljax.data.folder import read_images
from tljax.data.idx import is_idx, read_idx_inputs
from tljax.data.images import resize_images
from tljax.data.npz import read_npz_inputs
from tljax.data.raw import as_inputs, locate, no_kind, prepared_images, two_sides
from tljax.data.sentences import read_texts
from tljax.data.table import is_table, read_table_inputs
from tljax.data.text import Tokenizer
from tljax.data.text_source import padding_note, usual_length


@dataclasses.dataclass(frozen=True, eq=False)
class Unlabelled:
    """Examples whose labels nobody knows, and what each is called.

    Raises:
      DataError: when made empty, of examples without values, of other names than examples, or of what is NaN or
        infinite.

    >>> data = Unlabelled(np.zeros((2, 8, 8, 1)), ("a.png", "b.png"), "scans")
    >>> print(data.describe())
    scans: 2 examples of 8x8x1, without labels
    >>> data.take([1]).names
    ('b.png',)
    """

    x: Any
    """Inputs `[N, ...]`, as of a `Dataset`; of sentences `ids` and `mask`, `[N, L]` int32."""
    names: tuple[str, ...]
    """N: files below a folder, rows of a table, places in an array."""
    name: str = "data"
    notes: tuple[str, ...] = ()
    """What was decided in reading, each a sentence for a person."""
    classes: tuple[str, ...] = ()
    """The names of the classes that the examples are taken to be of, where that is known."""

    def __post_init__(self) -> None:
        where = f"data set {self.name!r}"
        if isinstance(self.x, dict):
            sizes = {len(value) for value in self.x.values()}
            if 0 in sizes:
                raise DataError(f"{where} is empty")
        else:
            x = checks.array(self.x, "x", where)
            if x.ndim < 2 or 0 in x.shape:
                raise DataError(f"{where}: x must be [N, ...], N and all others 1 or more; found {list(x.shape)}")
            object.__setattr__(self, "x", checks.inputs(x, where))
            sizes = {len(x)}
        if sizes != {len(self.names)}:
            raise DataError(f"{where}: there are {len(self.names)} names of {sorted(sizes)} examples")

    def __len__(self) -> int:
        return len(self.names)

    def take(self, indices: Sequence[int] | np.ndarray) -> "Unlabelled":
        """The examples at `indices`, in that order; raises `DataError` where there are none."""
        at = np.asarray(indices, np.int64)
        wrong = at[(at < 0) | (at >= len(self))]
        if wrong.size:
            raise DataError(f"data set {self.name!r} holds {len(self)} examples; there is none at {wrong[0]}")
        names = tuple(self.names[i] for i in at)
        return dataclasses.replace(self, x=jax.tree.map(lambda a: a[at], self.x), names=names)

    def describe(self) -> str:
        """The set in one line."""
        if isinstance(self.x, dict):
            what = f"sentences of up to {self.x['mask'].shape[1]} tokens"
        else:
            what = f"examples of {'x'.join(map(str, self.x.shape[1:]))}"
        return f"{self.name}: {len(self):,} {what}, without labels"


def load_unlabelled(
    spec: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    prepare: Callable[[Any], np.ndarray] | None = None,
    features: Sequence[str] = (),
) -> Unlabelled:
    """All examples in what `spec` names, whatever part they stand in; labels there are not read.

    `spec` is as for `load`, but needs no labels: an `.npz` file with `x` or `train_x` and so on, an idx file of images
    or a folder of them, a folder with images anywhere below it, a table. Unlike for `load` a file is read alone,
    without those of other parts beside it.

    Args:
      spec: what to load.
      size, prepare: as for `load`.
      features: of a table with a header these columns are read, in this order; by default all but those called label,
        y, target or class.

    Raises:
      DataError: nothing is there, it cannot be read, or lacks one of `features`.

    >>> load_unlabelled("digits").x.shape
    (1797, 8, 8, 1)
    """
    shape = two_sides(size)
    name, path, group = locate(str(spec))
    found = _read(path, group, shape, prepare, features) if path else _built_in(name)
    where = f"data set {name!r}"
    x = checks.array(found.x, "x", where)
    if prepare is not None and not found.prepared:
        x = prepared_images(x, name, prepare)
    else:
        x = as_inputs(x, name)
        x = x if shape is None else resize_images(checks.inputs(x, where), shape, where=where)
    return Unlabelled(x, found.names, name, found.notes)


def load_texts(
    path: str | os.PathLike[str], tokenizer: Tokenizer, *, text: str | None = None, length: int | None = None
) -> Unlabelled:
    """The sentences of a file, tokenised: as of `load_sentences`, or one a line.

    Args:
      path: a file; what does not end in ``.csv`` or ``.csv.gz`` is read as TSV.
      tokenizer: of the model's folder.
      text: the name of the column, where it is none of the usual ones.
      length: in tokens, as for `load_sentences`.

    Raises:
      DataError: there is no such file, it is damaged or empty, or it does not tell which column has the sentences.

    >>> import tempfile, tokenizers
    >>> words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[PAD]": 0, "joy": 1, "dull": 2}))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "new.txt").write_text("joy\\ndull\\n")
    ...     data = load_texts(f"{folder}/new.txt", Tokenizer(words, padding_id=0, max_length=8))
    >>> data.x["ids"][:, 0].tolist(), data.names
    ([1, 2], ('sentence 1', 'sentence 2'))
    """
    texts, note = read_texts(path, text=text)
    x = tokenizer(texts, length=length or usual_length(texts, tokenizer))
    names = tuple(f"sentence {i + 1}" for i in range(len(texts)))
    return Unlabelled(x, names, Path(path).name.split(".")[0], (note, padding_note([x["mask"]])))


def _read(path: Path, group: str | None, size: tuple[int, int] | None, prepare: Any, features: Sequence[str]) -> Inputs:
    if path.is_dir():
        with reading(path, "folder"):
            return read_idx_inputs(path) if any(map(is_idx, path.iterdir())) else read_images(path, size, prepare)
    if path.suffix.lower() == ".npz":
        return read_npz_inputs(path, group)
    if is_table(path):
        return read_table_inputs(path, features)
    if is_idx(path):
        return read_idx_inputs(path)
    raise no_kind(path, "give the folder that it is in")


def _built_in(name: str) -> Inputs:
    parts = BUILT_IN[name]().x
    names = tuple(f"{part}[{i}]" if len(parts) > 1 else f"[{i}]" for part, x in parts.items() for i in range(len(x)))
    return Inputs(joined(list(parts.values()), f"data set {name!r}"), names)
