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
from tljax.tree import named_leaves
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
      format: "huggingface" writes model.safetensors and config.json, and for a text encoder that pools by "mean" or
        "cls" what sentence-transformers needs to do so; "safetensors" and "torch" one file.
      convention: which keymap; by default the only one, or for "huggingface" the first that transformers reads. One
        without a head, such as "transformers-base", leaves the head out.
      config: further entries of config.json, as ``Pretrained.config``; what the keymap says of the architecture goes
        before them, and names of labels stay only if their number is the head's.
      overwrite: replace the folder with all that is in it; by default it must not exist, or be empty.
      max_shard_size: in bytes, as for `save_weights`.

    Raises:
      KeymapError: the model has no such keymap, or a leaf without a rule.
      CheckpointError: the file cannot be written.

    >>> import tempfile, jax
    >>> from tljax.checkpoints import read_weights
    >>> from tljax.models import resnet
    >>> model = resnet(8, num_classes=3, width=2)
    >>> params = model.init(jax.random.key(0), jax.numpy.ones((1, 8, 8, 3)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export(model, params, f"{folder}/resnet.safetensors", format="safetensors")
    ...     read_weights(f"{folder}/resnet.safetensors").leaves["linear.weight"].shape
    (3, 8)
    """
    if format not in FORMATS:
        raise CheckpointError(f"format={format!r}; expected one of {', '.join(FORMATS)}")
    leaves = named_leaves(params)
    name = convention or _default(model, leaves, format)
    if name not in model.keymaps:
        raise KeymapError(f"convention={name!r}; {model.name} has {_names(model)}")
    keymap = model.keymaps[name]
    if _is_headless(keymap, leaves):
        leaves = {leaf: value for leaf, value in leaves.items() if not leaf.startswith("head/")}
    flat = keymap.bind(leaves).export(leaves)
    target = pathlib.Path(path)
    if format == "huggingface":
        files = {"config.json": _config(keymap, flat, config or {}, name), **keymap.beside}
        _write_folder(target, flat, files, overwrite, max_shard_size)
        return
    separator = "/" if any("/" in leaf for leaf in flat) else "."
    save_weights(flat, target, format=format, separator=separator, max_shard_size=max_shard_size)


def _default(model: Model, leaves: Mapping[str, Any], format: str) -> str:
    """The convention to take when none is named."""
    if format != "huggingface":
        if len(model.keymaps) == 1:
            return next(iter(model.keymaps))
        raise KeymapError(f"{model.name} has the keymaps {_names(model)}; choose with convention=")
    known = [name for name, keymap in model.keymaps.items() if "model_type" in (keymap.config or {})]
    whole = [name for name in known if not _is_headless(model.keymaps[name], leaves)]
    if whole:
        return whole[0]
    if known:
        raise KeymapError(
            f"transformers has no place for the head of this {model.name}; "
            f"write convention={known[0]!r} to leave it out"
        )
    raise KeymapError(
        f"transformers has no {model.name} like this: none of its keymaps says what stands in config.json; write "
        f"format='safetensors' or 'torch', with convention= one of {_names(model)}"
    )


def _is_headless(keymap: Keymap, leaves: Mapping[str, Any]) -> bool:
    """Whether the keymap knows everything but the head."""
    head = {name for name in leaves if name.startswith("head/")}
    return bool(head) and set(keymap.bind(leaves).unmapped) == head


def _names(model: Model) -> str:
    return ", ".join(map(repr, model.keymaps)) or "none"


def _config(keymap: Keymap, flat: Mapping[str, Any], given: Mapping[str, Any], name: str) -> dict[str, Any]:
    said = keymap.config or {}
    own = {name: value(flat, given) if callable(value) else value for name, value in said.items()}
    if not own:
        raise KeymapError(f"convention={name!r} says nothing for config.json; write format='safetensors' or 'torch'")
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
    path: pathlib.Path, flat: Mapping[str, Any], files: Mapping[str, Any], overwrite: bool, max_shard_size: int | None
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
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
