"""Random examples of the form that a model reads, and the refusal of what is constant.

Hardware is faster on zeros: caches and links compress them, and a chip that draws less power keeps a higher clock. So
nothing is timed on them.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tljax.recipes.bench.error import BenchError
from tljax.recipes.bench.settings import Configuration
from tljax.recipes.options import SettingsError
from tljax.tree import named_leaves
from tljax.types import Array, Key, Params

ROW = 784
"""Numbers in an example of a model that takes rows of any length."""
SIDE = 32
"""Pixels of an image, for a model that takes any."""
SENTENCE = 128
"""Tokens of a sentence."""
VOCABULARY = "**/token/embedding"
"""The leaf that has a row for every token."""
MASK = "mask"
"""The input that says which tokens count; all do."""


def example_of(usual: Any, configuration: Configuration, what: str) -> Any:
    """Shapes of a batch of one example: what the model usually reads, in the sizes of `configuration`.

    Raises `SettingsError` for sizes that the model has no use for.

    >>> image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    >>> example_of(image, Configuration("vit-s16", "full", 8, image_size=64), "vit-s16").shape
    (1, 64, 64, 3)
    >>> example_of(image, Configuration("vit-s16", "full", 8, seq_len=64), "vit-s16")
    Traceback (most recent call last):
    tljax.recipes.options.SettingsError: 'vit-s16' reads images; option 'seq_len' is for models that read sentences
    """
    c = configuration
    kind = _kind(usual)
    sizes = {"image_size": ("images", c.image_size), "seq_len": ("sentences", c.seq_len)}
    sizes["features"] = ("rows of numbers", c.features)
    for option, (reads, value) in sizes.items():
        if value is not None and reads != kind:
            raise SettingsError(f"{what!r} reads {kind}; option {option!r} is for models that read {reads}")
    if kind == "sentences":
        row = jax.ShapeDtypeStruct((1, c.seq_len or SENTENCE), jnp.int32)
        return dict.fromkeys(usual, row)
    if kind == "images":
        shape = usual.shape[1:] if c.image_size is None else (c.image_size, c.image_size, usual.shape[3])
        return jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return jax.ShapeDtypeStruct((1, c.features or usual.shape[1]), jnp.float32)


def _kind(usual: Any) -> str:
    if isinstance(usual, Mapping):
        return "sentences"
    return "images" if len(usual.shape) == 4 else "rows of numbers"


def random_examples(key: Key, example: Any, count: int, tokens: int | None) -> Any:
    """`count` examples like `example`: normal numbers, or tokens of all the vocabulary, every one of which counts.

    >>> random_examples(jax.random.key(0), jax.ShapeDtypeStruct((1, 3), jnp.float32), 5, None).shape
    (5, 3)
    """
    if not isinstance(example, Mapping):
        return jax.random.normal(key, (count, *example.shape[1:]), jnp.float32)
    shape = (count, *example["ids"].shape[1:])
    if tokens is None:
        raise SettingsError(f"the model has no leaf {VOCABULARY!r}, so that its tokens cannot be drawn")
    found = {"ids": jax.random.randint(key, shape, 0, tokens, jnp.int32)}
    return {name: found.get(name, jnp.ones(shape, jnp.int32)) for name in example}


def random_labels(key: Key, count: int, classes: int) -> Array:
    """Labels of all classes alike, int32 `[count]`, two different ones at least.

    >>> random_labels(jax.random.key(0), 6, 3).shape
    (6,)
    """
    labels = jax.random.randint(key, (count,), 0, classes, jnp.int32)
    return labels.at[0].set((labels[-1] + 1) % classes)


def check_inputs(x: Any, what: str) -> None:
    """Raise `BenchError` where an input is the same number everywhere. Masks may be: every token may count.

    >>> check_inputs(jnp.zeros((4, 3)), "the images")
    Traceback (most recent call last):
    tljax.recipes.bench.error.BenchError: the images are 0 everywhere; a step is not timed on constant inputs
    """
    leaves = {name: leaf for name, leaf in x.items() if name != MASK} if isinstance(x, Mapping) else {"": x}
    for name, constant in _constant(leaves).items():
        if constant:
            where, value = f"{what} {name!r}" if name else what, np.ravel(leaves[name])[0]
            raise BenchError(f"{where} are {value:g} everywhere; a step is not timed on constant inputs")


def check_parameters(params: Params, what: str) -> None:
    """Raise `BenchError` where most parameters are the same number throughout their leaf, as in an empty file.

    Biases, scales and the second matrices of adapters begin at a constant, so some may.

    >>> check_parameters({"head": {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)}}, "mlp")
    Traceback (most recent call last):
    tljax.recipes.bench.error.BenchError: mlp: 15 of 15 parameters are constant in their leaf, as 'head/kernel'; ...
    """
    leaves = {name: leaf for name, leaf in named_leaves(params).items() if jnp.issubdtype(leaf.dtype, jnp.inexact)}
    constant = {name: leaves[name].size for name, yes in _constant(leaves).items() if yes}
    total = sum(leaf.size for leaf in leaves.values())
    if 2 * sum(constant.values()) > total:
        largest = max(constant, key=lambda name: constant[name])
        raise BenchError(
            f"{what}: {sum(constant.values())} of {total} parameters are constant in their leaf, as {largest!r}; a "
            "step is not timed on such weights"
        )


@jax.jit
def _constant(leaves: dict[str, Any]) -> dict[str, Array]:
    """Whether each has the same number everywhere."""
    return {name: jnp.min(leaf) == jnp.max(leaf) for name, leaf in leaves.items()}
