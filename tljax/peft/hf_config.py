"""adapter_config.json of Hugging Face peft: what it says, and what of it we refuse.

Every field is either used, or known to change nothing once training is over, or refused by name. A field that this
version does not know is harmless only while it is off.
"""

import dataclasses
import math
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tljax.checkpoints.errors import CheckpointError, guard, shown
from tljax.checkpoints.folder import MAX_CONFIG
from tljax.checkpoints.safetensors import read_header
from tljax.peft.adapter import PeftError

FILE = "adapter_config.json"
METHODS = ("LORA", "IA3", "VERA", "LOHA", "LOKR", "LN_TUNING")

_TRAINING = {
    "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config", "exclude_modules", "inference_mode",
    "init_weights", "layers_pattern", "layers_to_transform", "peft_type", "peft_version", "revision", "runtime_config",
    "task_type",
    "corda_config", "lora_dropout", "lora_ga_config", "loftq_config", "megatron_core", "qalora_group_size",
    "velora_config",
    "init_ia3_weights",
    "d_initial", "projection_prng_key", "vera_dropout",
    "decompose_both", "decompose_factor", "module_dropout", "rank_dropout", "rank_dropout_scale",
    "use_effective_conv2d",
}  # fmt: skip
"""Read with the targets, or of no effect on what a trained adapter computes."""
_USED = {
    "LORA": {
        "alpha_pattern", "bias", "fan_in_fan_out", "init_lora_weights", "lora_alpha", "lora_bias", "r", "rank_pattern",
        "trainable_token_indices", "use_dora", "use_rslora",
    },
    "IA3": {"fan_in_fan_out", "feedforward_modules"},
    "VERA": {"bias", "fan_in_fan_out", "r", "save_projection"},
    "LOHA": {"alpha", "alpha_pattern", "r", "rank_pattern"},
    "LOKR": {"alpha", "alpha_pattern", "r", "rank_pattern"},
    "LN_TUNING": set(),
}  # fmt: skip
_REFUSED = {
    "alora_invocation_tokens": "aLoRA adapts only the tokens after an invocation, which no change of weights does",
    "arrow_config": "Arrow chooses among adapters for each token",
    "kasa_config": "KaSA cuts singular values off the base weights",
    "layer_replication": "it repeats layers, so it is an adapter for another model",
    "megatron_config": "its layers are split among devices",
    "monteclora_config": "MonteCLoRA samples its weights",
    "target_parameters": "it adapts parameters of experts, whose layout the file does not tell",
    "use_bdlora": "BD-LoRA has block-diagonal factors",
    "use_qalora": "QA-LoRA pools the inputs before it adapts them",
}
_START_UNKNOWN = {
    "corda": "CorDA moves part of the base weights into the adapter by statistics that are not in the file",
    "loftq": "LoftQ belongs to the quantised base weights that it was made with",
    "lora_ga": "LoRA-GA moves part of the base weights into the adapter by a gradient that is not in the file",
}
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "mica", "orthogonal")


class Pattern(NamedTuple):
    """A number for all modules, and others for some: keys are regular expressions for the end of a module's path."""

    default: float
    special: Mapping[str, float]

    def of(self, module: str) -> float:
        """
        >>> Pattern(8, {"query": 4}).of("encoder.layer.0.query"), Pattern(8, {"query": 4}).of("key")
        (4, 8)
        """
        found = (n for key, n in self.special.items() if re.match(rf"(.*\.)?({key})$", module))
        return next(found, self.default)


@dataclasses.dataclass(frozen=True)
class PeftConfig:
    """What adapter_config.json says, checked."""

    path: pathlib.Path
    method: str
    """One of `METHODS`."""
    fields: Mapping[str, Any]
    rank: Pattern
    alpha: Pattern

    def scale(self, module: str, rank: int) -> float:
        """alpha / r, or alpha / sqrt(r) for rsLoRA, by the rank that the file has."""
        return self.alpha.of(module) / (math.sqrt(rank) if self.fields.get("use_rslora") else rank)

    def get(self, name: str, default: Any = None) -> Any:
        """The field, or `default` where it is absent or null."""
        value = self.fields.get(name)
        return default if value is None else value


def read_peft_config(folder: pathlib.Path) -> PeftConfig:
    """Read and check adapter_config.json in `folder`.

    Raises `CheckpointError` where it is missing or no JSON object, `PeftError` for a wrong type or what we refuse.
    """
    path = folder / FILE
    with guard(path, "reading"):
        if not path.is_file():
            there = ", ".join(sorted(file.name for file in folder.iterdir())[:12]) if folder.is_dir() else "no folder"
            raise CheckpointError(f"{path} does not exist; a folder of peft has it. Found: {there or 'nothing'}")
        if path.stat().st_size > MAX_CONFIG:
            raise CheckpointError(f"{path}: a configuration of more than {MAX_CONFIG} bytes")
        fields = read_header(path.read_bytes(), path)
    return checked(fields, path)


def checked(fields: Mapping[str, Any], path: pathlib.Path) -> PeftConfig:
    """The configuration in `fields`, which stood at `path`.

    >>> checked({"peft_type": "LORA", "r": 4}, pathlib.Path("adapter_config.json")).scale("query", 4)
    2.0
    """
    method = str(fields.get("peft_type", "")).rpartition(".")[2].upper()
    if method not in METHODS:
        raise PeftError(f"{path}: peft_type is {shown(fields.get('peft_type'))!r}; tljax reads {', '.join(METHODS)}")
    known = _TRAINING | _USED[method] | {"modules_to_save", "target_modules"}
    for name, value in fields.items():
        if name in _REFUSED and value not in (None, False, [], {}):
            raise PeftError(f"{path}: {name} is set, which tljax does not support: {_REFUSED[name]}")
        if name not in known | set(_REFUSED) and value not in (None, False, [], {}, ""):
            raise PeftError(
                f"{path}: {shown(name)} is {shown(value)}; tljax does not know this option of {method}, which may "
                "change what the adapter computes"
            )
    for name, (right, what) in _TYPES.items():
        if fields.get(name) is not None and not right(fields[name]):
            raise PeftError(f"{path}: {name} is {shown(fields[name])}; expected {what}")
    _check_start(fields, path)
    _check_choices(fields, method, path)
    alpha = "lora_alpha" if method == "LORA" else "alpha"
    patterns = [fields.get(f"{name}_pattern") or {} for name in ("rank", "alpha")]
    for key in (key for pattern in patterns for key in pattern):
        _check_expression(key, path)
    usual = [8 if fields.get(name) is None else fields[name] for name in ("r", alpha)]
    return PeftConfig(path, method, dict(fields), Pattern(usual[0], patterns[0]), Pattern(usual[1], patterns[1]))


def _check_start(fields: Mapping[str, Any], path: pathlib.Path) -> None:
    """Adapters that subtract their start from the base: peft computes it again from the base, and so must we."""
    start = fields.get("init_lora_weights")
    if start in _PLAIN_STARTS or start in ("pissa", "olora"):
        return
    where = f"{path}: init_lora_weights is {shown(start)!r}"
    if isinstance(start, str) and start.startswith("pissa_niter_"):
        raise PeftError(
            f"{where}: the file holds the trained factors, but the start that was subtracted from the base came from a "
            "randomised decomposition, which cannot be repeated (peft itself loads another function); save it from "
            "peft with path_initial_model_for_weight_conversion=, or train from 'pissa'"
        )
    reason = _START_UNKNOWN.get(start) if isinstance(start, str) else None
    raise PeftError(f"{where}: {reason or 'tljax does not know this start, which may change the base weights'}")


def _check_choices(fields: Mapping[str, Any], method: str, path: pathlib.Path) -> None:
    if method in ("LORA", "VERA") and fields.get("bias", "none") not in ("none", "all", f"{method.lower()}_only"):
        raise PeftError(f"{path}: bias is {shown(fields['bias'])}; expected 'none', 'all' or '{method.lower()}_only'")
    if fields.get("use_dora") and fields.get("lora_bias"):
        raise PeftError(f"{path}: use_dora and lora_bias together: peft counts the bias among the weights' lengths")
    if method == "VERA" and fields.get("save_projection") is False:
        raise PeftError(
            f"{path}: save_projection is false: the random projections are not in the file, and only PyTorch's "
            "generator makes them again; load it in peft and save it with save_projection=True"
        )


def _check_expression(text: str, path: pathlib.Path) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise PeftError(f"{path}: {shown(text)!r} is no regular expression: {error}") from error


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _rank(value: Any) -> bool:
    return type(value) is int and value > 0


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _names_or_text(value: Any) -> bool:
    return isinstance(value, str) or _names(value)


def _by_name(right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(right, value.values()))


def _rows(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int for n in value)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


_TYPES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "r": (_rank, "a whole number from 1"),
    "lora_alpha": (_number, "a number"),
    "alpha": (_number, "a number"),
    "rank_pattern": (_by_name(_rank), "whole numbers from 1 by name"),
    "alpha_pattern": (_by_name(_number), "numbers by name"),
    "target_modules": (_names_or_text, "names, or a regular expression"),
    "exclude_modules": (_names_or_text, "names, or a regular expression"),
    "feedforward_modules": (_names_or_text, "names, or a regular expression"),
    "modules_to_save": (_names, "names"),
    "layers_to_transform": (lambda value: type(value) is int or _rows(value), "numbers of layers"),
    "layers_pattern": (_names_or_text, "names"),
    "trainable_token_indices": (lambda value: _rows(value) or _by_name(_rows)(value), "numbers of tokens"),
    "use_rslora": (_flag, "true or false"),
    "use_dora": (_flag, "true or false"),
    "lora_bias": (_flag, "true or false"),
    "fan_in_fan_out": (_flag, "true or false"),
    "save_projection": (_flag, "true or false"),
}
