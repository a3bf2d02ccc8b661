"""Which modules the configuration of a peft folder means: peft's own rules of matching, without its silence."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tljax.checkpoints.errors import shown
from tljax.checkpoints.keymap import listed
from tljax.peft.adapter import PeftError
from tljax.peft.hf_config import PeftConfig
from tljax.tree import nearest

ALL_LINEAR = "all-linear"


def selected(fields: Mapping[str, Any], module: str) -> bool:
    """Whether peft adapts the module of this path.

    >>> selected({"target_modules": ["query"]}, "layer.0.query"), selected({"target_modules": "query"}, "layer.0.query")
    (True, False)
    """
    targets = fields.get("target_modules") or []
    if _left_out(fields, module):
        return False
    if isinstance(targets, str):
        return targets.lower() == ALL_LINEAR or re.fullmatch(targets, module) is not None
    return module in targets or (_ends(module, targets) and _in_layers(fields, module))


def in_saved(names: Collection[str], module: str) -> bool:
    """Whether the module is one of `modules_to_save`, or inside one.

    >>> in_saved(["classifier"], "classifier.dense"), in_saved(["classifier"], "pre_classifier")
    (True, False)
    """
    return any(re.match(rf"(^|.*\.){name}($|\..*)", module) for name in names)


def is_feedforward(fields: Mapping[str, Any], module: str) -> bool:
    """Whether IA3 scales what the module takes in, rather than what it puts out.

    >>> is_feedforward({"feedforward_modules": ["output.dense"]}, "layer.0.output.dense")
    True
    """
    names = fields.get("feedforward_modules") or []
    return bool(re.fullmatch(names, module)) if isinstance(names, str) else module.endswith(tuple(names))


def check_targets(config: PeftConfig, found: Collection[str], known: Sequence[str]) -> None:
    """That the modules with tensors in the file (`found`) are those that the configuration means among the `known`.

    Raises `PeftError` for a target that matches nothing, a module without its tensors, and tensors of another module.
    """
    fields, where = config.fields, str(config.path.parent)
    targets = fields.get("target_modules")
    spared = [module for module in known if _left_out(fields, module)]
    for name in targets if isinstance(targets, list) else ():
        if not any(_ends(module, [name]) for module in (*found, *spared)):
            raise PeftError(
                f"{where}: the target {shown(name)!r} has no tensors in the file; the model has "
                f"{listed(nearest(name, {m.rpartition('.')[2] for m in known} | set(known))) or 'nothing like it'}"
            )
    if targets is None or (isinstance(targets, str) and targets.lower() == ALL_LINEAR):
        return
    lacking = [module for module in known if module not in found and selected(fields, module)]
    if lacking:
        raise PeftError(f"{where}: target_modules selects modules without tensors in the file: {listed(lacking)}")
    others = [module for module in found if not selected(fields, module)]
    if others:
        raise PeftError(
            f"{where}: the file has tensors for modules that target_modules ({shown(targets)}) does not select, so "
            f"peft would leave them out: {listed(others)}"
        )


def check_saved(config: PeftConfig, found: Collection[str], known: Collection[str]) -> None:
    """That the file has all leaves of `modules_to_save` that the model has."""
    for name in config.get("modules_to_save", ()):
        lacking = [leaf for leaf in known if in_saved([name], leaf.rpartition(".")[0]) and leaf not in found]
        if lacking:
            raise PeftError(
                f"{config.path.parent}: modules_to_save names {shown(name)!r}, but the file lacks {listed(lacking)}"
            )


def _left_out(fields: Mapping[str, Any], module: str) -> bool:
    """Whether peft adapts the module in no case: it is excluded, or saved whole."""
    excluded = fields.get("exclude_modules") or []
    if excluded and (re.fullmatch(excluded, module) if isinstance(excluded, str) else _ends(module, excluded)):
        return True
    return in_saved(fields.get("modules_to_save") or (), module)


def _ends(module: str, names: Collection[str]) -> bool:
    return any(module == name or module.endswith(f".{name}") for name in names)


def _in_layers(fields: Mapping[str, Any], module: str) -> bool:
    """Whether the first number in the path is among the layers to transform."""
    layers = fields.get("layers_to_transform")
    if layers is None or layers == []:
        return True
    patterns = fields.get("layers_pattern") or []
    patterns = [patterns] if isinstance(patterns, str) else patterns
    expressions = [rf"(?:^|.*?\.){pattern}\.(\d+)\." for pattern in patterns] or [r".*?\.[^.]*\.(\d+)\."]
    found = next((match for text in expressions if (match := re.match(text, module))), None)
    return found is not None and int(found[1]) in ([layers] if isinstance(layers, int) else layers)
