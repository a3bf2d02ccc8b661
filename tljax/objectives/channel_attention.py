"""Which channels of a layer a task needs: the weights of DELTA's attention."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from tljax.models.taps import tapped
from tljax.objectives.classification import cross_entropy_losses
from tljax.tree import map_named, named_leaves, nearest
from tljax.tree.paths import quoted
from tljax.types import Array, Model, Output, Params, TljaxError


class LayerError(TljaxError):
    """A layer that a model does not have, or that gives something else than is wanted."""


def channel_attention(
    model: Model,
    params: Params,
    x: Any,
    y: Any,
    layers: Sequence[str],
    *,
    temperature: float = 5.0,
    batch_size: int = 64,
    at_once: int = 1,
) -> dict[str, Array]:
    """How much the loss needs each channel of `layers`: by layer, weights `[C]` of sum 1.

    For every channel c its filter is set to zero, kernel and bias, and the increase of the mean cross-entropy of
    `(x, y)` is measured, ``d_c = loss without c - loss``. Then ``a = softmax((d - mean d) / std d / temperature)``,
    and 1 / C where all d are equal. One compiled program a layer goes through its channels.

    Args:
        model, params: a model with a trained head: the published recipe first trains the head on the frozen
            backbone, as `tl.linear_probe()` does. It runs in evaluation mode.
        x, y: inputs `[N, ...]` and classes `[N]`; a few hundred will do.
        layers: convolutions or dense layers, of which ``<layer>/kernel`` has the channels on its last axis.
        temperature: what the standardised increases are divided by.
        batch_size: examples that go through the model at once.
        at_once: channels that are tried side by side. On accelerators more are faster; each takes the memory of
            a batch.

    Raises:
        LayerError: layers that do not exist, with the nearest names, or that have no kernel of their channels.

    Reference: Li et al. 2019, DELTA, arXiv:1901.09229, section 3.3.

    >>> from tljax.models import mlp
    >>> model, x = mlp((4,), num_classes=2), jnp.eye(4)
    >>> params = model.init(jax.random.key(0), x)
    >>> found = channel_attention(model, params, x, jnp.array([0, 1, 0, 1]), ["backbone/block_00/dense"])
    >>> found["backbone/block_00/dense"].shape, float(found["backbone/block_00/dense"].sum().round(4))
    ((4,), 1.0)
    """
    names = (layers,) if isinstance(layers, str) else tuple(layers)
    x, y = jax.tree.map(jnp.asarray, (x, y))
    leaves = named_leaves(params)
    channels = _channels(model, params, leaves, x, names)
    batches = [(jax.tree.map(lambda a, i=i: a[i : i + batch_size], x), y[i : i + batch_size])
               for i in range(0, len(y), batch_size)]  # fmt: skip
    found = {}
    for name in names:
        run = _losses(model.apply, name, channels[name], at_once)
        sums = functools.reduce(jnp.add, (run(params, *batch) for batch in batches))
        increase = (sums[1:] - sums[:1]) / len(y)
        spread = jnp.std(increase)
        standard = (increase - jnp.mean(increase)) / jnp.where(spread > 0, spread, 1)
        found[name] = jax.nn.softmax(standard / temperature)
    return found


def unknown_layer(term: str, layer: str, known: Iterable[str]) -> LayerError:
    """The error for a `layer` that is none of those `known`.

    >>> print(unknown_layer("delta(start, 1 layers)", "conv1", ["backbone/conv_1", "head"]))
    delta(start, 1 layers): the model has no layer 'conv1'; the nearest are 'backbone/conv_1'
    """
    known = list(known)
    near = quoted(nearest(layer, known) or known[:5]) or "none: layers inside are seen of Flax modules"
    return LayerError(f"{term}: the model has no layer {layer!r}; the nearest are {near}")


def _channels(model: Model, params: Params, leaves: Mapping[str, Any], x: Any, names: Sequence[str]) -> dict[str, int]:
    """The number of channels of each layer."""
    with tapped() as tap:
        jax.eval_shape(lambda p, x: model.apply(p, x), params, x)
    for name in names:
        if name not in tap.shapes:
            raise unknown_layer("channel_attention", name, tap.shapes)
        kernel, out = leaves.get(f"{name}/kernel"), getattr(tap.shapes[name], "shape", None)
        if kernel is None or out is None or kernel.shape[-1] != out[-1]:
            own = [each for each in tap.shapes if f"{each}/kernel" in leaves]
            raise LayerError(
                f"channel_attention: the layer {name!r} has no kernel with its channels on the last axis; the nearest "
                f"that have are {quoted(nearest(name, own) or own[:5]) or 'none'}"
            )
    return {name: leaves[f"{name}/kernel"].shape[-1] for name in names}


def _losses(apply: Callable[..., Output], layer: str, channels: int, at_once: int) -> Callable[..., Array]:
    """`run(params, x, y) -> [1 + C]`: the sum of the losses of a batch, and that without each channel."""
    own = (f"{layer}/kernel", f"{layer}/bias")

    @jax.jit
    def run(params: Params, x: Any, y: Array) -> Array:
        def without(channel: Array) -> Array:
            def masked(name: str, leaf: Array) -> Array:
                if name not in own:
                    return leaf
                kept = jnp.arange(channels) != channel
                return jnp.where(kept.reshape((1,) * (leaf.ndim - 1) + (channels,)), leaf, 0)

            return jnp.sum(cross_entropy_losses(apply(map_named(masked, params), x).logits, y))

        return jax.lax.map(without, jnp.arange(-1, channels), batch_size=at_once)

    return run
