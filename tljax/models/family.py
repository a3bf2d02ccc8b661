"""Families of architectures, as pretrained weights know them.

To add a family, write in the file of the model a constructor whose `Model` has `keymaps` (`tljax.checkpoints.keymap`,
with the rules by layer of `tljax.checkpoints.layers`), a `FAMILY`, and one line in `FAMILIES` below:

    FAMILY = Family(
        name="resnet",
        build=resnet,                      # takes the options that the two functions below find, and num_classes
        from_config=_from_config,          # config.json of a Hugging Face or timm folder -> Found, or None
        recognise=_recognise,              # the names and shapes in a bare file -> Found, or None
        resize={"backbone/stem/conv/kernel": input_channels()},   # named rules for inputs of another kind
    )

`recognise` must look at names and sizes that tell the family; that all the other leaves fit is checked afterwards, by
the keymaps.  What goes into config.json on export is the `config` of the keymap.  The two functions stand best in a
file ``<model>_names.py`` beside the model, with the keymaps; `resnet_names.py` is an example.
"""

import importlib
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tljax.models.wrapping import ModelError
from tljax.tree import Rule
from tljax.types import Model

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of every leaf by its name in a file."""


class Found(NamedTuple):
    """An architecture that was recognised."""

    options: dict[str, Any]
    """Arguments of the constructor, all but `num_classes`."""
    example: Any
    """Shapes and dtypes of a batch of inputs, as `jax.ShapeDtypeStruct`; None where the file does not tell them."""
    num_classes: int | None = None
    """As config.json says, or None; what the file's own head has goes before it."""


class Beside(NamedTuple):
    """What other files than config.json say of an architecture."""

    options: Mapping[str, Any] = {}
    """Arguments of the constructor."""
    files: tuple[str, ...] = ()
    """The files that say so."""
    notes: tuple[str, ...] = ()
    """What else they say, as sentences."""


class Family(NamedTuple):
    """Architectures built by one constructor, and how to tell them from files."""

    name: str
    build: Callable[..., Model]
    from_config: Callable[[Mapping[str, Any]], Found | None]
    """From config.json; None when it is not of this family. It raises `ModelError` for an option that we lack."""
    recognise: Callable[[Shapes], Found | None]
    """From names and shapes; None when they are not of this family."""
    resize: Mapping[str, Rule] = {}
    """Rules by selector of our leaves, for inputs of other channels, sizes or vocabularies."""
    regrid: Callable[[Mapping[str, Any], Any, Any], Mapping[str, Rule]] = lambda options, old, new: {}
    """More such rules, which go by the sizes of images: from the constructor's arguments, an example of inputs as the
    file's (None where they are not known), and one of ours."""
    beside: Callable[[pathlib.Path, Collection[str]], Beside] = lambda folder, given: Beside()
    """From the other files in a folder, but for the options whose names are given."""


FAMILIES = {
    "cifar_resnet": "tljax.models.resnet",
    "imagenet_resnet": "tljax.models.imagenet_resnet",
    "wide_resnet": "tljax.models.wide_resnet",
    "mobilenet_v1": "tljax.models.mobilenet",
    "convnext": "tljax.models.convnext",
    "lenet": "tljax.models.lenet",
    "bert": "tljax.models.bert",
    "vit": "tljax.models.vit",
    "vit_timm": "tljax.models.vit_timm",
    "vit_flax": "tljax.models.vit_flax",
}
"""Where the `FAMILY` of each stands."""


def family(name: str) -> Family:
    """The family called `name`.

    >>> family("cifar_resnet").build.__name__
    'resnet'
    """
    return importlib.import_module(FAMILIES[name]).FAMILY


def labels_in(config: Mapping[str, Any]) -> int | None:
    """The number of classes that config.json of transformers tells, or None.

    >>> labels_in({"id2label": {"0": "cat", "1": "dog", "2": "owl"}}), labels_in({})
    (3, None)
    """
    return len(config["id2label"]) if config.get("id2label") else config.get("num_labels")


def timm_architecture(config: Mapping[str, Any]) -> str:
    """The architecture that config.json of timm tells, "" if it is none of timm's.

    Raises `ModelError` when the architecture is changed by `model_args`.

    >>> timm_architecture({"architecture": "resnet50", "num_classes": 10})
    'resnet50'
    """
    name = str(config.get("architecture", ""))
    if name and config.get("model_args"):
        raise ModelError(f"config.json: {name} with model_args {config['model_args']}; expected none")
    return name


def label_config(num_classes: int) -> dict[str, Any]:
    """The labels for config.json of transformers, which reads the number of classes from them.

    >>> label_config(2)
    {'id2label': {'0': 'LABEL_0', '1': 'LABEL_1'}, 'label2id': {'LABEL_0': 0, 'LABEL_1': 1}}
    """
    labels = {i: f"LABEL_{i}" for i in range(num_classes)}
    return {"id2label": {str(i): name for i, name in labels.items()}, "label2id": {v: i for i, v in labels.items()}}


def image_example(config: Mapping[str, Any], size: int = 224) -> jax.ShapeDtypeStruct:
    """One image of the channels and the size that config.json of transformers or timm tells.

    >>> image_example({"num_channels": 1, "image_size": 28}).shape
    (1, 28, 28, 1)
    """
    channels, height, width = config.get("pretrained_cfg", {}).get("input_size", (3, size, size))
    if "image_size" in config:
        sides = config["image_size"]
        height, width = (sides, sides) if isinstance(sides, int) else sides
    return jax.ShapeDtypeStruct((1, height, width, config.get("num_channels", channels)), jnp.float32)


def nothing(_: Any) -> Found | None:
    """For a family that no config.json, or no bare file, tells of."""
    return None
