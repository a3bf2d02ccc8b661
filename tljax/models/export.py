"""A model to files of another project: Hugging Face folders, torch files, safetensors."""

import json
import os
import pathlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tljax.checkpoints import CheckpointError, save_weights
from tljax.checkpoints.atomic import atomic_folder
from tljax.checkpoints.keymap import Keymap, KeymapError
from tljax.types import Model, Params

FORMATS = ("huggingface", "safetensors", "torch")
_LABELS = ("id2label", "label2id")


def export(
    model: Model,
    params: Params,
    path: str | os.PathLike[str],
    *,
    format: str = "huggingface",
    convention: str | None = None,
    config: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    max_shard_size: int | None = None,
) -> None:
    """Write the parameters under another project's names and layouts; nothing is left half-written.

    Args:
      model: a model with `keymaps`.
      params: its parameters, adapters merged.
      path: the folder for "huggingface", else the file.
      format: "huggingface" writes model.safetensors and config.json; "safetensors" and "torch" one file.
      convention: which keymap; by default the only one, or for "huggingface" the first with a configuration.
      config: further entries of config.json, as ``Pretrained.config``; what the keymap says of the architecture goes
        before them, and names of labels stay only if their number is the head's.
      overwrite: replace the folder with all that is in it; by default it must not exist, or be empty.
      max_shard_size: in bytes, as for `save_weights`.

    Raises:
      KeymapError: the model has no such keymap, or a leaf without a rule.
      CheckpointError: the file cannot be written.
    """
    if format not in FORMATS:
        raise CheckpointError(f"format={format!r}; expected one of {', '.join(FORMATS)}")
    name = convention or _default(model, format)
    if name not in model.keymaps:
        raise KeymapError(f"convention={name!r}; {model.name} has {', '.join(map(repr, model.keymaps)) or 'none'}")
    keymap = model.keymaps[name]
    flat = keymap.export(params)
    target = pathlib.Path(path)
    if format == "huggingface":
        _write_folder(target, flat, _config(keymap, flat, config or {}, model.name), overwrite, max_shard_size)
        return
    separator = "/" if any("/" in leaf for leaf in flat) else "."
    sharded = {"max_shard_size": max_shard_size} if max_shard_size is not None else {}
    save_weights(flat, target, format=format, separator=separator, **sharded)


def _default(model: Model, format: str) -> str:
    names = list(model.keymaps)
    if format == "huggingface":
        names = [name for name, keymap in model.keymaps.items() if "model_type" in (keymap.config or {})][:1]
        if not names:
            raise KeymapError(
                f"no keymap of {model.name} says what transformers calls it in config.json; write format='safetensors' "
                f"or 'torch', with convention= {', '.join(map(repr, model.keymaps)) or 'none: it has no keymaps'}"
            )
    if len(names) != 1:
        raise KeymapError(f"{model.name} has the keymaps {', '.join(map(repr, names)) or 'none'}; write convention=")
    return names[0]


def _config(keymap: Keymap, flat: Mapping[str, Any], given: Mapping[str, Any], model: str) -> dict[str, Any]:
    own = {name: value(flat) if callable(value) else value for name, value in (keymap.config or {}).items()}
    if not own:
        raise KeymapError(f"this keymap of {model} has no config, so config.json cannot be written")
    config = {**given, **own}
    for key in {"dtype", "torch_dtype"} & set(given):
        config[key] = _float_dtype(flat)
    labels = own.get("id2label")
    if labels is not None and len(given.get("id2label", ())) == len(labels):
        config |= {key: given[key] for key in _LABELS if key in given}
    return config


def _float_dtype(flat: Mapping[str, Any]) -> str:
    """The dtype that the most parameters have."""
    sizes = Counter[str]()
    for leaf in flat.values():
        sizes[leaf.dtype.name] += leaf.size
    return sizes.most_common(1)[0][0]


def _write_folder(
    path: pathlib.Path, flat: Mapping[str, Any], config: Mapping[str, Any], overwrite: bool, max_shard_size: int | None
) -> None:
    if path.exists() and not path.is_dir():
        raise CheckpointError(f"{path} is a file; expected the name of a folder")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise CheckpointError(f"{path} is not empty; write overwrite=True to replace it with all that is in it")
    with atomic_folder(path) as folder:
        folder.mkdir()
        save_weights(
            flat, folder / "model.safetensors", separator=".", metadata={"format": "pt"}, max_shard_size=max_shard_size
        )
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
