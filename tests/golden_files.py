"""Checkpoints of other projects, made anew: what golden files say of them, with weights made from their names."""

import importlib.util
import json
import pathlib
import sys

import tljax as tl

GOLDEN = pathlib.Path(__file__).parent / "golden"


def script(name):
    """A module of the golden folder, which is no package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, GOLDEN / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def write_case(stored, case, folder):
    """The checkpoint of `case` in the golden file `stored` as its project would have saved it, and its leaves."""
    about = json.loads(str(stored[f"{case}/about"]))
    flat = script("made_weights").made_weights(about["shapes"])
    tl.save_weights(flat, folder / "model.safetensors", separator=".")
    if about["config"]:
        (folder / "config.json").write_text(json.dumps(about["config"]))
    return flat, about
