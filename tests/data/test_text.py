"""Sentences in tables, tokenisers of folders, and padding to few lengths."""

import gzip
import json
import sys

import numpy as np
import pytest

from tljax.data import DataError
from tljax.data.text import LENGTHS, by_length, load_text, load_tokenizer, read_sentences

WORDS = ["<pad>", "<unk>", "<s>", "</s>", "good", "bad", "film", "a"]


@pytest.fixture
def folder(tmp_path):
    """A folder with a tokenizer.json of eight words, that would pad and cut by itself."""
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {word: i + 1 for i, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.add_special_tokens(WORDS[:4])
    ends = [("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])]
    made.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    made.enable_padding(pad_id=vocabulary["<pad>"], pad_token="<pad>", length=128)
    made.enable_truncation(3)
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_ids_and_mask(folder):
    x = load_tokenizer(folder)(["good film", "a bad bad odd film"])
    assert {name: (value.shape, value.dtype) for name, value in x.items()} == {
        "ids": ((2, 16), np.int32),
        "mask": ((2, 16), np.int32),
    }
    assert x["ids"][0].tolist() == [3, 5, 7, 4] + 12 * [1]
    assert x["ids"][1].tolist() == [3, 8, 6, 6, 2, 7, 4] + 9 * [1]
    assert x["mask"].sum(1).tolist() == [4, 7]


def test_lengths_are_few(folder):
    tokenizer = load_tokenizer(folder)
    for words, expected in ((1, 16), (14, 16), (15, 32), (100, 128), (254, 256), (511, 512), (2000, 512)):
        assert tokenizer([" ".join(["film"] * words)])["ids"].shape == (1, expected)
    assert load_tokenizer(folder, max_length=40)(["film " * 39])["ids"].shape == (1, 40)
    cut = tokenizer(["good bad film", "a"], length=4)
    assert cut["ids"].tolist() == [[3, 5, 6, 4], [3, 8, 4, 1]]
    assert tokenizer(["good bad film"])["mask"].sum() == 5  # the cut above is forgotten


def test_the_longest_is_what_the_folder_says(folder):
    assert load_tokenizer(folder).max_length == 512
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 10**30}))
    assert load_tokenizer(folder).max_length == 512
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 128}))
    assert load_tokenizer(folder).max_length == 128
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 256}))
    assert load_tokenizer(folder).max_length == 256


def test_padding_told_by_the_configuration(folder):
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    made.no_padding()
    made.save(str(folder / "tokenizer.json"))
    assert load_tokenizer(folder).padding_id == 1
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": {"content": "</s>"}}))
    assert load_tokenizer(folder).padding_id == 4


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz"])
@pytest.mark.parametrize(
    "content",
    ['1\ta "joy\n0\tdull , "dull"\n', 'label\tsentence\n1\ta "joy\n0\tdull , "dull"\r\n',
     'idx\tSentence\tlabel\n7\ta "joy\t1\n\n8\tdull , "dull"\t0'],
)  # fmt: skip
def test_sentences_of_a_table(tmp_path, name, content):
    opened = gzip.open if name.endswith("gz") else open
    with opened(tmp_path / name, "wt", newline="") as file:
        file.write(content)
    assert read_sentences(tmp_path / name) == (('a "joy', 'dull , "dull"'), ("1", "0"))


def test_tokenised_tables(folder):
    (folder / "train.tsv").write_text("dog\tgood film\ncat\tbad\ndog\tfilm\n")
    (folder / "test.tsv").write_text("dog\tfilm\n")
    tokenizer = load_tokenizer(folder)
    train = load_text(folder / "train.tsv", tokenizer)
    assert (train.classes, train.y.tolist(), train.y.dtype) == (("cat", "dog"), [1, 0, 1], np.int32)
    test = load_text(folder / "test.tsv", tokenizer, classes=train.classes, length=8)
    assert (test.y.tolist(), test.x["ids"].shape) == ([1], (1, 8))
    (folder / "test.tsv").write_text("owl\tfilm\n")
    with pytest.raises(DataError, match="labels that the list of 2 classes lacks"):
        load_text(folder / "test.tsv", tokenizer, classes=train.classes)


def test_numbers_as_labels_are_classes(folder):
    (folder / "train.tsv").write_text("10\tgood\n2\tbad\n")
    assert load_text(folder / "train.tsv", load_tokenizer(folder)).classes == ("2", "10")
    (folder / "test.tsv").write_text("10\tgood\n")
    again = load_text(folder / "test.tsv", load_tokenizer(folder), classes=("2", "10"))
    assert again.y.tolist() == [1]


def test_parts_by_length_hold_every_sentence_once():
    rng = np.random.default_rng(0)
    used = rng.integers(0, 100, 200)
    mask = (np.arange(100)[None] < used[:, None]).astype(np.int32)
    x = {"ids": rng.integers(1, 9, (200, 100)).astype(np.int32) * mask, "mask": mask}
    seen = []
    for indices, part in by_length(x):
        L = part["ids"].shape[1]
        assert L in (*LENGTHS, 100)
        assert not mask[indices, L:].any()
        assert L == 16 or used[indices].min() > L // 2  # no shorter length would do
        np.testing.assert_array_equal(part["ids"], x["ids"][indices, :L])
        seen += indices.tolist()
    assert sorted(seen) == list(range(200))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no sentences"),
        ("label\tsentence\n", "has no sentences"),
        ("1\tgood\n0 bad\n", "line 2 has 1 cells; expected 2, label<TAB>sentence"),
        ("1\tgood\n\n\tbad\n", "line 3 has no label"),
        ("1\t \n", "line 1 has no sentence"),
    ],
)
def test_tables_that_are_none(tmp_path, content, message):
    (tmp_path / "a.tsv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_sentences(tmp_path / "a.tsv")


def test_files_that_are_none(tmp_path):
    with pytest.raises(DataError, match=r"no file or folder .*nothing"):
        read_sentences(tmp_path / "nothing.tsv")
    with pytest.raises(DataError, match="is a folder; expected a TSV or CSV file"):
        read_sentences(tmp_path)
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(b"1\tgood\n" * 99)[:-9])
    with pytest.raises(DataError, match="truncated or damaged"):
        read_sentences(tmp_path / "a.tsv.gz")
    (tmp_path / "a.tsv").write_bytes(b"1\t\xff\xfe\n")
    with pytest.raises(DataError, match="damaged"):
        read_sentences(tmp_path / "a.tsv")


def test_folders_that_are_none(folder):
    for text in ("{", "[]"):
        (folder / "tokenizer_config.json").write_text(text)
        with pytest.raises(DataError, match=r"tokenizer_config\.json"):
            load_tokenizer(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="no sound tokenizer"):
        load_tokenizer(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"has no tokenizer\.json"):
        load_tokenizer(folder)


def test_calls_that_are_none(folder):
    tokenizer = load_tokenizer(folder)
    for texts in ("good", []):
        with pytest.raises(DataError, match="a list of sentences"):
            tokenizer(texts)
    with pytest.raises(DataError, match="length=513; expected 1 to 512"):
        tokenizer(["good"], length=513)


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DataError, match=r"pip install 'tljax\[text\]'"):
        load_tokenizer(tmp_path)
