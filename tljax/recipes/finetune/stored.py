"""The model that a comparison ends with, as files: a transformers folder where there can be one, adapters beside it."""

import pathlib
import shutil
from typing import Any

from tljax import peft
from tljax.checkpoints import save_weights
from tljax.checkpoints.keymap import KeymapError
from tljax.models import export
from tljax.recipes.finetune.setup import Setup
from tljax.tree import named_leaves
from tljax.types import ADAPTERS_KEY, Params

BESIDE = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "preprocessor_config.json",
          "sentence_bert_config.json", "1_Pooling")  # fmt: skip
"""What a folder of pretrained weights may hold that a fine-tuned model needs too."""


def write_model(setup: Setup, params: Params, folder: pathlib.Path) -> str:
    """Write the model with adapters merged to `folder`, anew; returns what was written, a sentence for a person.

    Where the architecture has no place for its head in transformers, the backbone makes the folder, and the head stands
    beside it in ``head.safetensors``.
    """
    base = merged(params)
    config = dict(setup.pretrained.config or {}) | _labels(setup.task.train.classes)
    try:
        export(setup.pretrained.model, base, folder, config=config, overwrite=True)
        said = "a folder that transformers loads"
    except KeymapError:
        head = _headless(setup, base)
        leaves = {name: part for name, part in base.items() if name != "head"} if head else base
        said = _backbone(setup, leaves, folder, config)
        if head:
            save_weights(base["head"], folder / "head.safetensors")
            said += ", and its head in head.safetensors"
    for name in BESIDE:
        _copy(setup.folder / name, folder / name)
    return said


def write_adapters(setup: Setup, params: Params, folder: pathlib.Path) -> bool:
    """Write the adapters that are attached to `params` as a folder of Hugging Face peft; whether its format can.

    The head goes along as a whole module, where transformers has a place for it; else only learnt.safetensors has it.
    """
    base, adapters = peft.detach(params)
    model, whole = setup.pretrained.model, peft.join(adapters, peft.full(base, "head/**"))
    for these, convention in ((whole, None), (adapters, setup.pretrained.convention)):
        try:
            peft.save_adapters(these, folder, model, base, convention=convention, overwrite=True)
        except (KeymapError, peft.PeftError):
            continue
        return True
    return False


def merged(params: Params) -> Params:
    """The parameters with what adapters are attached merged in."""
    return peft.merge(*peft.detach(params)) if ADAPTERS_KEY in params else params


def _backbone(setup: Setup, leaves: Params, folder: pathlib.Path, config: dict[str, Any]) -> str:
    model, convention = setup.pretrained.model, setup.pretrained.convention
    try:
        export(model, leaves, folder, config=config, convention=convention, overwrite=True)
        return "a folder that transformers loads"
    except KeymapError:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        export(model, leaves, folder / "model.safetensors", format="safetensors", convention=convention)
        return f"model.safetensors with the names of {convention!r}"


def _headless(setup: Setup, params: Params) -> bool:
    """Whether the names of the file have no place for the head."""
    keymap = setup.pretrained.model.keymaps[setup.pretrained.convention]
    return any(name.startswith("head/") for name in keymap.bind(named_leaves(params)).unmapped)


def _labels(classes: tuple[str, ...]) -> dict[str, Any]:
    names = {str(i): name for i, name in enumerate(classes)}
    return {"id2label": names, "label2id": {name: int(i) for i, name in names.items()}}


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif source.is_file():
        shutil.copy(source, target)
