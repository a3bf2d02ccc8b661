"""Adapters of ours as the tensors of a peft file, one module after the other."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tljax.checkpoints.keymap import Link, listed
from tljax.peft.adapter import Adapter, Adapters, PeftError, Shared
from tljax.peft.dora import DoRA
from tljax.peft.full import Full
from tljax.peft.hf_axes import Axes, axes_of, theirs_shape
from tljax.peft.hf_names import PREFIX, SHARED, Names
from tljax.peft.ia3 import Scale
from tljax.peft.layout import Layout
from tljax.peft.lora import LoRA
from tljax.peft.merge import shared_of
from tljax.peft.vera import A, B, VeRA

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass
class Written:
    """What stands in the file so far."""

    method: str
    tensors: Arrays
    """By their whole names in the file."""
    ranks: dict[str, int]
    """Of each target, by its path in PyTorch."""
    scales: dict[str, float]
    inputs: set[str]
    """Targets of IA3 whose inputs are scaled."""
    turned: set[str]
    """Targets whose rows are inputs, as in GPT-2's Conv1D."""
    whole: Arrays
    """Whole leaves, by their names in PyTorch."""
    dora: bool = False

    @property
    def targets(self) -> list[str]:
        """The paths of the adapted modules."""
        return list(self.ranks)


class Writer:
    """Turns adapters of one model into tensors. Every error names the adapter."""

    def __init__(self, adapters: Adapters, names: Names, one_channel: frozenset[str]) -> None:
        """`one_channel` are the kernels of convolutions that may read one channel without being depthwise."""
        self.names, self.one_channel = names, one_channel
        self.shared: Shared = shared_of(adapters)
        self.adapters = {name: adapter for name, adapter in adapters.items() if isinstance(adapter, Adapter)}
        self.out = Written(_method(self.adapters), {}, {}, {}, set(), set(), {})

    def write(self) -> Written:
        """The tensors of all adapters."""
        links = {leaf: link for link in self.names.binding.links for leaf in link.ours}
        lost = [name for name in self.adapters if name not in links]
        if lost:
            raise PeftError(f"the names of {self.names.convention!r} have no place for the adapters of {listed(lost)}")
        for link in {links[name].ours: links[name] for name in self.adapters}.values():
            self._link(link, {name: self.adapters[name] for name in link.ours if name in self.adapters})
        if self.out.method == "VERA":
            self._projections()
        return self.out

    def _link(self, link: Link, parts: dict[str, Any]) -> None:
        kinds = {type(adapter) for adapter in parts.values()}
        first, module = next(iter(parts)), link.theirs[0].removesuffix(".weight")
        if kinds == {Full}:
            arrays = [np.asarray(parts[n].value if n in parts else self.names.leaves[n]) for n in link.ours]
            self.out.whole |= zip(link.theirs, link.layout.save(arrays), strict=True)
        elif len(kinds) > 1 or len(link.theirs) > 1:
            raise PeftError(f"{listed(list(parts))}: {listed(link.theirs)} takes adapters of one kind")
        elif kinds == {Scale} and parts[first].layout.kind == "vector":
            weight = self.names.links.get(f"{module.removesuffix('.bias')}.weight")
            if not module.endswith(".bias") or not any(
                isinstance(self.adapters.get(name), Scale) for name in (weight.ours if weight else ())
            ):  # fmt: skip
                raise PeftError(f"{first!r}: peft scales a vector only as the bias of a layer whose outputs are scaled")
        elif kinds == {Scale}:
            self._scale(module, link, parts)
        elif not link.theirs[0].endswith(".weight"):
            raise PeftError(f"{first!r} is {link.theirs[0]!r} there, which is no weight of a module: peft adapts those")
        elif kinds == {VeRA}:
            self._vera(module, link, parts[first])
        else:
            self._lora(module, link, parts)

    def _lora(self, module: str, link: Link, parts: dict[str, Any]) -> None:
        """LoRA and DoRA; parts of a fused layer become one adapter, whose rank is the sum unless they share ``A``."""
        rows, axes = self._axes(link, parts)
        shape = theirs_shape(link, self.names.leaves)
        self._check_groups(next(iter(parts)), shape)
        scale = float(next(iter(parts.values())).constants["scale"])
        pairs = []
        for name, adapter in parts.items():
            a, b = axes[name].factors_back(*_factors(name, adapter))
            pairs.append((a, b * b.dtype.type(float(adapter.constants["scale"]) / scale)))
        if all(np.array_equal(a, pairs[0][0]) for a, _ in pairs):
            a, b = pairs[0][0], np.sum([b for _, b in pairs], axis=0, dtype=pairs[0][1].dtype)
        else:
            a, b = np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs], axis=1)
        rank, ones = a.shape[0], (1,) * (len(shape) - 2)
        if rows == "words":
            self._put(module, lora_embedding_A=a, lora_embedding_B=b)
        else:
            a = a if rows == "ins" else a.reshape(rank, *shape[1:])
            self._put(module, **{"lora_A.weight": a, "lora_B.weight": b.reshape(-1, rank, *ones)})
        self.out.ranks[module], self.out.scales[module] = rank, scale
        if isinstance(next(iter(parts.values())), DoRA):
            self.out.dora = True
            magnitude = self._magnitude(link, parts, axes, rows)
            self._put(module, lora_magnitude_vector=magnitude.reshape(1, -1, *ones) if ones else magnitude)
        self.out.turned |= {module} if rows == "ins" else set()

    def _magnitude(self, link: Link, parts: dict[str, Any], axes: dict[str, Axes], rows: str) -> np.ndarray:
        """Of all outputs; of a part without an adapter, the length that its weights have."""
        base = np.asarray(link.layout.save([np.asarray(self.names.leaves[n]) for n in link.ours])[0], np.float32)
        base = base.reshape(base.shape[0], -1) if rows == "outs" else base.T
        found = np.sqrt(np.sum(base**2, axis=1))
        for name, adapter in parts.items():
            found[axes[name].outs] = np.asarray(adapter.magnitude, np.float32)
        return found

    def _scale(self, module: str, link: Link, parts: dict[str, Any]) -> None:
        """IA3: of the outputs with their bias, or of the inputs."""
        first = next(iter(parts))
        rows, axes = self._axes(link, parts)
        shape = theirs_shape(link, self.names.leaves)
        sides = {adapter.side for adapter in parts.values()}
        if rows == "words" or len(sides) > 1 or not link.theirs[0].endswith(".weight"):
            raise PeftError(f"{listed(list(parts))}: peft has IA3 for one side of linear layers and convolutions")
        inward = sides == {"in"}
        turned = rows == "ins"
        value = np.ones(shape[1] if inward != turned else shape[0], np.float32)
        for name, adapter in parts.items():
            own = np.asarray(adapter.factors(self.shared))
            if inward:
                self._check_groups(first, shape)
                where = axes[name].ins // (axes[name].total[0] // value.size)
                value[where] = np.broadcast_to(own, where.shape)
                same = np.array_equal(value[where], np.broadcast_to(own, where.shape))
            else:
                value[axes[name].outs], same = own, True
            if not same or (inward and len(parts) < len(link.ours)):
                raise PeftError(f"{name!r}: peft scales each input channel of {module!r} once")
        if not inward:
            self._check_bias(module, parts)
        window = (1,) * (len(shape) - 2)
        self._put(module, ia3_l=value.reshape(1, -1, *window) if window or inward else value.reshape(-1, 1))
        self.out.ranks[module] = 0
        self.out.inputs |= {module} if inward else set()
        self.out.turned |= {module} if turned else set()

    def _check_bias(self, module: str, parts: dict[str, Any]) -> None:
        """That the bias is scaled as the kernel is, for so it is in peft."""
        bias = self.names.links.get(f"{module}.bias")
        kernels = self.names.links[f"{module}.weight"].ours
        for kernel, leaf in zip(kernels, bias.ours if bias else ()):
            one, other = parts.get(kernel), self.adapters.get(leaf)
            if one is None and other is None:
                continue
            both = [adapter.factors(self.shared) for adapter in (one, other) if isinstance(adapter, Scale)]
            if len(both) < 2 or not np.array_equal(np.ravel(both[0]), np.ravel(both[1])):
                raise PeftError(f"{kernel!r}: peft scales the bias {leaf!r} with it, by the same factors")

    def _vera(self, module: str, link: Link, adapter: VeRA) -> None:
        name = link.ours[0]
        rows, axes = self._axes(link, {name: adapter})
        if len(link.ours) > 1 or not axes[name].in_order or rows == "words" or axes[name].layout.kind == "conv":
            raise PeftError(f"{name!r}: VeRA of peft is for linear layers with their inputs and outputs in order")
        b = np.asarray(adapter.b).reshape(-1)
        self._put(module, vera_lambda_d=np.asarray(adapter.d), vera_lambda_b=b)
        self.out.ranks[module] = int(np.size(adapter.d))
        self.out.turned |= {module} if rows == "ins" else set()

    def _projections(self) -> None:
        """VeRA's random matrices, of the size of the largest layer, which peft insists on."""
        shapes = [theirs_shape(self.names.links[f"{m}.weight"], self.names.leaves) for m in self.out.targets]
        shapes = [shape[::-1] if m in self.out.turned else shape for m, shape in zip(self.out.targets, shapes)]
        first, second = np.asarray(self.shared[A]).T, np.asarray(self.shared[B]).T
        cut = first[:, : max(shape[1] for shape in shapes)], second[: max(shape[0] for shape in shapes)]
        self.out.tensors |= zip(SHARED["VERA"], cut, strict=True)

    def _axes(self, link: Link, parts: Mapping[str, Any]) -> tuple[str, dict[str, Axes]]:
        """What the rows of their weight are, and the axes of each part."""
        layouts: dict[str, Layout] = {name: adapter.layout for name, adapter in parts.items()}
        stacked = [name for name, layout in layouts.items() if layout.stack]
        if stacked:
            raise PeftError(f"{stacked[0]!r} holds several layers in one leaf, each of which peft adapts on its own")
        words = any(layout.kind == "embedding" for layout in layouts.values())
        failed: list[PeftError] = []
        for rows in ("words",) if words else ("outs", "ins"):
            try:
                return rows, {n: axes_of(link, n, self.names.leaves, rows, layout) for n, layout in layouts.items()}
            except PeftError as error:
                failed.append(error)
        raise failed[0]

    def _check_groups(self, name: str, shape: tuple[int, ...]) -> None:
        if max(shape[2:], default=1) > 1 and shape[1] == 1 < shape[0] and name not in self.one_channel:
            raise PeftError(
                f"{name!r} is the kernel of a depthwise convolution, for which peft has an adapter that mixes the "
                "channels: merge this one into the base and export that"
            )

    def _put(self, module: str, **parts: np.ndarray) -> None:
        self.out.tensors |= {f"{PREFIX}{module}.{part}": np.ascontiguousarray(array) for part, array in parts.items()}


def _factors(name: str, adapter: Any) -> tuple[np.ndarray, np.ndarray]:
    """`a` and `b`; with a start that is subtracted, of twice the rank, as peft has no other place for it."""
    a, b, constants = np.asarray(adapter.a), np.asarray(adapter.b), adapter.constants
    if np.size(constants["scale"]) != 1:
        raise PeftError(f"{name!r} has {np.size(constants['scale'])} scales; peft has one for each layer")
    if "a0" in constants:
        a = np.concatenate([a, np.asarray(constants["a0"], a.dtype)], axis=-1)
        b = np.concatenate([b, -np.asarray(constants["b0"], b.dtype)])
    return a, b


def _method(adapters: Mapping[str, Adapter]) -> str:
    """peft's method for all the adapters: there is one for a folder."""
    found: dict[str, str] = {}
    for name, adapter in adapters.items():
        if isinstance(adapter, Full):
            continue
        if not isinstance(adapter, LoRA | DoRA | VeRA | Scale):
            raise PeftError(
                f"{name!r} has an adapter of kind {adapter.kind!r}; tljax writes lora, dora, vera, ia3 and full"
            )
        found.setdefault(adapter.kind, name)
    if len(found) > 1:
        both = " and ".join(f"{name!r} ({kind})" for kind, name in found.items())
        raise PeftError(f"a folder of peft holds adapters of one kind, besides whole copies; found {both}")
    return {"ia3": "IA3", "vera": "VERA"}.get(next(iter(found), ""), "LORA")
