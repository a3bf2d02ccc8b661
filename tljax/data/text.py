"""Text: sentences in tables, and the tokenizer of a pretrained folder."""

import dataclasses
import gzip
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tljax.data.error import DataError
from tljax.data.files import missing, reading
from tljax.data.labels import read_labels
from tljax.data.table import LABELS

LENGTHS = (16, 32, 64, 128, 256, 512)
"""The lengths that sentences are padded to: few, so that a jitted model compiles few times."""
_SENTENCES = ("sentence", "text")
_USUAL_MAXIMUM = 512


class Sentences(NamedTuple):
    """Sentences and what they are labelled."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]


class TextData(NamedTuple):
    """Tokenised sentences with their labels; `fit` and `evaluate` take it."""

    x: dict[str, np.ndarray]
    """`ids` and `mask`, `[N, L]` int32."""
    y: np.ndarray
    """Classes `[N]` int32."""
    classes: tuple[str, ...]
    """The names of the C classes."""


def read_sentences(path: str | os.PathLike[str]) -> Sentences:
    """The sentences of a TSV file, plain or gzipped: ``label<TAB>sentence`` a line.

    A first line with names, such as ``sentence<TAB>label``, says which column is which; further columns are left out.
    Quotation marks are part of a sentence.

    Raises:
      DataError: there is no such file, it is damaged or empty, or a line has no label or no sentence (it is named).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "reviews.tsv")
    ...     _ = file.write_text("1\\ta joy\\n0\\tdull\\n")
    ...     read_sentences(file)
    Sentences(texts=('a joy', 'dull'), labels=('1', '0'))
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"'{path}' is a folder; expected a TSV file") if path.is_dir() else missing(path)
    with reading(path, "table of sentences"):
        lines = _lines(path)
        columns, label, text = 2, 0, 1
        if lines and (named := _header(lines[0][1])):
            columns, (label, text) = len(lines[0][1]), named
            lines = lines[1:]
        if not lines:
            raise DataError(f"'{path}' has no sentences")
        for number, cells in lines:
            if len(cells) != columns:
                raise DataError(
                    f"'{path}': line {number} has {len(cells)} cells; expected {columns}, label<TAB>sentence"
                )
            for at, what in ((label, "label"), (text, "sentence")):
                if not cells[at].strip():
                    raise DataError(f"'{path}': line {number} has no {what}")
    return Sentences(
        tuple(cells[text].strip() for _, cells in lines), tuple(cells[label].strip() for _, cells in lines)
    )


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="\n") as file:
        return [(i, line.rstrip("\r\n").split("\t")) for i, line in enumerate(file, 1) if line.strip()]


def _header(cells: Sequence[str]) -> tuple[int, int] | None:
    """Where a first line that names the columns has label and sentence."""
    names = [cell.strip().lower() for cell in cells]
    label = [i for i, name in enumerate(names) if name in LABELS]
    text = [i for i, name in enumerate(names) if name in _SENTENCES]
    return (label[0], text[0]) if label and text else None


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

    `max_length` is by default what sentence_bert_config.json or else tokenizer_config.json says, at most 512. How
    tokenizer.json itself would pad and cut is not used.

    Raises `DataError` when the file is missing or damaged, or the library is not installed.
    """
    tokenizers = _library()
    folder = Path(folder)
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
    length: int | None = None,
) -> TextData:
    """The sentences of a TSV file, tokenised, and their classes.

    `classes` names the classes in order, as ``train.classes`` for a test file; by default they are the labels in the
    file, in natural order. `length` is as for a tokenizer.

    Raises `DataError` as `read_sentences` does, and for a label that is not among `classes`.
    """
    sentences = read_sentences(path)
    names = None if classes is None else tuple(classes)
    labels = read_labels({"train": np.array(sentences.labels)}, classes=names, where=f"'{path}'")
    return TextData(tokenizer(sentences.texts, length=length), labels.y["train"], labels.classes)


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
