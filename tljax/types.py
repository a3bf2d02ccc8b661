"""The few types that every part of tljax shares.

A *parameter tree* is a nested dict of arrays.  Each leaf has one name, its path:
``"backbone/block_03/conv/kernel"``. Parameters stand under ``backbone/`` and ``head/``.  What a model
carries but does not learn by gradient (the running statistics of BatchNorm) stands in the same tree,
beside the parameters of its layer, under a ``batch_stats`` key: ``"backbone/stem/norm/batch_stats/mean"``.
 So one graft moves a whole layer, and a name alone tells what a leaf is.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

Array = jax.Array
Key = jax.Array
"""A typed PRNG key, as ``jax.random.key`` makes it."""
Params = Any
"""Any pytree of arrays; a model's own is a nested dict."""

STATE_KEY = "batch_stats"
"""The path component that marks carried statistics."""


def is_state(name: str) -> bool:
    """Whether the leaf called `name` is a carried statistic rather than a parameter.

    >>> is_state("backbone/stem/norm/batch_stats/mean"), is_state("backbone/stem/norm/scale")
    (True, False)
    """
    return STATE_KEY in name.split("/")


ADAPTERS_KEY = "adapters"
"""The first component of the names of adapters that were attached to a model."""
CONSTANTS_KEY = "constants"
"""The path component that marks, in adapters, what never learns."""


def is_constant(name: str) -> bool:
    """Whether the leaf called `name` is a constant of an adapter, such as its scale.

    >>> is_constant("adapters/head/kernel/constants/scale"), is_constant("adapters/head/kernel/a")
    (True, False)
    """
    return name.startswith(f"{ADAPTERS_KEY}/") and CONSTANTS_KEY in name.split("/")


class Batch(NamedTuple):
    """Some examples. Every field has the examples on its first axis (a pytree of such arrays will do for
    `x`)."""

    x: Any
    """Inputs, `[B, ...]`."""
    y: Any = None
    """Labels: classes `[B]` int, soft labels `[B, C]` float, or regression targets `[B, K]` float."""
    weight: Any = None
    """Weights `[B]` float; 0 marks padding. None means all ones."""
    index: Any = None
    """Which examples of the stream's training data these are, `[B]` int32, where the trainer drew them: for terms that
    keep something for every example."""


class Output(NamedTuple):
    """What a model returns for a batch."""

    logits: Array
    """`[B, C]`: class scores, or predictions in regression."""
    features: Array
    """`[B, D]`: what the head reads."""
    stats: Params = None
    """With ``train=True``: the updated statistics, in the structure of the parameter tree with None in
    every other place. None when there are none or ``train=False``."""


class Model(NamedTuple):
    """A model: two pure functions, and facts about its parameters.

    `init(key, x) -> params` takes a batch `x` of which only shape and dtype matter.

    `apply(params, x, *, train=False, key=None, frozen=frozenset()) -> Output`. `train=True` turns on
    dropout (which needs `key`) and lets normalisation use the batch and update its statistics, except for
    layers whose statistics are named in `frozen`: those keep and use their running statistics.
    """

    init: Callable[[Key, Any], Params]
    apply: Callable[..., Output]
    groups: tuple[Any, ...] = ("backbone/**", "head/**")
    """Selectors from stem to head, in order; together they match every leaf once."""
    keymaps: Mapping[str, Any] = {}
    """How the leaves are named in other projects' files, by name of the convention."""
    name: str = "model"


class TljaxError(ValueError):
    """A mistake in what tljax was given. The message names the thing, what was found and what was
    expected."""
