"""A model with its adapters in its parameter tree, so that plans, training and checkpoints see one tree."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from tljax.peft.adapter import Adapter, Adapters, PeftError
from tljax.peft.factored import factored
from tljax.peft.merge import check
from tljax.tree import from_named, named_leaves
from tljax.types import ADAPTERS_KEY, Model, Output, Params


def attach(model: Model, params: Params, adapters: Adapters) -> tuple[Model, Params]:
    """`model` with `adapters`, and its parameters: `params` with the adapters as a subtree ``adapters/``.

    The adapters of ``backbone/dense/kernel`` stand at ``adapters/backbone/dense/kernel/a`` and so on. What is under
    ``constants`` never learns; to train the adapters alone, freeze the rest. The new model's `init` makes another base,
    with these adapters. It has no keymaps: other projects' files have no place for adapters, `merge` them first.
    Attaching again gives the same `apply`, for which nothing is compiled again.

    Raises `PeftError` when adapters are attached already, when there are none, or when they do not fit `params`.

    >>> import jax.numpy as jnp
    >>> from tljax.models import mlp
    >>> from tljax.peft import lora
    >>> model, x = mlp((8,), num_classes=2), jnp.ones((4, 3))
    >>> base = model.init(jax.random.key(0), x)
    >>> adapted, params = attach(model, base, lora(base, "backbone/**/kernel", key=jax.random.key(1), rank=2))
    >>> [name for name in named_leaves(params) if name.startswith("adapters/")][0]
    'adapters/backbone/block_00/dense/kernel/a'
    >>> bool((adapted.apply(params, x).logits == model.apply(base, x).logits).all())
    True
    """
    if not isinstance(params, Mapping):
        raise PeftError(f"attach takes the parameters of a tl.Model, a nested dict; found {type(params).__name__}")
    if ADAPTERS_KEY in params:
        raise PeftError("adapters are attached already; take them off with detach, and join them with the new ones")
    if not adapters:
        raise PeftError("there are no adapters to attach: the dict is empty")
    check(named_leaves(params), adapters)
    tree = from_named(adapters)
    adapted = model._replace(
        init=lambda key, x: {**model.init(key, x), ADAPTERS_KEY: tree},
        apply=_apply(model.apply),
        groups=(*model.groups, f"{ADAPTERS_KEY}/**"),
        keymaps={},
    )
    return adapted, {**params, ADAPTERS_KEY: tree}


def detach(params: Params) -> tuple[Params, Adapters]:
    """The base parameters and the adapters of a tree that `attach` made.

    Raises `PeftError` when there are none in it.

    >>> from tljax.peft import Full
    >>> detach({"head": {"bias": 1.0}, "adapters": {"head": {"bias": Full(2.0)}}})
    ({'head': {'bias': 1.0}}, {'head/bias': Full(value=2.0)})
    """
    if not isinstance(params, Mapping) or ADAPTERS_KEY not in params:
        raise PeftError("no adapters are attached to these parameters: there is no subtree 'adapters'")
    base = {name: part for name, part in params.items() if name != ADAPTERS_KEY}
    leaves = jax.tree_util.tree_flatten_with_path(params[ADAPTERS_KEY], is_leaf=lambda x: isinstance(x, Adapter))[0]
    return base, {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


@functools.lru_cache(maxsize=32)  # programs are compiled for an `apply`, so that of a model must stay the same
def _apply(apply: Callable[..., Output]) -> Callable[..., Output]:
    beside = factored(apply)

    def adapted(params: Params, x: Any, **options: Any) -> Output:
        base, adapters = detach(params)
        output = beside(base, adapters, x, **options)
        if output.stats is None:
            return output
        holes = jax.tree.map(lambda _: None, params[ADAPTERS_KEY])
        return output._replace(stats={**output.stats, ADAPTERS_KEY: holes})

    return adapted
