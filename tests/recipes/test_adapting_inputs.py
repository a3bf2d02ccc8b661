"""What `tljax adapt` is given: modules of a user's own, and images that do not fit each other."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.data import load_whole
from tljax.models import ModelError
from tljax.recipes.adapting import adapt_settings
from tljax.recipes.adapting.models import model_of
from tljax.recipes.adapting.setup import load_setup
from tljax.recipes.options import SettingsError
from tljax.types import TljaxError

NET = """
import flax.linen as nn
from flax import nnx

class Net(nn.Module):
    num_classes: int
    width: int = 4

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_classes)(nn.relu(nn.Dense(self.width)(x)))

class Streams(nnx.Module):
    def __init__(self, num_classes, *, width=4, rngs):
        self.hidden, self.head = nnx.Linear(2, width, rngs=rngs), nnx.Linear(width, num_classes, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.hidden(x)))

def broken(num_classes):
    return "no module"

def fails(num_classes):
    raise KeyError("boo")

NUMBER = 5

class Raises(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_classes)(x @ x[0, :3, :3, 0])

class Wide(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_classes + 1)(x.reshape(len(x), -1))

class Gone(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(x, (9, 9)).reshape(len(x), -1)
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros)(x)
"""


def test_a_module_of_ones_own(tmp_path: pathlib.Path):
    file = tmp_path / "nets.py"
    file.write_text(NET)
    model = model_of(f"{file}:Net(width=3)", 5)
    params = model.init(jax.random.key(0), jnp.zeros((1, 2)))
    assert model.apply(params, jnp.zeros((7, 2))).logits.shape == (7, 5)
    model = model_of(f"{file}:Streams(width=6)", 5)
    starts = [model.init(jax.random.key(seed), jnp.zeros((1, 2))) for seed in (0, 1)]
    assert starts[0]["head"]["kernel"].shape == (6, 5)
    assert not np.array_equal(*(params["head"]["kernel"] for params in starts))
    (tmp_path / "wrong.py").write_text("x = y + 1")
    (tmp_path / "ends.py").write_text("raise SystemExit(3)")
    for spec, message in (
        (f"{file}:Streams(wdith=6)", "Streams takes no 'wdith'; did you mean 'width'"),
        (f"{file}:NUMBER", "NUMBER is 5; expected a class or function"),
        (f"{file}:fails", "called with num_classes=5; KeyError: 'boo'"),
        (f"{tmp_path}/wrong.py:Net", "wrong.py cannot be imported: NameError: name 'y' is not defined"),
        (f"{tmp_path}/ends.py:Net", "ends.py cannot be imported: SystemExit: 3"),
        (f"{file}:Nett", "defines no 'Nett'"),
        (f"{file}:broken", "gives str; expected a Linen"),
        (f"{file}:Net(wdith=3)", "Net takes no 'wdith'; did you mean 'width'"),
        (f"{tmp_path}/other.py:Net", "cannot be imported"),
        ("no.such.module:Net", "cannot be imported"),
        (str(file), r"is a file; say which of its models is meant, as .*nets\.py:NAME"),
    ):
        with pytest.raises(SettingsError, match=message):
            model_of(spec, 5)


def test_a_module_that_does_not_fit_the_data_is_told_before_training(tmp_path: pathlib.Path):
    file = tmp_path / "nets.py"
    file.write_text(NET)
    for name, message in (
        ("Raises", r"nets.py:Raises': it fails on a batch of the data, \[1, 8, 8, 1\], with .*Error"),
        (
            "Gone",
            r"nets.py:Gone': nothing of a batch of the data, \[1, 8, 8, 1\], reaches '.*kernel', \[0, 10\]; choose",
        ),
        ("Wide", r"nets.py:Wide': it should give \[B, 10\], num_classes outputs.*; found \[1, 11\] for one"),
    ):
        with pytest.raises(SettingsError, match=message):
            load_setup(adapt_settings({"method": "mcc", "model": f"{file}:{name}"}))


def test_images_that_are_too_small_for_a_model_of_the_catalogue_are_told():
    with pytest.raises(ModelError, match=r"lenet takes images with sides of 4 pixels or more; found .*\(1, 3, 3, 1\)"):
        load_setup(adapt_settings({"method": "mcc", "model": "lenet", "image_size": 3}))


def test_a_model_without_a_backbone_gets_a_bottleneck():
    setup = load_setup(adapt_settings({"method": "mcc", "model": "mlp(hidden=())", "bottleneck": 5}))
    assert setup.starts[0]["head"]["kernel"].shape == (5, 10)
    assert setup.model.apply(setup.starts[0], setup.domains.example).features.shape == (1, 5)


def test_images_on_two_scales_a_class_of_one_and_an_empty_target_are_told(tmp_path: pathlib.Path):
    digits = load_whole("digits-turned")
    for name, x, y in (
        ("wide", 255 * digits.x, digits.y),
        ("flat", 0 * digits.x, digits.y),
        ("few", digits.x[:11], [*range(10), 0]),
        ("none", digits.x[:0], digits.y[:0]),
    ):
        np.savez(tmp_path / f"{name}.npz", x=x, y=np.asarray(y))

    def setup(name):
        return load_setup(adapt_settings({"method": "mcc", "target": str(tmp_path / f"{name}.npz"), "image_size": 8}))

    for name, message in (
        ("wide", r"'digits-plain train' go from 0 to 1 and those of 'wide train' go from 0 to 255: bring both to one"),
        ("flat", r"all pixels of 'flat train' are 0"),
        ("few", r"'few' cannot be split into 2 parts, .*class '1' has 1"),
        ("none", "at least one|no examples|empty"),
    ):
        with pytest.raises(TljaxError, match=message):
            setup(name)
