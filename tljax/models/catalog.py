"""The models by name, for command lines and configurations."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from tljax.models.lenet import lenet
from tljax.models.mlp import mlp
from tljax.models.resnet import resnet
from tljax.models.vit import vit
from tljax.models.wrapping import ModelError
from tljax.tree import nearest
from tljax.types import Model


class Entry(NamedTuple):
    """A model of the catalogue."""

    constructor: Callable[..., Model]
    """Takes `num_classes` and keyword options."""
    summary: str
    """What it is, in a line."""


CATALOG = {
    "mlp": Entry(mlp, "multilayer perceptron; options hidden, activation, norm, dropout"),
    "lenet": Entry(lenet, "two convolutions and a dense layer, for images of 8 to 32 pixels"),
    "resnet20": Entry(partial(resnet, 20), "CIFAR ResNet, 0.27 M parameters"),
    "resnet32": Entry(partial(resnet, 32), "CIFAR ResNet, 0.46 M parameters"),
    "resnet44": Entry(partial(resnet, 44), "CIFAR ResNet, 0.66 M parameters"),
    "resnet56": Entry(partial(resnet, 56), "CIFAR ResNet, 0.85 M parameters"),
    "resnet110": Entry(partial(resnet, 110), "CIFAR ResNet, 1.7 M parameters"),
    "vit-ti": Entry(
        partial(vit, "ti"),
        "vision transformer, width 192, 12 blocks, 5.4 M parameters; options patch, pool, depth ...",
    ),
    "vit-s": Entry(partial(vit, "s"), "vision transformer, width 384, 12 blocks, 21 M parameters"),
    "vit-b": Entry(partial(vit, "b"), "vision transformer, width 768, 12 blocks, 85 M parameters"),
}
"""Every model that `build` knows, by name."""


def build(name: str, num_classes: int, **options: Any) -> Model:
    """The model called `name` in `CATALOG`, with the options of its constructor.

    Raises `ModelError` for an unknown name or option, with the nearest names and all of them.

    >>> build("resnet20", num_classes=5, width=8).name
    'resnet20'
    >>> build("resnet21", num_classes=5)
    Traceback (most recent call last):
    tljax.models.wrapping.ModelError: no model is called 'resnet21'; the nearest are resnet...; there are mlp, ...
    """
    if name not in CATALOG:
        raise ModelError(
            f"no model is called {name!r}; the nearest are {', '.join(nearest(name, CATALOG)) or 'none'}; "
            f"there are {', '.join(CATALOG)}"
        )
    constructor = CATALOG[name].constructor
    known = [option for option in inspect.signature(constructor).parameters if option != "num_classes"]
    for option in options:
        if option not in known:
            raise ModelError(f"{name} has no option {option!r}; it has {', '.join(known)}")
    return constructor(num_classes=num_classes, **options)
