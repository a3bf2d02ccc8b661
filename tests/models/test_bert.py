"""Text encoders: transformers' outputs on the same weights, files in and out bit for bit, published counts."""

import importlib
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tljax.checkpoints import load_weights, save_weights
from tljax.checkpoints.keymap import KeymapError
from tljax.models import ModelError, bert, export, load_pretrained, pooling
from tljax.models.bert_names import from_config, recognise
from tljax.models.bert_sizes import sizes_of
from tljax.objectives import cross_entropy
from tljax.training import fit
from tljax.tree import count, from_named, leaf_names, map_named, named_leaves, select

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))

from made_weights import made_weights  # noqa: E402
from make_bert import CASES, sentences  # noqa: E402

Encoder = importlib.import_module("tljax.models.bert").Encoder
KEY = jax.random.key(0)
IDS = np.array([[2, 5, 7, 3], [2, 9, 3, 0]], np.int32)
TINY = {"width": 8, "depth": 1, "heads": 2, "vocab": 12, "positions": 8, "dropout": 0.0, "attention_dropout": 0.0}
CLASSIFIERS = [case for case in CASES if "ForSequenceClassification" in CASES[case][0]]


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN / "bert.npz"))


def written(golden, case, folder):
    """The folder that transformers would write for `case`, and its configuration."""
    about = json.loads(str(golden[f"{case}/about"]))
    flat = made_weights({name: tuple(shape) for name, shape in about["shapes"].items()})
    folder.mkdir(exist_ok=True)
    save_weights(flat, folder / "model.safetensors", separator=".")
    (folder / "config.json").write_text(json.dumps(about["config"]))
    return about["config"], flat


def made_params(model, x=IDS):
    """Parameters without the compilation of an initialisation."""
    rng = np.random.default_rng(0)

    def made(name, leaf):
        return jnp.asarray(rng.normal(float(name.endswith("scale")), 0.3, leaf.shape), leaf.dtype)

    return map_named(made, jax.eval_shape(model.init, KEY, x))


def inputs(config):
    ids, mask, kinds = sentences(config["pad_token_id"], config.get("type_vocab_size", 0))
    x = {"ids": ids, "mask": mask} | ({} if kinds is None else {"types": kinds})
    return {name: jnp.asarray(value, jnp.int32) for name, value in x.items()}


@pytest.mark.one_in(5)
@pytest.mark.parametrize("case", CASES)
def test_same_outputs_as_transformers(case, golden, tmp_path):
    config, _ = written(golden, case, tmp_path / "in")
    loaded = load_pretrained(tmp_path / "in")
    x = inputs(config)
    out = loaded.model.apply(loaded.params, x)
    states = Encoder(sizes_of(**from_config(config).options)).apply({"params": loaded.params["backbone"]}, x)
    hidden = golden[f"{case}/hidden"]
    np.testing.assert_allclose(np.stack(states), hidden, rtol=0, atol=1e-5)
    if case in CLASSIFIERS:
        np.testing.assert_allclose(out.features, golden[f"{case}/pooled"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(out.logits, golden[f"{case}/logits"], rtol=0, atol=1e-5)
        return
    mask = np.asarray(x["mask"])[..., None]
    np.testing.assert_allclose(out.features, (hidden[-1] * mask).sum(1) / mask.sum(1), rtol=0, atol=1e-5)
    options = from_config(config).options
    if f"{case}/pooled" in golden:
        pooled = bert(num_classes=2, **options | {"pool": "pooler"}).apply(loaded.params, x).features
        np.testing.assert_allclose(pooled, golden[f"{case}/pooled"], rtol=0, atol=1e-5)
    first = bert(num_classes=2, **options | {"pool": "cls"}).apply(loaded.params, x).features
    np.testing.assert_allclose(first, hidden[-1][:, 0], rtol=0, atol=1e-5)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("case", [*CLASSIFIERS, "distilbert"])
def test_round_trip_is_bit_equal(case, golden, tmp_path):
    _, flat = written(golden, case, tmp_path / "in")
    loaded = load_pretrained(tmp_path / "in")
    params = loaded.params if case in CLASSIFIERS else {"backbone": loaded.params["backbone"]}
    export(loaded.model, params, tmp_path / "out", convention=loaded.convention)
    there = load_weights(tmp_path / "out" / "model.safetensors")
    back = {name.replace("/", "."): leaf for name, leaf in named_leaves(there).items()}
    assert set(back) == set(flat)
    assert all(np.array_equal(back[name], flat[name]) and back[name].dtype == flat[name].dtype for name in flat)
    again = load_pretrained(tmp_path / "out")
    assert again.convention == loaded.convention
    assert jax.tree.all(jax.tree.map(np.array_equal, again.params["backbone"], loaded.params["backbone"]))


@pytest.mark.parametrize(
    "case",
    ["bert classifier", "roberta classifier"]
    + [
        pytest.param(case, marks=pytest.mark.slow)
        for case in ("distilbert classifier", "bert", "roberta", "distilbert")
    ],
)
def test_transformers_reads_what_is_exported(case, golden, tmp_path):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    config, flat = written(golden, case, tmp_path / "in")
    loaded = load_pretrained(tmp_path / "in")
    params = loaded.params if case in CLASSIFIERS else {"backbone": loaded.params["backbone"]}
    export(loaded.model, params, tmp_path / "out", convention=loaded.convention)
    auto = transformers.AutoModelForSequenceClassification if case in CLASSIFIERS else transformers.AutoModel
    model, info = auto.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert {name: leaf.numpy().tobytes() for name, leaf in model.state_dict().items()} == {
        name: leaf.tobytes() for name, leaf in flat.items()
    }
    x = {name: torch.from_numpy(np.array(value, np.int64)) for name, value in inputs(config).items()}
    named = {"input_ids": x["ids"], "attention_mask": x["mask"]}
    with torch.no_grad():
        out = model(**named | ({"token_type_ids": x["types"]} if "types" in x else {}), output_hidden_states=True)
    np.testing.assert_allclose(torch.stack(out.hidden_states), golden[f"{case}/hidden"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_golden_file_is_what_its_script_makes(case, golden):
    pytest.importorskip("transformers")
    from make_bert import result

    for key, value in result(case).items():
        if key != "about":
            np.testing.assert_allclose(value, golden[f"{case}/{key}"], rtol=0, atol=1e-5)


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("variant", "options", "published"),
    [
        ("base", {}, 109_482_240),
        ("large", {}, 335_141_888),
        ("distilbert", {"pool": "mean"}, 66_362_880),
        ("roberta-base", {}, 124_645_632),
        ("minilm-l6", {}, 22_713_216),
        ("minilm-l12", {}, 33_360_000),
    ],
)
def test_published_parameter_counts(variant, options, published):
    model = bert(variant, **options)
    params = jax.eval_shape(model.init, KEY, IDS)
    assert count(params["backbone"]) == published
    grouped = [name for group in model.groups for name in select(group).names(params)]
    assert sorted(grouped) == sorted(leaf_names(params))


@pytest.mark.slow
@pytest.mark.parametrize("style", ["bert", "roberta", "distilbert"])
def test_padding_changes_nothing(style):
    model = bert(style=style, pool="mean", **{**TINY, "positions": 10})
    pad = sizes_of(style=style).padding_id
    params = made_params(model)
    short = model.apply(params, {"ids": IDS[:1], "mask": np.ones((1, 4), np.int32)}).features
    ids = np.full((2, 7), pad, np.int32)  # the second sentence is all padding
    ids[0, :4] = IDS[0]
    long = model.apply(params, {"ids": ids, "mask": (ids != pad).astype(np.int32)}).features
    np.testing.assert_allclose(long[:1], short, rtol=0, atol=1e-6)
    assert np.all(np.isfinite(long))
    alone = model.apply(params, ids).features  # without a mask padding is told by its id
    np.testing.assert_array_equal(alone, long)


def test_the_same_architecture_from_bare_files(tmp_path):
    for options in ({}, {"style": "roberta"}, {"style": "distilbert"}):
        model = bert("tiny", 3, **{"depth": 1, "heads": 2, "vocab": 12, "positions": 9, **options})
        params = jax.eval_shape(model.init, KEY, IDS)
        params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), params)
        keymap = model.keymaps["transformers"]
        shapes = {name: leaf.shape for name, leaf in keymap.export(params).items()}
        found = recognise(shapes).options
        expected = sizes_of("tiny", **{"depth": 1, "heads": 2, "vocab": 12, "positions": 9, **options})
        assert sizes_of(**found) == expected


def test_names_of_2018_and_a_file_without_head(golden, tmp_path):
    config, flat = written(golden, "bert pretraining", tmp_path / "in")
    old = {name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): a for name, a in flat.items()}
    old["bert.embeddings.position_ids"] = np.arange(16)[None]
    save_weights(old, tmp_path / "in" / "model.safetensors", separator=".")
    loaded = load_pretrained(tmp_path / "in", num_classes=5)
    assert loaded.convention == "transformers-2018"
    assert loaded.params["head"]["kernel"].shape == (12, 5)
    assert "bert.embeddings.position_ids" in loaded.report.ignored
    new = load_pretrained(written_folder(flat, config, tmp_path / "new"))
    assert jax.tree.all(jax.tree.map(np.array_equal, new.params["backbone"], loaded.params["backbone"]))


def written_folder(flat, config, folder):
    folder.mkdir()
    save_weights(flat, folder / "model.safetensors", separator=".")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_model_that_pools_otherwise_is_not_exported_as_a_classifier(tmp_path):
    model = bert(pool="mean", **TINY)
    params = made_params(model)
    with pytest.raises(KeymapError, match="head"):
        export(model, params, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_fit_takes_ids_and_mask():
    ids = np.tile(IDS, (4, 1))
    x = {"ids": ids, "mask": (ids != 0).astype(np.int32)}
    y = np.tile(np.array([0, 1], np.int32), 4)
    model = bert(pool="mean", pooler=False, **{**TINY, "dropout": 0.1})
    options = {"optimizer": optax.adam(0.02), "steps": 100, "batch_size": 4, "progress": False}
    result = fit(model, made_params(model, x), cross_entropy(), train=(x, y), **options)
    np.testing.assert_array_equal(jnp.argmax(model.apply(result.params, x).logits, axis=1), y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "huge"}, "variant='huge'; expected 'tiny', 'base'"),
        ({"style": "gpt"}, "style='gpt'; expected 'bert'"),
        ({"heads": 5}, "width=768 is not a multiple of heads=5"),
        ({"pool": "max"}, "pool='max'; expected 'mean', 'cls', 'pooler'"),
        ({"pool": "pooler", "pooler": False}, "pool='pooler' needs pooler=True"),
        ({"style": "distilbert", "types": 2}, "no token types"),
        ({"act": "swish9"}, "activation='swish9'"),
    ],
)
def test_options_that_are_none(options, message):
    with pytest.raises(ModelError, match=message):
        bert(**options)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({"input_ids": IDS}, "a dict of 'ids', 'mask' and perhaps 'types'; found 'input_ids'"),
        (IDS[0], r"ids are integers \[B, L\]; found int32 \(4,\)"),
        (IDS.astype(np.float32), "ids are integers"),
        ({"ids": IDS, "mask": IDS[:, :3]}, "differ in shape"),
        (np.ones((1, 9), np.int32), "sentences of 9 tokens; there are positions for 8"),
    ],
)
def test_inputs_that_are_none(x, message):
    with pytest.raises(ModelError, match=message):
        jax.eval_shape(bert(**TINY).init, KEY, x)


def test_configurations_that_are_none(tmp_path):
    assert from_config({"model_type": "gpt2"}) is None
    with pytest.raises(ModelError, match="BertForTokenClassification: its head is none for sentences"):
        from_config({"model_type": "bert", "architectures": ["BertForTokenClassification"]})
    with pytest.raises(ModelError, match="relative positions"):
        from_config({"model_type": "bert", "position_embedding_type": "relative_key"})


def test_pooling_of_sentence_transformers(tmp_path):
    with pytest.raises(ModelError, match="1_Pooling"):
        pooling(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    file = tmp_path / "1_Pooling" / "config.json"
    modes = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False, "word_embedding_dimension": 384}
    for config, expected in (
        (modes | {"pooling_mode_mean_tokens": True}, "mean"),
        (modes | {"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode": "cls"}, "cls"),
    ):
        file.write_text(json.dumps(config))
        assert pooling(tmp_path) == expected
    for text, message in (("{", "cannot read"), ("[]", "JSON object"), ('{"pooling_mode": "max"}', "pools by max")):
        file.write_text(text)
        with pytest.raises(ModelError, match=message):
            pooling(tmp_path)


def sentence_folder(golden, folder, mode, *modules):
    """A folder as sentence-transformers writes it."""
    config, _ = written(golden, "bert", folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{mode}": True}))
    types = [f"sentence_transformers.models.{name}" for name in ("Transformer", "Pooling", *modules)]
    (folder / "modules.json").write_text(json.dumps([{"idx": i, "type": name} for i, name in enumerate(types)]))
    return config


def test_the_pooling_of_a_folder_is_read_and_told(golden, tmp_path):
    x = inputs(sentence_folder(golden, tmp_path / "in", "cls_token", "Dense", "Normalize"))
    loaded = load_pretrained(tmp_path / "in")
    assert loaded.report.recognised.endswith(
        "pool='cls', pooler=True), recognised by config.json and 1_Pooling/config.json"
    )
    assert loaded.report.notes[1:] == (
        "modules.json has a module Dense after the encoder, which is not read",
        "modules.json scales the features to unit length; write normalize=True for that",
    )
    first = golden["bert/hidden"][-1][:, 0]
    np.testing.assert_allclose(loaded.model.apply(loaded.params, x).features, first, rtol=0, atol=1e-5)
    unit = load_pretrained(tmp_path / "in", normalize=True)
    assert len(unit.report.notes) == 2
    expected = first / np.linalg.norm(first, axis=1, keepdims=True)
    np.testing.assert_allclose(unit.model.apply(unit.params, x).features, expected, rtol=0, atol=1e-5)
    assert unit.model.keymaps["transformers"].config is None  # transformers would compute something else


def test_a_pooling_of_ones_own_goes_before_the_folders(golden, tmp_path):
    sentence_folder(golden, tmp_path / "in", "max_tokens")
    with pytest.raises(ModelError, match=r"pools by max_tokens; expected mean or cls, or write pool="):
        load_pretrained(tmp_path / "in")
    loaded = load_pretrained(tmp_path / "in", pool="mean")
    assert loaded.report.recognised.endswith("recognised by config.json")
    (tmp_path / "in" / "modules.json").write_text("{}")
    with pytest.raises(ModelError, match=r"modules.json' holds dict; expected a JSON array"):
        load_pretrained(tmp_path / "in", pool="mean")


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_an_encoder_that_was_written_pools_as_before(pool, tmp_path):
    model = bert(pool=pool, normalize=pool == "cls", **TINY)
    params = made_params(model)
    export(model, params, tmp_path / "out", convention="transformers-base")
    assert pooling(tmp_path / "out") == pool
    kinds = [module["type"].rsplit(".")[-1] for module in json.loads((tmp_path / "out/modules.json").read_text())]
    assert kinds == ["Transformer", "Pooling", *(["Normalize"] if pool == "cls" else [])]
    loaded = load_pretrained(tmp_path / "out", normalize=pool == "cls", dropout=0.0)
    assert f"pool='{pool}'" in loaded.report.recognised
    x = {"ids": IDS, "mask": (IDS != 0).astype(np.int32)}
    np.testing.assert_array_equal(loaded.model.apply(loaded.params, x).features, model.apply(params, x).features)


def test_the_pooler_of_bert_is_nothing_for_sentence_transformers(tmp_path):
    model = bert(**TINY)
    export(model, made_params(model), tmp_path / "out", convention="transformers-base")
    assert not (tmp_path / "out/modules.json").exists()


def test_leaves_have_the_names_of_a_keymap():
    params = jax.eval_shape(bert("tiny").init, KEY, IDS)
    assert {"backbone/block_01/attention/query/kernel", "head/bias"} <= set(leaf_names(params))
    keymap = bert("tiny").keymaps["transformers"]
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape), params)
    assert leaf_names(from_named(keymap.import_(keymap.export(zeros), leaf_names(params)).leaves)) == leaf_names(params)
