"""Data sets of sentences: CSV files, columns by name, parts beside the file, one length."""

import gzip

import pytest
from word_tokenizer import TOKENIZER

from tljax.data import DataError
from tljax.data.sentences import read_sentences
from tljax.data.text_source import load_sentences


def test_csv_with_quotes_and_a_header(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text('id,text,label\n1,"dull, ""dull""\nand long",0\n\n2,a joy,1\n')
    assert read_sentences(file) == (('dull, "dull"\nand long', "a joy"), ("0", "1"))
    with gzip.open(tmp_path / "b.csv.gz", "wt") as packed:
        packed.write("1,a joy\n0,dull\n")
    assert read_sentences(tmp_path / "b.csv.gz") == (("a joy", "dull"), ("1", "0"))


def test_columns_by_name(tmp_path):
    file = tmp_path / "a.tsv"
    file.write_text("mood\ttext\tid\n1\ta joy\t3\n0\tdull\t4\n")
    assert read_sentences(file, label="mood").labels == ("1", "0")
    assert read_sentences(file, label="Mood", text="id").texts == ("3", "4")
    with pytest.raises(DataError, match=r"has no column 'moood'; the nearest in its first line: 'mood'"):
        read_sentences(file, label="moood")
    (tmp_path / "b.csv").write_text("verdict,words\n1,a joy\n0,dull\n")
    assert read_sentences(tmp_path / "b.csv", label="verdict").texts == ("a joy", "dull")


def test_a_line_too_long_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("1,a joy\n0,dull,dull\n")
    with pytest.raises(DataError, match="line 2 has 3 cells; expected 2, label,sentence"):
        read_sentences(tmp_path / "a.csv")


@pytest.fixture
def parts(tmp_path):
    for part, rows in (("train", 40), ("dev", 6), ("test", 8)):
        lines = [f"{'yes' if i % 2 else 'no'}\t{'word ' * (i % 5 + 1)}" for i in range(rows)]
        (tmp_path / f"mood_{part}.tsv").write_text("\n".join(lines))
    return tmp_path


def test_the_parts_beside_a_file(parts):
    found = load_sentences(parts / "mood_train.tsv", TOKENIZER)
    assert (len(found.train), len(found.valid), len(found.test)) == (40, 6, 8)
    assert found.train.classes == found.test.classes == ("no", "yes")
    assert {data.x["ids"].shape[1] for data in (found.train, found.valid, found.test)} == {16}
    assert found.notes[:2] == ("test part: mood_test.tsv", "valid part: mood_dev.tsv")
    assert "16 tokens; 0 of 54" in found.notes[2]
    chosen = load_sentences(parts / "mood_train.tsv", TOKENIZER, test=parts / "mood_dev.tsv", length=3)
    assert (len(chosen.test), chosen.test.x["ids"].shape[1]) == (6, 3)


def test_without_a_test_part_one_is_held_out(parts):
    for part in ("dev", "test"):
        (parts / f"mood_{part}.tsv").unlink()
    found = load_sentences(parts / "mood_train.tsv", TOKENIZER)
    assert (len(found.train), len(found.test), found.valid) == (32, 8, None)
    assert "held out" in found.notes[-1]
    assert found.test.y.mean() == 0.5


def test_bad_labels(parts):
    (parts / "mood_test.tsv").write_text("maybe\tword")
    with pytest.raises(DataError, match="the test part has labels that the training part lacks"):
        load_sentences(parts / "mood_train.tsv", TOKENIZER)
    (parts / "one.tsv").write_text("yes\tword\nyes\tmore")
    with pytest.raises(DataError, match="a single class, 'yes'"):
        load_sentences(parts / "one.tsv", TOKENIZER)
