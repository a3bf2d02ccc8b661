"""Every model of the catalogue can be built by name, and its groups match every leaf once."""

import jax
import jax.numpy as jnp
import pytest

from tljax.models import CATALOG, ModelError, build
from tljax.tree import count, leaf_names, named_leaves, select
from tljax.types import is_state

KEY, IMAGES = jax.random.key(0), jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
SLOW = [name for name in CATALOG if name in ("resnet56", "resnet110", "resnet34", "resnet101", "resnet152")]
SLOW += ["convnext-small", "convnext-base", "convnext-large", "wide-resnet28-10"]
SLOW += ["vit-s16", "vit-b16", "vit-b32", "vit-l16", "deit-s16", "deit-b16", "dinov2-b14", "dinov2-l14"]
SLOW += ["dinov2-g14", "clip-b16", "clip-l14", "bert-large", "roberta-base", "roberta-large", "minilm-l12"]
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in CATALOG]


def example_of(name):
    return IMAGES if CATALOG[name].example is None else CATALOG[name].example


@pytest.mark.one_in(8)
@pytest.mark.parametrize("name", NAMES)
def test_every_model(name):
    model, x = build(name, num_classes=7), example_of(name)
    params = jax.eval_shape(model.init, KEY, x)
    out = jax.eval_shape(model.apply, params, x)
    assert out.logits.shape[1:] == (7,)
    assert out.features.shape[0] == out.logits.shape[0]
    grouped = [name for group in model.groups for name in select(group).names(params)]
    assert sorted(grouped) == sorted(leaf_names(params))
    assert model.groups[-1] == "head/**"
    assert all(name.startswith(("backbone/", "head/")) for name in grouped)
    assert model.name.startswith(name)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", NAMES)
def test_every_model_as_published(name):
    entry = CATALOG[name]
    model = entry.constructor()
    shapes = named_leaves(jax.eval_shape(model.init, KEY, example_of(name)))
    if entry.published:
        counted = [n for n in shapes if not is_state(n) and not (entry.headless and n.startswith("head/"))]
        assert count({name: shapes[name] for name in counted}) == entry.published
    for convention, keymap in model.keymaps.items():
        binding = keymap.bind(shapes)
        assert all(leaf.startswith("head/") for leaf in binding.unmapped), convention
        assert len(set(binding.expected)) == len(binding.expected)


def test_options_reach_the_constructor():
    params = jax.eval_shape(build("mlp", 3, hidden=(4, 5)).init, KEY, IMAGES)
    assert params["backbone"]["block_01"]["dense"]["kernel"].shape == (4, 5)
    assert build("vit-ti", 3, patch=8).name == "vit-ti8"


def test_errors_name_the_thing():
    with pytest.raises(ModelError, match=r"no model is called 'resnet51'; the nearest are .*there are mlp, lenet"):
        build("resnet51", 3)
    with pytest.raises(ModelError, match="lenet has no option 'widht'; it has channels, kernel, hidden"):
        build("lenet", 3, widht=3)
    with pytest.raises(ModelError, match="vit-s has no option 'shortcut'"):
        build("vit-s", 3, shortcut="A")
