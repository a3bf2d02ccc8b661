"""Folders of Hugging Face peft, read and written without torch."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tljax.checkpoints import CheckpointError, save_weights
from tljax.checkpoints.atomic import atomic_folder
from tljax.checkpoints.keymap import KeymapError, listed
from tljax.peft.adapter import Adapters, PeftError
from tljax.peft.hf_config import FILE, read_peft_config
from tljax.peft.hf_methods import METHODS
from tljax.peft.hf_names import FILES, PREFIX, Names, Tensors, bind, find_names, read_tensors
from tljax.peft.hf_reader import Reader
from tljax.peft.hf_targets import check_saved, check_targets
from tljax.peft.hf_write import Writer
from tljax.peft.hf_write_config import finished
from tljax.peft.table import table
from tljax.tree import select
from tljax.types import Model, Params


@dataclasses.dataclass(frozen=True)
class AdaptersReport:
    """What was read. `str` prints it as a table."""

    path: str
    method: str
    """Of peft, such as "LORA"."""
    convention: str
    """The keymap by which the names were understood."""
    sources: Mapping[str, str]
    """For each leaf that has an adapter, the module in PyTorch, or the whole leaf, that it came from."""
    table: str
    ignored: tuple[str, ...] = ()
    """Names in the file that the keymap knows and the model has no use for."""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.method}, names: {self.convention}", self.table]
        lines += [f"ignored in the file ({len(self.ignored)}): {listed(self.ignored)}"] if self.ignored else []
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


class LoadedAdapters(NamedTuple):
    """Adapters of a folder, and what was read."""

    adapters: Adapters
    report: AdaptersReport


def load_adapters(
    folder: str | os.PathLike[str], model: Model, params: Params, *, convention: str | None = None
) -> LoadedAdapters:
    """The adapters in a folder of Hugging Face peft, for a model with keymaps.

    Reads LoRA, rsLoRA, DoRA, PiSSA and OLoRA, IA3, VeRA, LoHa, LoKr and LN tuning, with `modules_to_save`, trained
    biases and trained tokens. Every tensor of the file is used, and every target that the configuration names is found,
    or the load raises; so do options that would change what the adapter computes and that we do not have. The names may
    be those of any of the model's conventions: a ViT adapter of transformers 4 as well as one of 5, saved with the
    model's head or without.

    Args:
      folder: with adapter_config.json and adapter_model.safetensors (or .bin, with the `torch` extra).
      model: the base; adapters are found by its `keymaps`.
      params: the parameters of the base.
      convention: the name of the keymap to use, instead of the one that fits.

    Raises:
      CheckpointError: a file is missing or damaged.
      KeymapError: the model does not have the modules of the file; the message names the nearest.
      PeftError: an option that we refuse, tensors missing or too many, shapes that do not fit.

    >>> import json, tempfile, jax
    >>> from tljax.checkpoints import save_weights
    >>> from tljax.models import resnet
    >>> model = resnet(8, num_classes=3, width=2)
    >>> params = model.init(jax.random.key(0), np.ones((1, 8, 8, 3), np.float32))
    >>> factors = {"A": np.ones((2, 8), np.float32), "B": np.ones((3, 2), np.float32)}
    >>> tensors = {f"base_model.model.linear.lora_{part}.weight": x for part, x in factors.items()}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(tensors, f"{folder}/adapter_model.safetensors", separator=".")
    ...     _ = (pathlib.Path(folder) / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2}))
    ...     adapters, report = load_adapters(folder, model, params)
    >>> list(adapters), report.sources
    (['head/kernel'], {'head/kernel': 'linear'})
    """
    path = pathlib.Path(folder)
    config = read_peft_config(path)
    tensors = read_tensors(path, config.method)
    names = find_names(model, params, tensors, convention)
    reader = Reader(config, names, tensors)
    ignored = [PREFIX + name for name in tensors.idle]
    sources: dict[str, str] = {}
    for module, parts in tensors.modules.items():
        if names.useless(module):
            ignored += [f"{PREFIX}{module}.{part}" for part in parts]
            continue
        reader.module(module, parts, METHODS[config.method])
        sources |= {leaf: sources.get(leaf, module) for leaf in reader.adapters if not leaf.startswith("shared/")}
    for name, value in tensors.plain.items():
        if name in names.links:
            sources |= dict.fromkeys(reader.whole(name, value), name)
        else:
            ignored.append(PREFIX + name)
    _check(reader, names, tensors)
    about = (str(path), config.method, names.convention, sources, table(reader.adapters, params))
    return LoadedAdapters(reader.adapters, AdaptersReport(*about, tuple(ignored), _notes(tensors)))


def save_adapters(
    adapters: Adapters,
    folder: str | os.PathLike[str],
    model: Model,
    params: Params,
    *,
    convention: str | None = None,
    base_model: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a folder that Hugging Face peft loads, and that computes there what the adapters compute here.

    LoRA and rsLoRA with their ranks and scales, DoRA, VeRA, IA3, and whole copies of leaves. PiSSA and OLoRA become
    LoRA of twice the rank, since peft has no place for the start they subtract; adapters of the parts of a fused layer
    become one. Nothing is left half-written.

    Args:
      adapters: of one kind, besides whole copies.
      folder: where to.
      model: the base, with `keymaps`.
      params: the parameters of the base; where peft keeps a whole module, the rest of it comes from here.
      convention: the keymap, whose names must be those that the PyTorch model has in memory. By default those of the
        model of transformers with a head, such as "transformers"; one that has none of its own has "transformers-base".
      base_model: the name or path of the base model, for the configuration.
      overwrite: replace the folder with all that is in it; by default it must not exist, or be empty.

    Raises:
      PeftError: an adapter that peft cannot express; the message names it.
      KeymapError: the model has no such keymap, or several.
      CheckpointError: the folder cannot be written.

    >>> import tempfile, jax
    >>> from tljax.models import resnet
    >>> from tljax.peft import full
    >>> model = resnet(8, num_classes=3, width=2)
    >>> params = model.init(jax.random.key(0), np.ones((1, 8, 8, 3), np.float32))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_adapters(full(params, "head/**"), f"{folder}/head", model, params)
    ...     print(load_adapters(f"{folder}/head", model, params).report.sources)
    {'head/bias': 'linear.bias', 'head/kernel': 'linear.weight'}
    """
    path = pathlib.Path(folder)
    if path.exists() and not path.is_dir():
        raise CheckpointError(f"{path} is a file; expected the name of a folder")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise CheckpointError(f"{path} is not empty; write overwrite=True to replace it with all that is in it")
    table(adapters, params)  # raises for leaves that the base does not have
    name = convention or _in_memory(model, any(leaf.startswith("head/") for leaf in adapters))
    if name not in model.keymaps:
        raise KeymapError(f"convention={name!r}; {model.name} has {_keymaps(model)}")
    names = bind(model, params, name)
    stem = frozenset(select(model.groups[0]).names(params, required=False)) if model.groups else frozenset()
    tensors, fields = finished(Writer(adapters, names, stem).write(), names, base_model)
    with atomic_folder(path) as part:
        part.mkdir()
        save_weights(tensors, part / FILES[0], separator=".", metadata={"format": "pt"})
        (part / FILE).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def _in_memory(model: Model, head: bool) -> str:
    """The convention whose names a model of transformers has in memory: files may have older ones."""
    if len(model.keymaps) == 1:
        return next(iter(model.keymaps))
    whole = model.keymaps.get("transformers")
    end = "" if head or (whole is not None and whole.config is not None) else "-base"
    for name in (f"transformers5{end}", f"transformers{end}", "transformers"):
        if name in model.keymaps:
            return name
    raise KeymapError(
        f"{model.name} has the keymaps {_keymaps(model)}; choose with convention= the one whose names the PyTorch "
        "model has"
    )


def _keymaps(model: Model) -> str:
    return ", ".join(map(repr, model.keymaps)) or "none"


def _check(reader: Reader, names: Names, tensors: Tensors) -> None:
    if not reader.adapters:
        raise PeftError(f"{tensors.path}: no adapter is left that the model has a use for")
    adapted = [
        module
        for module, parts in tensors.modules.items()
        if any(not part.startswith(("base_layer.", "token_adapter.")) for part in parts)
    ]
    check_targets(reader.config, adapted, names.modules)
    check_saved(reader.config, tensors.plain, names.links)


def _notes(tensors: Tensors) -> tuple[str, ...]:
    every = {f"{module}.{part}": x for module, parts in tensors.modules.items() for part, x in parts.items()}
    every |= tensors.plain
    bad = [name for name, array in every.items() if not np.isfinite(np.asarray(array, np.float32)).all()]
    return (f"NaN or inf in {listed(bad)}",) if bad else ()
