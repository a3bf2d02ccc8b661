"""What a layer gives for a batch, as one vector an example."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from tljax.features.inputs import FeatureError, mask_of
from tljax.models.taps import tapped
from tljax.tree import nearest, select
from tljax.tree.paths import quoted
from tljax.types import Array, Model, Output, Params

Pooling = Literal["mean", "max", "cls", "flatten"]
POOLINGS = ("mean", "max", "cls", "flatten")
OUTPUTS = ("features", "logits")
"""The layers that every model has."""


def layers(model: Model, params: Params, x: Any) -> dict[str, Any]:
    """The layers of `model` that `extract` knows by name, in the order in which they end, and the shapes they give.

    A layer has the name of its parameters' subtree: ``"backbone/block_03"``. Those of modules of Flax, Linen or NNX,
    are seen; of functions that were made a `Model` by hand there are none. The model is traced and not run.

    Args:
      x: a batch of inputs, of which only shapes and dtypes matter.

    >>> from tljax.models.mlp import mlp
    >>> model, x = mlp((5,), num_classes=3), jnp.ones((2, 4))
    >>> found = layers(model, model.init(jax.random.key(0), x), x)
    >>> {name: spec.shape for name, spec in found.items() if "/" not in name or name.endswith("dense")}
    {'backbone/block_00/dense': (2, 5), 'backbone': (2, 5), 'head': (2, 3)}
    """
    with tapped() as tap:
        traced(model, params, x)
    return tap.shapes


def traced(model: Model, params: Params, x: Any) -> Output:
    """The shapes of the model's output for inputs like `x`.

    Raises `FeatureError` when the model cannot take them.
    """
    try:
        return jax.eval_shape(lambda p, x: model.apply(p, x, train=False), params, x)
    except Exception as error:  # whatever a model's own code raises when the shapes do not fit
        shapes = ", ".join(f"{leaf.dtype}{list(leaf.shape[1:])}" for leaf in jax.tree.leaves(x))
        raise FeatureError(
            f"{model.name} with these parameters cannot take inputs, each of {shapes}: {error}"
        ) from error


def layer_called(layer: str, model: Model, params: Params, x: Any) -> str:
    """The name of the one layer that `layer`, a name or a glob, selects.

    Raises `FeatureError` where it selects none, with the nearest names, or several.

    >>> from tljax.models.mlp import mlp
    >>> model, x = mlp((5, 4), num_classes=3), jnp.ones((2, 4))
    >>> params = model.init(jax.random.key(0), x)
    >>> layer_called("**/block_01", model, params, x)
    'backbone/block_01'
    >>> layer_called("block_1", model, params, x)
    Traceback (most recent call last):
        ...
    tljax.features.inputs.FeatureError: mlp has no layer 'block_1'; the nearest are 'backbone/block_01', ...
    """
    if layer in OUTPUTS:
        return layer
    names = list(layers(model, params, x))
    if layer in names:
        return layer
    found = [name for name in names if select(layer).matches(name)]
    if len(found) == 1:
        return found[0]
    if found:
        some = quoted(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
        raise FeatureError(f"layer={layer!r} is {len(found)} layers of {model.name}: {some}; name one")
    known = [*names, *OUTPUTS]
    near = quoted(nearest(layer, known) or known[-3:])
    inner = "" if names else "; layers inside are seen of Flax modules, and this model is none"
    raise FeatureError(f"{model.name} has no layer {layer!r}; the nearest are {near}{inner}")


@functools.lru_cache(maxsize=64)
def forward(apply: Callable[..., Output], layer: str, pooling: Pooling | None) -> Callable[[Params, Any], Any]:
    """The jitted function ``(params, x) -> (features, logits)``; the logits are None for a layer inside.

    Kept for the next call with the same model, so that one compiled program serves both. For a layer inside, what
    comes after it is not computed.
    """

    def run(params: Params, x: Any) -> tuple[Array, Array | None]:
        if layer in OUTPUTS:
            output = apply(params, x, train=False)
            return pooled(getattr(output, layer), pooling, None, layer), _as_float(output.logits)
        with tapped(layer) as tap:
            apply(params, x, train=False)
        leaves = jax.tree.leaves(tap.outputs.get(layer))
        batch = jax.tree.leaves(x)[0].shape[0]
        if len(leaves) != 1 or leaves[0].ndim < 1 or leaves[0].shape[0] != batch:
            found = ", ".join(str(list(leaf.shape)) for leaf in leaves) or "nothing"
            raise FeatureError(
                f"the layer {layer!r} gives {found} for {batch} examples; expected one array with them on its first "
                "axis. The layer around it may do"
            )
        return pooled(leaves[0], pooling, mask_of(x), layer), None

    return jax.jit(run)


def pooled(out: Array, pooling: Pooling | None, mask: Array | None, layer: str) -> Array:
    """`out` `[B, ..., D]` as one vector an example, `[B, D]`, in float32 at least.

    "mean" and "max" go over all axes between the first and the last, for a text's `mask` `[B, S]` over the tokens
    that are no padding, and are 0 of none; "cls" takes the first of `[B, S, D]`; "flatten" keeps all. None is the mean
    where there is something to pool.

    Raises `FeatureError` for a pooling that does not suit the shape.

    >>> tokens, mask = jnp.array([[[1.0], [3.0], [9.0]]]), jnp.array([[1, 1, 0]])
    >>> [pooled(tokens, how, mask, "layer").tolist() for how in ("mean", "max", "cls", "flatten")]
    [[[2.0]], [[3.0]], [[1.0]], [[1.0, 3.0, 9.0]]]
    """
    out = _as_float(out)
    if out.ndim <= 2:
        if pooling is not None:
            raise FeatureError(
                f"pooling={pooling!r}: there is nothing to pool, {layer!r} gives {list(out.shape[1:])} an example"
            )
        return out.reshape(len(out), -1)
    if pooling == "flatten":
        return out.reshape(len(out), -1)
    if pooling == "cls":
        if out.ndim != 3:
            raise FeatureError(
                f"pooling='cls' takes the first token of [B, S, D]; {layer!r} gives {list(out.shape[1:])} an example"
            )
        return out[:, 0]
    between = tuple(range(1, out.ndim - 1))
    if mask is None or mask.shape != out.shape[:-1]:
        mask = jnp.ones(out.shape[:-1], bool)
    real = mask.astype(bool)[..., None]
    count = jnp.sum(real, axis=between).astype(out.dtype)
    if pooling == "max":
        return jnp.where(count > 0, jnp.max(jnp.where(real, out, -jnp.inf), axis=between), 0)
    return jnp.sum(jnp.where(real, out, 0), axis=between) / jnp.maximum(count, 1)


def _as_float(array: Array) -> Array:
    return array if array.dtype in (jnp.float32, jnp.float64) else array.astype(jnp.float32)
