"""Every model of the catalogue can be built by name, and its groups match every leaf once."""

import jax
import jax.numpy as jnp
import pytest

from tljax.models import CATALOG, ModelError, build
from tljax.tree import leaf_names, select

X = jnp.zeros((2, 16, 16, 3))
DEEP = ["resnet56", "resnet110"]  # slow to trace
SMALL = [name for name in CATALOG if name not in DEEP]


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in DEEP)])
def test_every_model(name):
    model = build(name, num_classes=7)
    params = jax.eval_shape(model.init, jax.random.key(0), X)
    out = jax.eval_shape(model.apply, params, X)
    assert out.logits.shape == (2, 7)
    assert out.features.shape[0] == 2
    grouped = [name for group in model.groups for name in select(group).names(params)]
    assert sorted(grouped) == sorted(leaf_names(params))
    assert model.groups[-1] == "head/**"
    assert all(name.startswith(("backbone/", "head/")) for name in grouped)
    assert model.name.startswith(name)


def test_options_reach_the_constructor():
    params = jax.eval_shape(build("mlp", 3, hidden=(4, 5)).init, jax.random.key(0), X)
    assert params["backbone"]["block_01"]["dense"]["kernel"].shape == (4, 5)
    assert build("vit-ti", 3, patch=8).name == "vit-ti8"


def test_errors_name_the_thing():
    with pytest.raises(ModelError, match=r"no model is called 'resnet50'; the nearest are .*there are mlp, lenet"):
        build("resnet50", 3)
    with pytest.raises(ModelError, match="lenet has no option 'widht'; it has channels, kernel, hidden"):
        build("lenet", 3, widht=3)
    with pytest.raises(ModelError, match="vit-s has no option 'shortcut'"):
        build("vit-s", 3, shortcut="A")
