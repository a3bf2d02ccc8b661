"""Folders of peft for tests: the golden cases written to disk, and the tiny bases that they adapt."""

import functools
import json
import pathlib
import tempfile

import jax.numpy as jnp
import numpy as np
from golden_files import GOLDEN, script

from tljax.checkpoints import save_weights
from tljax.models import load_pretrained
from tljax.models.bert import Encoder
from tljax.models.bert_names import from_config
from tljax.models.bert_sizes import sizes_of

STORED = np.load(GOLDEN / "peft_folders.npz")


made = script("made_weights")
cases = script("make_peft_folders")


def about(name):
    return json.loads(str(STORED[f"{name}/about"]))


@functools.cache
def base(name):
    """The base called `name`, loaded from a folder as transformers would have saved it."""
    told = about(f"base {name}")
    flat = made.made_weights({leaf: tuple(shape) for leaf, shape in told["shapes"].items()})
    if name == "vit":  # files keep the names of transformers 4
        flat = {cases.saved_name("vit of transformers 4", leaf): value for leaf, value in flat.items()}
    with tempfile.TemporaryDirectory() as folder:
        save_weights(flat, pathlib.Path(folder) / "model.safetensors", separator=".")
        (pathlib.Path(folder) / "config.json").write_text(json.dumps(told["config"]))
        return load_pretrained(folder)


def outputs(loaded, name, params):
    """What the golden file has of the base called `name`."""
    x = cases.inputs(name)
    if isinstance(x, dict):
        x = {"ids": jnp.asarray(x["ids"], jnp.int32), "mask": jnp.asarray(x["mask"], jnp.int32)}
    if name == "bert base":
        sizes = sizes_of(**from_config(loaded.config).options)
        return np.asarray(Encoder(sizes).apply({"params": params["backbone"]}, x)[-1])
    return np.asarray(loaded.model.apply(params, x).logits)


def written(case, folder, **fields):
    """The folder of `case`, with other `fields` in its configuration."""
    told = about(case)
    folder.mkdir(exist_ok=True)
    save_weights(cases.made_tensors(case, told["shapes"]), folder / "adapter_model.safetensors", separator=".")
    (folder / "adapter_config.json").write_text(json.dumps(told["config"] | fields))
    return folder
