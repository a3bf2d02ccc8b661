"""A whole data set of sentences: its parts from a file and those beside it, on one vocabulary and one length."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tljax.data.error import DataError
from tljax.data.files import siblings
from tljax.data.labels import read_labels
from tljax.data.sentences import read_sentences
from tljax.data.splits import stratified_split
from tljax.data.text import LENGTHS, TextData, Tokenizer

KEPT_WHOLE = 0.99
"""The share of training sentences that the usual length does not cut."""


@dataclasses.dataclass(frozen=True, eq=False)
class TextSource:
    """A data set of sentences by its parts; all have the same classes and length."""

    name: str
    train: TextData
    test: TextData
    valid: TextData | None = None
    """The validation part, where there is a file of it."""
    notes: tuple[str, ...] = ()
    """What was decided in reading, each a sentence for a person."""


def load_sentences(
    path: str | os.PathLike[str],
    tokenizer: Tokenizer,
    *,
    valid: str | os.PathLike[str] | None = None,
    test: str | os.PathLike[str] | None = None,
    label: str | None = None,
    text: str | None = None,
    length: int | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> TextSource:
    """The sentences of a TSV or CSV file and of the files of the other parts, tokenised.

    Args:
      path: the training part, or all there is.
      tokenizer: of the model's folder.
      valid, test: files of the other parts. By default they are looked for beside `path`: with ``sst2_train.tsv`` those
        are ``sst2_dev.tsv`` and ``sst2_test.tsv``. Without a test part one is held out, stratified by class.
      label, text: as for `read_sentences`.
      length: in tokens, at which longer sentences are cut and to which others are padded. By default the least of
        `LENGTHS` that cuts no more than one training sentence in a hundred.
      test_fraction, seed: of the test part that is held out.

    Raises:
      DataError: as `read_sentences` does, and for a label that the training part has not, or a single class.

    >>> import tempfile, tokenizers
    >>> words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[PAD]": 0, "joy": 1, "dull": 2}))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "reviews_train.tsv").write_text("good\\tjoy\\nbad\\tdull\\n")
    ...     _ = Path(folder, "reviews_test.tsv").write_text("good\\tjoy\\n")
    ...     data = load_sentences(f"{folder}/reviews_train.tsv", Tokenizer(words, padding_id=0, max_length=8))
    >>> len(data.train), len(data.test), data.train.classes
    (2, 1, ('bad', 'good'))
    """
    path = Path(path)
    files = {"train": path} | siblings(path)
    files |= {part: Path(file) for part, file in (("valid", valid), ("test", test)) if file is not None}
    found = {part: read_sentences(file, label=label, text=text) for part, file in files.items()}
    notes = [f"{part} part: {file.name}" for part, file in files.items() if part != "train"]
    columns = {part: np.array(sentences.labels) for part, sentences in found.items()}
    labels = read_labels(columns, where=f"'{path}'", task="classification")
    if len(labels.classes) < 2:
        raise DataError(f"'{path}' has a single class, {labels.classes[0]!r}: nothing to learn")
    longest = length or usual_length(found["train"].texts, tokenizer)
    parts = {
        part: TextData(tokenizer(sentences.texts, length=longest), labels.y[part], labels.classes, files[part].name)
        for part, sentences in found.items()
    }
    notes.append(padding_note([data.x["mask"] for data in parts.values()]))
    if "test" not in parts:
        shares = (1 - test_fraction, test_fraction)
        kept, held = stratified_split(parts["train"].y, shares, seed=seed, classes=labels.classes)
        parts["test"], parts["train"] = parts["train"].take(held), parts["train"].take(kept)
        notes.append(f"test part: {100 * test_fraction:g} % of the sentences, held out, stratified with seed {seed}")
    return TextSource(path.name.split(".")[0], parts["train"], parts["test"], parts.get("valid"), tuple(notes))


def usual_length(texts: tuple[str, ...], tokenizer: Tokenizer) -> int:
    """The least of `LENGTHS` that cuts no more than one of `texts` in a hundred, at most what the tokenizer allows."""
    longest = np.quantile(tokenizer(texts)["mask"].sum(1), KEPT_WHOLE)
    return min(next((n for n in LENGTHS if n >= longest), tokenizer.max_length), tokenizer.max_length)


def padding_note(masks: Sequence[np.ndarray]) -> str:
    """How long the sentences of some parts were made, by their masks `[N, L]`.

    >>> padding_note([np.array([[1, 1], [1, 0]])])
    'sentences are padded to 2 tokens; 1 of 2 fill them, or are cut'
    """
    full = sum(int(mask.all(1).sum()) for mask in masks)
    sizes = sum(map(len, masks))
    return f"sentences are padded to {masks[0].shape[1]} tokens; {full} of {sizes} fill them, or are cut"
