"""DELTA: the feature maps of chosen layers stay near those of the starting point."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from tljax.models.taps import tapped
from tljax.objectives.channel_attention import LayerError, unknown_layer
from tljax.objectives.describe import describe
from tljax.objectives.frozen import HEAD, frozen_copy, with_frozen
from tljax.objectives.mean import added, weighted_sum, widened
from tljax.objectives.parameters import bare, half_square, learnable
from tljax.objectives.stream import name_of, prefix
from tljax.objectives.term import Metrics, Owned, Scene, Term
from tljax.types import Array, Key, Params


def feature_map_distances(maps: Array, start_maps: Array, *, attention: Array | None = None) -> Array:
    """How far the feature maps of each example are from those of the start, `[B]`.

    Plain: ``1/2 ||F_i - F0_i||^2``, the sum over all places and channels. With attention a:
    ``1/2 C sum_c a_c ||F_ic - F0_ic||^2 / P``, P the number of places; with a_c = 1 / C that is the plain one over P.
    The gradient is 0 where the maps are equal.

    Args:
        maps: F, `[B, ..., C]`: images `[B, H, W, C]`, tokens `[B, S, C]` or features `[B, C]`.
        start_maps: F0, of the same shape.
        attention: a, `[C]`, 0 or more and of sum 1, as `channel_attention` gives it.

    Raises:
        LayerError: shapes that do not fit.

    Reference: Li et al. 2019, DELTA, arXiv:1901.09229.

    >>> now, start = jnp.ones((2, 4, 4, 3)), jnp.zeros((2, 4, 4, 3))
    >>> print(feature_map_distances(now, start), feature_map_distances(now, start, attention=jnp.ones(3) / 3))
    [24. 24.] [1.5 1.5]
    """
    if maps.shape != start_maps.shape or maps.ndim < 2:
        raise LayerError(f"feature maps are [B, ..., C] of one shape; found {maps.shape} and {start_maps.shape}")
    now = widened(maps)
    squares = jnp.square(now - start_maps.astype(now.dtype))
    squares = jnp.sum(squares, axis=tuple(range(1, maps.ndim - 1)))
    if attention is None:
        return 0.5 * jnp.sum(squares, axis=-1)
    if jnp.shape(attention) != maps.shape[-1:]:
        raise LayerError(f"attention is [{maps.shape[-1]}], one number a channel; found {jnp.shape(attention)}")
    places = maps.size // (maps.shape[0] * maps.shape[-1])
    weights = jnp.asarray(attention).astype(now.dtype) * (maps.shape[-1] / places)
    return 0.5 * jnp.sum(weights[None] * squares, axis=-1)


def delta(
    start: Params,
    layers: Sequence[str],
    *,
    attention: Mapping[str, Array] | None = None,
    head_decay: float = 1.0,
    stream: str = "train",
) -> Term:
    """DELTA: feature maps stay near those of the frozen start, on the same inputs; the head stays near 0.

    ``sum over layers and examples of feature_map_distances + head_decay * 1/2 ||w_head||^2``, examples by their
    weight. It is the sum over the batch, as published, so that the term's factor belongs to a batch size; published
    are alpha = beta = 0.01, ``0.01 * delta(start, layers)``, with batches of 48 to 64 and no weight decay. The start
    runs in evaluation mode, the model as it is trained. Of texts the padding counts too. Logs `delta`.

    The term owns a copy of `start` without its head, so that a resumed run pulls to the same maps.

    Args:
        start: the model's parameters before the first step; what head they have does not matter.
        layers: names as `tl.features.layers` lists them. The published choice is the last convolution of each stage,
            before its normalisation.
        attention: by layer the weights `[C]` of its channels, from `channel_attention`; None for the plain form.
        head_decay: beta / alpha, the pull of the head to 0; 0 for none.
        stream: whose inputs are read.

    Raises:
        StartError: at `init`, a start that is not of this model. LayerError: layers that do not exist, with the
        nearest names, or that give more than one array; attention that does not fit them.

    Reference: Li et al. 2019, DELTA: deep learning transfer using feature map with attention, arXiv:1901.09229.

    >>> print(0.01 * delta({}, ["backbone/stage_1/block_02/conv_2", "backbone/stage_2/block_02/conv_2"]))
    0.01 * delta(start, 2 layers)
    """
    names = (layers,) if isinstance(layers, str) else tuple(layers)
    more = {"head_decay": head_decay, "stream": stream}
    with_attention = () if attention is None else ("attention",)
    text = describe(delta, "start", f"{len(names)} layers", *with_attention, **more)
    if not names or (attention is not None and set(attention) != set(names)):
        given = "none" if attention is None else ", ".join(attention)
        raise LayerError(f"{text}: one layer or more, and attention for each; found {', '.join(names)} and {given}")

    def init(key: Key, scene: Scene) -> Owned:
        del key
        _check_layers(scene, names, name_of(scene, stream, text), attention, text)
        weights = None if attention is None else {name: jnp.array(attention[name]) for name in names}
        return Owned(state={"start": frozen_copy(start, scene.params, text), "attention": weights})

    def apply(owned: Owned, scene: Scene) -> tuple[Array, Any, Metrics]:
        at, state = name_of(scene, stream, text), owned.state
        batch, weights = scene.batches[at], state["attention"] or {}
        with tapped(*names) as tap:
            scene.evaluate(with_frozen(state["start"], scene.params), batch.x)
        parts = []
        for name in names:
            old = jax.lax.stop_gradient(tap.outputs[name])
            each = feature_map_distances(scene.layers[at][name], old, attention=weights.get(name))
            parts.append(weighted_sum(each, batch.weight))
        for name, leaf in learnable(scene.params).items():
            if bare(name).startswith(HEAD) and head_decay:
                parts.append(head_decay * half_square(widened(leaf)))
        value = added(*parts)
        return value, state, {f"{prefix(stream)}delta": value}

    return Term(apply, init, text, streams=(stream,), layers=names)


def _check_layers(
    scene: Scene, names: Sequence[str], at: str, attention: Mapping[str, Array] | None, text: str
) -> None:
    found = scene.layers.get(at, {})
    for name in names:
        if name not in found:
            with tapped() as tap:
                jax.eval_shape(lambda params, x: scene.evaluate(params, x), scene.params, scene.batches[at].x)
            raise unknown_layer(text, name, tap.shapes)
        shape = getattr(found[name], "shape", None)
        if shape is None or len(shape) < 2:
            raise LayerError(f"{text}: the layer {name!r} should give one array [B, ..., C]; found {found[name]}")
        if attention is not None and jnp.shape(attention[name]) != shape[-1:]:
            raise LayerError(
                f"{text}: the layer {name!r} has {shape[-1]} channels, its attention {jnp.shape(attention[name])}"
            )
