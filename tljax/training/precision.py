"""In which type a step computes: a narrow one inside of the model, float32 around it.

Parameters and inputs are cast where the model is entered, its outputs where it is left. So it works for any `Model`,
gradients arrive in the type of the parameters, and everything else (losses, terms, statistics, the optimiser) is as
ever.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from tljax.tree import map_named
from tljax.types import Model, Output, Params, is_state

PRECISIONS = ("float32", "bfloat16", "float16")


def computing_in(model: Model, precision: str) -> Model:
    """`model` with an `apply` that computes in `precision`, and takes and returns what it ever did.

    Floating parameters and inputs are cast; integers, and running statistics, stay as they are: Flax's normalisation
    layers compute theirs in float32. Logits and features come back in float32. "float32" is the model itself, which
    computes in the types that parameters and inputs have.

    Reference: Micikevicius et al. 2018, Mixed precision training, arXiv:1710.03740.

    >>> from tljax.models import mlp
    >>> model, x = mlp((4,), num_classes=2), jnp.ones((1, 3))
    >>> params = model.init(jax.random.key(0), x)
    >>> whole, half = model.apply(params, x).logits, computing_in(model, "bfloat16").apply(params, x).logits
    >>> half.dtype, bool((whole != half).any()), bool((abs(whole - half) < 0.05).all())
    (dtype('float32'), True, True)
    """
    return model if precision == "float32" else model._replace(apply=_narrow_apply(model.apply, precision))


@functools.lru_cache(maxsize=32)  # programs are compiled for an `apply`, so that of a model must stay the same
def _narrow_apply(apply: Callable[..., Output], precision: str) -> Callable[..., Output]:
    def narrow_apply(params: Params, x: Any, **options: Any) -> Output:
        inputs = jax.tree.map(lambda a: _cast(a, precision), x)
        # Layers mix types on purpose: normalisation subtracts a mean in float32 from activations that are narrower.
        with jax.numpy_dtype_promotion("standard"):
            output = apply(narrowed(params, precision), inputs, **options)
        return output._replace(logits=widened(output.logits), features=widened(output.features))

    return narrow_apply


def narrowed(params: Params, precision: str) -> Params:
    """`params` as a model in `precision` reads them, with None where they have None.

    >>> tree = {"kernel": jnp.ones(1), "norm": {"batch_stats": {"mean": jnp.ones(1)}}, "ids": jnp.arange(2)}
    >>> found = narrowed(tree, "bfloat16")
    >>> print(found["kernel"].dtype, found["norm"]["batch_stats"]["mean"].dtype, found["ids"].dtype)
    bfloat16 float32 int32
    """
    if precision == "float32":
        return params
    return map_named(lambda name, leaf: leaf if is_state(name) else _cast(leaf, precision), params)


def widened(tree: Any) -> Any:
    """`tree` with float32 in the place of narrower floats: what losses, sums and small updates need.

    >>> [str(leaf.dtype) for leaf in widened([jnp.ones(1, jnp.bfloat16), jnp.ones(1, jnp.int8)])]
    ['float32', 'int8']
    """
    return jax.tree.map(lambda a: a.astype(jnp.float32) if _is_float(a) and a.dtype.itemsize < 4 else a, tree)


def _cast(leaf: Any, precision: str) -> Any:
    return leaf.astype(precision) if _is_float(leaf) else leaf


def _is_float(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
