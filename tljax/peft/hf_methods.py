"""The tensors of a module of a peft file as adapters of ours, by method."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from tljax.checkpoints.keymap import listed
from tljax.peft.dora import DoRA
from tljax.peft.hf_axes import axes_of
from tljax.peft.hf_lycoris import loha, lokr
from tljax.peft.hf_names import SHARED
from tljax.peft.hf_reader import GROUPED, Parts, Reader
from tljax.peft.hf_starts import start_of
from tljax.peft.hf_targets import is_feedforward
from tljax.peft.ia3 import Scale
from tljax.peft.infer import VECTOR
from tljax.peft.lora import LoRA
from tljax.peft.vera import A, B, VeRA


def lora(reader: Reader, path: str, left: Parts) -> None:
    """LoRA, rsLoRA, DoRA, and those that start from parts of the base."""
    words = "lora_embedding_A" in left
    keys = ("lora_embedding_A", "lora_embedding_B") if words else ("lora_A.weight", "lora_B.weight")
    a, b = reader.take(path, left, *keys)
    rank = reader.rank(path, a)
    scale = reader.config.scale(path, rank)
    link, shape = reader.weight(path)
    rows = "words" if words else reader.rows(shape, a.shape[1:], b.shape[0])
    reader.check_factors(path, a, b, shape if rows == "outs" else shape[::-1])
    start = None
    if (kind := reader.config.get("init_lora_weights")) in ("pissa", "olora"):
        if len(shape) > 2 or words:
            raise reader.error(path, f"{kind} is for linear layers; this one is none")
        base = reader.theirs(link)
        start = start_of(kind, base if rows == "outs" else base.T, rank, scale)
    magnitude = _magnitude(reader, path, left)
    for leaf in link.ours:
        axes = axes_of(link, leaf, reader.names.leaves, rows)
        constants: dict[str, Any] = {"scale": jnp.float32(scale)}
        if start is not None:
            constants |= zip(("a0", "b0"), map(jnp.asarray, axes.factors(*start)), strict=True)
        left_factor, right_factor = map(jnp.asarray, axes.factors(a, b))
        if magnitude is None:
            reader.add(leaf, LoRA(left_factor, right_factor, constants, axes.layout))
        else:
            reader.check_size(path, "lora_magnitude_vector", magnitude, axes.total[1])
            outs = jnp.asarray(axes.outputs(magnitude))
            reader.add(leaf, DoRA(left_factor, right_factor, outs, constants, axes.layout))
    if "lora_B.bias" in left:
        reader.added_bias(path, np.float32(scale) * left.pop("lora_B.bias").astype(np.float32))


def ia3(reader: Reader, path: str, left: Parts) -> None:
    """The scale of what a module puts out, with its bias, or of what it takes in."""
    (value,) = reader.take(path, left, "ia3_l")
    link, shape = reader.weight(path)
    inward = is_feedforward(reader.config.fields, path)
    turned = bool(reader.config.get("fan_in_fan_out")) and len(shape) == 2
    channels = shape[1] if inward != turned else shape[0]
    if inward and len(shape) > 2 and value.size > channels and value.size % channels == 0:
        raise reader.error(path, GROUPED)
    reader.check_size(path, "ia3_l", value, channels)
    bias = None if inward else reader.names.links.get(f"{path}.bias")
    for i, leaf in enumerate(link.ours):
        axes = axes_of(link, leaf, reader.names.leaves, "ins" if turned else "outs")
        scale = jnp.asarray(axes.inputs(value) if inward else axes.outputs(value))
        if bias is None:
            reader.add(leaf, Scale(scale, "in" if inward else "out", axes.layout))
        else:
            both = f"shared/ia3/{leaf.rpartition('/')[0] or leaf}"
            reader.adapters[both] = scale
            reader.add(leaf, Scale(None, "out", axes.layout, both))
            reader.add(bias.ours[i], Scale(None, "out", VECTOR, both))


def vera(reader: Reader, path: str, left: Parts) -> None:
    """The two scales of a module; with the first one come the projections of all."""
    d, b = reader.take(path, left, "vera_lambda_d", "vera_lambda_b")
    for name, ours in zip(SHARED["VERA"], (A, B)):
        if name not in reader.tensors.shared:
            raise reader.error(path, f"there is no {name!r} in the file, which all layers share")
        reader.adapters.setdefault(ours, jnp.asarray(reader.tensors.shared[name].T))
    link, shape = reader.weight(path)
    first, second = reader.adapters[A], reader.adapters[B]
    axes = axes_of(link, link.ours[0], reader.names.leaves, reader.rows(shape, shape[1:], b.size))
    if len(link.ours) > 1 or not axes.in_order:
        raise reader.error(
            path, f"{listed(link.ours)} are not the first rows and columns of the shared projections that VeRA cuts out"
        )
    reader.check_size(path, "vera_lambda_d", d, first.shape[-1])
    reader.check_size(path, "vera_lambda_b", b, axes.total[1])
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[0]:
        raise reader.error(path, f"vera_A and vera_B, {list(first.shape[::-1])} and {list(second.shape[::-1])}, differ")
    if first.shape[0] < axes.total[0] or second.shape[1] < axes.total[1]:
        raise reader.error(path, f"vera_A and vera_B are too small for its weight {list(shape)}")
    reader.add(link.ours[0], VeRA(jnp.asarray(d), jnp.asarray(axes.outputs(b)), axes.layout))


def ln_tuning(reader: Reader, path: str, left: Parts) -> None:
    """Whole copies of norms, or of any other module."""
    for part in ("weight", "bias"):
        if f"ln_tuning_layers.{part}" in left:
            reader.whole(f"{path}.{part}", left.pop(f"ln_tuning_layers.{part}"))


def _magnitude(reader: Reader, path: str, left: Parts) -> np.ndarray | None:
    magnitude, wanted = left.pop("lora_magnitude_vector", None), bool(reader.config.get("use_dora"))
    if wanted and magnitude is None:
        raise reader.error(path, "use_dora is set, and the file lacks lora_magnitude_vector")
    if magnitude is not None and not wanted:
        raise reader.error(path, "the file has lora_magnitude_vector, and use_dora is not set")
    return magnitude


METHODS: Mapping[str, Callable[[Reader, str, Parts], None]] = {
    "LORA": lora,
    "IA3": ia3,
    "VERA": vera,
    "LOHA": loha,
    "LOKR": lokr,
    "LN_TUNING": ln_tuning,
}
