"""Folders of peft that are damaged, incomplete, or ask for what we do not have: an error that names it."""

import json

import jax
import numpy as np
import peft_cases
import pytest

from tljax.checkpoints import CheckpointError, save_weights
from tljax.checkpoints.keymap import KeymapError
from tljax.peft import LoHa, dora, full, join, load_adapters, lora, merge, save_adapters
from tljax.tree import named_leaves
from tljax.types import TljaxError

CASE = "bert base lora"  # the tensors of layer 1 only
QUERY = "base_model.model.encoder.layer.1.attention.self.query"
KEY = jax.random.key(0)


@pytest.fixture
def base():
    return peft_cases.base("bert base")


def load(folder, base):
    return load_adapters(folder, base.model, base.params)


def rewritten(folder, change):
    """The folder with its tensors changed by `change`, a function of the dict of them."""
    tensors = peft_cases.cases.made_tensors(CASE, peft_cases.about(CASE)["shapes"])
    change(tensors)
    save_weights(tensors, folder / "adapter_model.safetensors", separator=".")
    return folder


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layer_replication", [[0, 2]]),
        ("kasa_config", {"beta": 1.0}),
        ("alora_invocation_tokens", [1]),
        ("arrow_config", {"top_k": 1}),
        ("use_qalora", True),
        ("use_bdlora", {"nblocks": 2}),
        ("target_parameters", ["w"]),
        ("megatron_config", {"a": 1}),
        ("init_lora_weights", "pissa_niter_4"),
        ("init_lora_weights", "corda"),
        ("init_lora_weights", "loftq"),
        ("init_lora_weights", "lora_ga"),
        ("init_lora_weights", "tomorrow"),
        ("option_of_tomorrow", 3),
        ("r", "four"),
        ("r", 0),
        ("lora_alpha", True),
        ("target_modules", 5),
        ("rank_pattern", {"query": 1.5}),
        ("alpha_pattern", {"(": 1}),
        ("bias", "some"),
        ("modules_to_save", "head"),
    ],
)
def test_options_are_refused_by_name(field, value, base, tmp_path):
    with pytest.raises(TljaxError, match=r"\(" if field == "alpha_pattern" else field):
        load(peft_cases.written(CASE, tmp_path, **{field: value}), base)


@pytest.mark.parametrize("value", [None, False, {}, []])
def test_unknown_options_that_are_off_change_nothing(value, base, tmp_path):
    assert load(peft_cases.written(CASE, tmp_path, option_of_tomorrow=value), base).adapters


def test_methods_are_refused_by_name(base, tmp_path):
    with pytest.raises(TljaxError, match="peft_type is 'BOFT'"):
        load(peft_cases.written(CASE, tmp_path, peft_type="BOFT"), base)
    with pytest.raises(TljaxError, match="save_projection"):
        load(peft_cases.written("bert vera", tmp_path, save_projection=False), peft_cases.base("bert"))


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"r": NaN}', '{"r": 1, "r": 2}', "{}", '{"peft_type": 3}'])
def test_damaged_configurations(text, base, tmp_path):
    folder = peft_cases.written(CASE, tmp_path)
    (folder / "adapter_config.json").write_text(text)
    with pytest.raises(TljaxError, match="adapter_config"):
        load(folder, base)


def test_damaged_and_missing_files(base, tmp_path):
    folder = peft_cases.written(CASE, tmp_path)
    file = folder / "adapter_model.safetensors"
    whole = file.read_bytes()
    for end in (0, 4, 100, len(whole) - 1):
        file.write_bytes(whole[:end])
        with pytest.raises(CheckpointError):
            load(folder, base)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors"):
        load(folder, base)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match="does not exist"):
        load(folder, base)


CHANGES = {
    "lacks 'lora_B.weight'": lambda t: t.pop(f"{QUERY}.lora_B.weight"),
    "do not make its weight": lambda t: t.update({f"{QUERY}.lora_B.weight": np.ones((12, 3), np.float32)}),
    "without tensors in the file": lambda t: [t.pop(f"{QUERY}.lora_{part}.weight") for part in "AB"] and t.update(
        {name.replace("value", "query").replace("layer.1", "layer.0"): x for name, x in dict(t).items()}),
    "has no tensors in the file": lambda t: [t.pop(f"{QUERY}.lora_{part}.weight") for part in "AB"],
    "names that begin with": lambda t: t.update({"encoder.layer.0.x.lora_A.weight": np.ones((2, 2), np.float32)}),
    "nearest": lambda t: t.update({f"{QUERY[:-5]}quarry.lora_A.weight": np.ones((2, 2), np.float32)}),
    "lora_magnitude_vector": lambda t: t.update({f"{QUERY}.lora_magnitude_vector": np.ones(12, np.float32)}),
    "does not select": lambda t: t.update(
        {name.replace("query", "key"): x for name, x in dict(t).items() if "query" in name}),
}  # fmt: skip


@pytest.mark.parametrize("words", CHANGES)
def test_every_tensor_and_every_target_is_accounted_for(words, base, tmp_path):
    folder = peft_cases.written(CASE, tmp_path, layers_to_transform=None if "without" in words else [1])
    with pytest.raises(TljaxError, match=words):
        load(rewritten(folder, CHANGES[words]), base)


def test_grouped_convolutions_are_no_change_of_a_kernel(tmp_path):
    base = peft_cases.base("convnext")
    name = "base_model.model.convnext.encoder.stages.0.layers.0.dwconv"
    parts = {"A": (6, 6, 7, 7), "B": (6, 1, 1, 1)}
    save_weights({f"{name}.lora_{part}.weight": np.ones(shape, np.float32) for part, shape in parts.items()},
                 tmp_path / "adapter_model.safetensors", separator=".")  # fmt: skip
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "target_modules": ["dwconv"]}))
    with pytest.raises(TljaxError, match="grouped convolution"):
        load_adapters(tmp_path, base.model, base.params)
    adapters = lora(base.params, "**/stage_2/**/conv/kernel", key=KEY, rank=2)
    with pytest.raises(TljaxError, match="stage_2/block_00/conv/kernel' is the kernel of a depthwise"):
        save_adapters(adapters, tmp_path / "out", base.model, base.params)


def test_what_peft_cannot_express_is_named(base, tmp_path):
    params = base.params
    some = lora(params, "**/block_00/attention/query/kernel", key=KEY, rank=2)
    other = dora(params, "**/block_00/attention/value/kernel", key=KEY, rank=2)
    x = np.ones((12, 1), np.float32)
    third = {"backbone/block_00/attention/key/kernel": LoHa(x, x.T, x, x.T, {"scale": np.float32(1)})}
    for adapters, words in (
        (join(some, other), "query/kernel' .lora. and .*value/kernel' .dora."),
        (third, "key/kernel' has an adapter of kind 'loha'"),
        ({"backbone/nowhere/kernel": full(params, "**/pooler/bias")["backbone/pooler/bias"]}, "nowhere"),
    ):
        with pytest.raises(TljaxError, match=words):
            save_adapters(adapters, tmp_path / "out", base.model, params)
    assert not (tmp_path / "out").exists()
    with pytest.raises(KeymapError, match="'transformers-base'"):
        save_adapters(some, tmp_path / "out", base.model, params, convention="mine")
    save_adapters(some, tmp_path / "out", base.model, params)
    with pytest.raises(CheckpointError, match="overwrite=True"):
        save_adapters(some, tmp_path / "out", base.model, params)


@pytest.mark.parametrize("make", [lora, dora])
def test_adapters_of_a_fused_layer(make, tmp_path):
    """query, key and value are one layer in the names of timm: one adapter there, three here."""
    base = peft_cases.base("vit")
    adapters = make(base.params, "**/attention/{query,value}/kernel", key=KEY, rank=2)
    rng = np.random.default_rng(0)
    adapters = jax.tree.map(lambda x: x if x.ndim == 0 else x + rng.normal(0, 0.3, x.shape).astype(x.dtype), adapters)
    save_adapters(adapters, tmp_path / "one", base.model, base.params, convention="timm")
    first, report = load_adapters(tmp_path / "one", base.model, base.params)
    assert report.convention == "timm"
    assert len(first) == 6
    save_adapters(first, tmp_path / "two", base.model, base.params, convention="timm")
    second, _ = load_adapters(tmp_path / "two", base.model, base.params)
    wanted, *found = (named_leaves(merge(base.params, a)) for a in (adapters, first, second))
    for leaves in found:
        for name, leaf in wanted.items():
            np.testing.assert_allclose(leaves[name], leaf, rtol=0, atol=1e-6, err_msg=name)
    assert {name: x.a.shape[-1] for name, x in second.items()} == {name: x.a.shape[-1] for name, x in first.items()}
