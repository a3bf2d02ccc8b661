"""Text: the tokenizer of a pretrained folder, and sentences that it has made numbers of."""

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tljax.checkpoints.hub import local_folder
from tljax.data.error import DataError
from tljax.data.files import reading
from tljax.data.labels import read_labels
from tljax.data.sentences import read_sentences

LENGTHS = (16, 32, 64, 128, 256, 512)
"""The lengths that sentences are padded to: few, so that a jitted model compiles few times."""
_USUAL_MAXIMUM = 512


@dataclasses.dataclass(frozen=True, eq=False)
class TextData:
    """Tokenised sentences with their labels; `fit` and `evaluate` take it."""

    x: dict[str, np.ndarray]
    """`ids` and `mask`, `[N, L]` int32."""
    y: np.ndarray
    """Classes `[N]` int32."""
    classes: tuple[str, ...]
    """The names of the C classes."""
    name: str = "text"

    task = "classes"

    def __len__(self) -> int:
        return len(self.y)

    @property
    def outputs(self) -> int:
        """How many numbers a model must return per sentence: the classes."""
        return len(self.classes)

    def take(self, indices: np.ndarray) -> "TextData":
        """The sentences at `indices`, in that order.

        >>> data = TextData({"ids": np.arange(6).reshape(3, 2)}, np.array([0, 1, 0]), ("dull", "a joy"))
        >>> data.take(np.array([2, 0])).x["ids"].tolist()
        [[4, 5], [0, 1]]
        """
        x = {name: value[indices] for name, value in self.x.items()}
        return dataclasses.replace(self, x=x, y=self.y[indices])

    def describe(self) -> str:
        """The set in one line.

        >>> TextData({"mask": np.ones((3, 8))}, np.array([0, 1, 0]), ("dull", "a joy")).describe()
        'text: 3 sentences of up to 8 tokens, 2 classes (1 to 2 each)'
        """
        counts = np.bincount(self.y, minlength=len(self.classes))
        longest = self.x["mask"].shape[1]
        return (
            f"{self.name}: {len(self):,} sentences of up to {longest} tokens, {len(counts)} classes "
            f"({counts.min():,} to {counts.max():,} each)"
        )


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """The tokenizer of a pretrained folder, from `load_tokenizer`."""

    backend: Any
    """A ``tokenizers.Tokenizer`` that cuts at `max_length` and does not pad."""
    padding_id: int
    max_length: int
    """In tokens, with the special ones."""

    def __call__(self, texts: Sequence[str], *, length: int | None = None) -> dict[str, np.ndarray]:
        """`texts` as `ids` and `mask` `[N, L]` int32; the mask is 0 on padding.

        L is `length`, at which longer sentences are cut, or else the least of `LENGTHS` that holds them all.

        Raises `DataError` for no texts, one text that is not in a list, and a length outside 1 .. `max_length`.
        """
        if isinstance(texts, str) or not len(texts):
            raise DataError(f"a tokenizer takes a list of sentences, at least one; found {texts!r}")
        if length is not None and not 1 <= length <= self.max_length:
            raise DataError(f"length={length}; expected 1 to {self.max_length}, the longest that the model reads")
        rows = self._encoded(list(texts), length or self.max_length)
        L = length or _bucket(max(map(len, rows)), self.max_length)
        ids = np.full((len(rows), L), self.padding_id, np.int32)
        mask = np.zeros((len(rows), L), np.int32)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        return {"ids": ids, "mask": mask}

    def _encoded(self, texts: list[str], longest: int) -> list[list[int]]:
        self.backend.enable_truncation(longest)
        return [encoding.ids for encoding in self.backend.encode_batch(texts)]


def load_tokenizer(folder: str | os.PathLike[str], *, max_length: int | None = None) -> Tokenizer:
    """The tokenizer in `folder` with its tokenizer.json, through the `tokenizers` library (extra `text`).

    `folder` may be a model on the Hugging Face Hub, ``"hf://owner/name"`` (extra `hub`).

    `max_length` is by default what sentence_bert_config.json or else tokenizer_config.json says, at most 512. How
    tokenizer.json itself would pad and cut is not used.

    Raises `DataError` when the file is missing or damaged, or the library is not installed, `CheckpointError` when the
    Hub does not have it.

    >>> import tempfile, tokenizers
    >>> words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[PAD]": 0, "a": 1, "joy": 2}, unk_token="[PAD]"))
    >>> words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     words.save(f"{folder}/tokenizer.json")
    ...     tokenizer = load_tokenizer(folder)
    >>> tokenizer(["a joy"], length=4)
    {'ids': array([[1, 2, 0, 0]], dtype=int32), 'mask': array([[1, 1, 0, 0]], dtype=int32)}
    """
    tokenizers = _library()
    folder = local_folder(folder)
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise DataError(
            f"'{folder}' has no tokenizer.json; with transformers write AutoTokenizer.from_pretrained(...)"
            ".save_pretrained(folder), which makes one of older vocabulary files"
        )
    with reading(path, "tokenizer"):
        backend = tokenizers.Tokenizer.from_file(str(path))
    padding_id = _padding_id(backend, folder)
    backend.no_padding()
    return Tokenizer(backend, padding_id, max_length or _maximum(folder))


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise DataError("text needs the tokenizers library: pip install 'tljax[text]'") from error
    return tokenizers


def _padding_id(backend: Any, folder: Path) -> int:
    if backend.padding:
        return int(backend.padding["pad_id"])
    token = _json(folder / "tokenizer_config.json").get("pad_token")
    token = token.get("content") if isinstance(token, Mapping) else token
    for name in (token, "[PAD]", "<pad>"):
        if name is not None and (found := backend.token_to_id(name)) is not None:
            return int(found)
    raise DataError(f"'{folder / 'tokenizer.json'}' has no padding token; expected '[PAD]', '<pad>' or a pad_token")


def _maximum(folder: Path) -> int:
    said = [
        _json(folder / "sentence_bert_config.json").get("max_seq_length"),
        _json(folder / "tokenizer_config.json").get("model_max_length"),
    ]
    # Where there is no limit, transformers writes 1e30.
    return min([*[int(n) for n in said if n][:1], _USUAL_MAXIMUM])


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    with reading(path, "JSON file"):
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise DataError(f"'{path}' holds {type(found).__name__}; expected a JSON object")
        return found


def load_text(
    path: str | os.PathLike[str],
    tokenizer: Tokenizer,
    *,
    classes: Iterable[str] | None = None,
    label: str | None = None,
    text: str | None = None,
    length: int | None = None,
) -> TextData:
    """The sentences of a TSV file, tokenised, and their classes.

    `classes` names the classes in order, as ``train.classes`` for a test file; by default they are the labels in the
    file, in natural order. `label` and `text` are the names of the columns, as for `read_sentences`, `length` is as for
    a tokenizer.

    Raises `DataError` as `read_sentences` does, and for a label that is not among `classes`.

    >>> import tempfile, tokenizers
    >>> words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[PAD]": 0, "joy": 1, "dull": 2}))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "reviews.tsv").write_text("good\\tjoy\\nbad\\tdull\\n")
    ...     data = load_text(f"{folder}/reviews.tsv", Tokenizer(words, padding_id=0, max_length=8))
    >>> data.y.tolist(), data.classes, data.x["ids"][:, 0].tolist()
    ([1, 0], ('bad', 'good'), [1, 2])
    """
    sentences = read_sentences(path, label=label, text=text)
    names = None if classes is None else tuple(classes)
    columns = {"train": np.array(sentences.labels)}
    labels = read_labels(columns, classes=names, where=f"'{path}'", task="classification")
    return TextData(tokenizer(sentences.texts, length=length), labels.y["train"], labels.classes, Path(path).name)


def by_length(x: Mapping[str, np.ndarray], *, lengths: Sequence[int] = LENGTHS) -> Iterator[tuple[np.ndarray, Any]]:
    """Parts of `x` that need the same length, cut to it: `(indices, part)`, so that short sentences cost little.

    A sentence's length is that up to its last token which is no padding.

    >>> x = {"ids": np.arange(80).reshape(2, 40), "mask": (np.arange(40)[None] < np.array([[40], [9]])).astype("int32")}
    >>> [(indices.tolist(), part["ids"].shape) for indices, part in by_length(x)]
    [([1], (1, 16)), ([0], (1, 40))]
    """
    mask = np.asarray(x["mask"])
    longest = mask.shape[1]
    used = np.where(mask.any(1), longest - np.argmax(mask[:, ::-1] != 0, axis=1), 1)
    limits = [length for length in sorted(lengths) if length < longest] + [longest]
    part = np.searchsorted(limits, used)
    for i in np.unique(part):
        indices = np.flatnonzero(part == i)
        yield indices, {name: np.asarray(value)[indices, : limits[i]] for name, value in x.items()}


def _bucket(longest: int, most: int) -> int:
    return min(next((length for length in LENGTHS if length >= longest), most), most)
