"""The tensors of a peft file by module and part, and the keymap of the model that knows the modules."""

import pathlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tljax.checkpoints import CheckpointError, open_weights
from tljax.checkpoints.keymap import Binding, KeymapError, Link, listed
from tljax.peft.adapter import PeftError
from tljax.tree import named_leaves, nearest
from tljax.types import Model, Params

PREFIX = "base_model.model."
FILES = ("adapter_model.safetensors", "adapter_model.bin")
SHARED = {"VERA": ("base_model.vera_A", "base_model.vera_B")}
_PARTS = {
    "LORA": (
        "lora_A.weight", "lora_B.weight", "lora_B.bias", "lora_embedding_A", "lora_embedding_B",
        "lora_magnitude_vector", "token_adapter.trainable_tokens_delta",
    ),
    "IA3": ("ia3_l",),
    "VERA": ("vera_lambda_d", "vera_lambda_b"),
    "LOHA": tuple(f"hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
    "LOKR": tuple(f"lokr_{part}" for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")),
    "LN_TUNING": ("ln_tuning_layers.weight", "ln_tuning_layers.bias"),
}  # fmt: skip
_BASE = ("base_layer.weight", "base_layer.bias")
_WRAPPED = re.compile(r"\.(modules_to_save|original_module)\.")


class Tensors(NamedTuple):
    """The tensors of a file."""

    path: pathlib.Path
    modules: Mapping[str, Mapping[str, np.ndarray]]
    """By the path of the adapted module in PyTorch, then by part, such as "lora_A.weight"."""
    plain: Mapping[str, np.ndarray]
    """Whole leaves, by their names in PyTorch."""
    shared: Mapping[str, np.ndarray]
    """What belongs to no module."""
    idle: tuple[str, ...] = ()
    """Names of what computes nothing: what modules that were saved whole had been."""


class Names(NamedTuple):
    """A keymap bound to the leaves of a model, to be asked by names of theirs."""

    convention: str
    binding: Binding
    leaves: Mapping[str, Any]
    """Our leaves by name."""
    links: Mapping[str, Link]
    """By their names."""

    @property
    def modules(self) -> list[str]:
        """The paths of the modules whose weights have inputs and outputs."""
        return [
            name.removesuffix(".weight")
            for name, link in self.links.items()
            if name.endswith(".weight") and len(self.leaves[link.ours[0]].shape) > 1
        ]

    def useless(self, module: str) -> bool:
        """Whether the keymap knows the module, and the model has no use for it."""
        return bool(self.binding.useless([f"{module}.weight"]))


def read_tensors(folder: pathlib.Path, method: str) -> Tensors:
    """The tensors in `folder`, by module and part.

    Raises `CheckpointError` where there is no readable file, `PeftError` for names that are none of the method's.
    """
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        there = ", ".join(sorted(file.name for file in folder.iterdir())[:12])
        raise CheckpointError(f"{folder} holds no {' or '.join(FILES)}; found {there or 'nothing'}")
    leaves = open_weights(path, root="").read().leaves
    shared = {name: leaf for name, leaf in leaves.items() if name in SHARED.get(method, ())}
    strangers = [name for name in leaves if not name.startswith(PREFIX) and name not in shared]
    if strangers:
        raise PeftError(
            f"{path}: expected names that begin with {PREFIX!r}, found {listed(strangers, 6)}; "
            "peft would load none of them, and only warn"
        )
    modules: dict[str, dict[str, np.ndarray]] = {}
    plain: dict[str, np.ndarray] = {}
    for name, leaf in leaves.items():
        if name not in shared:
            module, part = _split(name.removeprefix(PREFIX), (*_PARTS[method], *_BASE))
            if part:
                modules.setdefault(module, {})[part] = leaf
            else:
                plain[module] = leaf
    idle = tuple(name for name in plain if ".original_module." in name)
    return Tensors(path, modules, _once(plain, path), shared, idle)


def find_names(model: Model, params: Params, tensors: Tensors, convention: str | None) -> Names:
    """The names of the model by which all modules and whole leaves of the file are known.

    Raises `KeymapError` where the model has no such keymap, or several that differ, and for names that none knows.
    """
    if not model.keymaps:
        raise KeymapError(f"{model.name} has no keymaps: write model._replace(keymaps={{'mine': Keymap(...)}})")
    if convention is not None and convention not in model.keymaps:
        raise KeymapError(f"convention={convention!r}; {model.name} has {', '.join(map(repr, model.keymaps))}")
    tried = [bind(model, params, name) for name in ([convention] if convention else model.keymaps)]
    wanted = [*(f"{module}.weight" for module in tensors.modules), *tensors.plain]
    unknown = [_unknown(names, wanted) for names in tried]
    least = min(map(len, unknown))
    fits = [names for names, lacking in zip(tried, unknown) if len(lacking) == least]
    if least:
        lacking = unknown[tried.index(fits[0])]
        raise KeymapError(
            f"{tensors.path}: {model.name} has no {listed(lacking, 6)}; tried the names of "
            f"{', '.join(repr(names.convention) for names in tried)}, of which {fits[0].convention!r} is nearest: "
            f"{listed(nearest(lacking[0], fits[0].links))}"
        )
    if any(_table(names, wanted) != _table(fits[0], wanted) for names in fits):
        which = ", ".join(repr(names.convention) for names in fits)
        raise KeymapError(f"{tensors.path}: the names fit {which} equally well; choose with convention=")
    return fits[0]


def bind(model: Model, params: Params, convention: str) -> Names:
    """The keymap `convention` bound to the leaves of `params`."""
    leaves = named_leaves(params)
    binding = model.keymaps[convention].bind(leaves)
    return Names(convention, binding, leaves, {name: link for link in binding.links for name in link.theirs})


def _once(plain: Mapping[str, np.ndarray], path: pathlib.Path) -> dict[str, np.ndarray]:
    """The whole leaves. With bias="all", peft writes the biases of modules saved whole twice more, inside its wrapper.

    Raises `PeftError` where the two differ.
    """
    whole = {name: leaf for name, leaf in plain.items() if not _WRAPPED.search(name)}
    for name, leaf in plain.items():
        outside = name.replace(".modules_to_save.", ".")
        if outside != name and not np.array_equal(whole.setdefault(outside, leaf), leaf):
            raise PeftError(f"{path}: {outside!r} and {name!r} are one leaf, and differ")
    return whole


def _unknown(names: Names, wanted: Sequence[str]) -> list[str]:
    known = {*names.links, *names.binding.extras, *names.binding.useless(wanted)}
    return [name for name in wanted if name not in known]


def _table(names: Names, wanted: Iterable[str]) -> list[tuple[tuple[str, ...], str] | None]:
    links = (names.links.get(name) for name in wanted)
    return [link and (link.ours, link.layout.name) for link in links]


def _split(name: str, parts: Collection[str]) -> tuple[str, str]:
    """The module and the part; of a whole leaf, its name and nothing."""
    for part in parts:
        if name.endswith(f".{part}"):
            return name.removesuffix(f".{part}"), part
    return name, ""
