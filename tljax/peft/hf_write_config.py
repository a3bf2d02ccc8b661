"""adapter_config.json for what stands in a file: exact targets, patterns of ranks and scales, and whole modules."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tljax.checkpoints.keymap import listed
from tljax.peft.adapter import PeftError
from tljax.peft.hf_config import Pattern
from tljax.peft.hf_names import PREFIX, Names
from tljax.peft.hf_targets import in_saved, is_feedforward, selected
from tljax.peft.hf_write import Arrays, Written
from tljax.tree import natural_key

NO_TARGETS = "dummy-target-modules"
"""What peft calls an adapter without targets, such as a head alone."""


def finished(out: Written, names: Names, base_model: str | None) -> tuple[Arrays, dict[str, Any]]:
    """All tensors by name, and the configuration.

    Raises `PeftError` for whole copies that no module of PyTorch holds, or inside which there is an adapter.
    """
    tensors, fields = dict(out.tensors), _common(out, base_model)
    whole = dict(out.whole)
    if out.method in ("LORA", "VERA"):
        fields["bias"], biases = _biases(out, names, whole)
        tensors |= biases
    saved = _modules_to_save(whole, names)
    covered = _covered(saved, names)
    inside = [module for module in out.targets if in_saved(saved, module)]
    if inside:
        raise PeftError(f"peft keeps {listed(saved)} whole, and so has no adapters inside: {listed(inside)}")
    tensors |= {PREFIX + name: whole.get(name, _of_base(name, names)) for name in covered}
    fields["modules_to_save"] = saved or None
    fields["target_modules"] = _targets(out, names, saved)
    if out.method == "IA3":
        fields["feedforward_modules"] = _feedforward(out, fields["target_modules"])
    return tensors, fields


def _common(out: Written, base_model: str | None) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "peft_type": out.method,
        "base_model_name_or_path": base_model,
        "task_type": None,
        "inference_mode": True,
        "fan_in_fan_out": bool(out.turned),
    }
    if out.method == "LORA":
        return fields | _numbers(out) | {
            "use_dora": out.dora, "lora_dropout": 0.0, "lora_bias": False, "init_lora_weights": True,
        }  # fmt: skip
    if out.method == "VERA":
        ranks = set(out.ranks.values())
        if len(ranks) > 1:
            raise PeftError(f"VeRA of peft has one rank for all layers; found {sorted(ranks)}")
        return fields | {"r": ranks.pop(), "save_projection": True, "vera_dropout": 0.0}
    return fields


def _numbers(out: Written) -> dict[str, Any]:
    """Ranks and alphas; those of rsLoRA where only they are whole."""
    plain = {module: scale * out.ranks[module] for module, scale in out.scales.items()}
    stabilised = {module: scale * math.sqrt(out.ranks[module]) for module, scale in out.scales.items()}
    rslora = _whole(stabilised) and not _whole(plain)
    alphas = stabilised if rslora else plain
    if _whole(alphas):
        alphas = {module: round(alpha) for module, alpha in alphas.items()}
    rank, alpha = _pattern(out.ranks), _pattern(alphas)
    return {
        "r": rank.default, "lora_alpha": alpha.default, "rank_pattern": rank.special, "alpha_pattern": alpha.special,
        "use_rslora": rslora,
    }  # fmt: skip


def _whole(numbers: Mapping[str, float]) -> bool:
    return all(abs(n - round(n)) < 1e-6 * max(1.0, abs(n)) and round(n) != 0 for n in numbers.values())


def _pattern(values: Mapping[str, Any]) -> Pattern:
    """The most frequent value, and the others by the path of the module."""
    if not values:
        return Pattern(8, {})
    default = Counter(values.values()).most_common(1)[0][0]
    special = {module: value for module, value in values.items() if value != default}
    pattern = Pattern(default, special)
    if any(pattern.of(module) != value for module, value in values.items()):  # a path that ends like another
        return Pattern(default, {f"^{re.escape(module)}": value for module, value in special.items()})
    return pattern


def _biases(out: Written, names: Names, whole: Arrays) -> tuple[str, Arrays]:
    """The option for trained biases, and the tensors it asks for; takes them out of `whole`."""
    own = [f"{module}.bias" for module in out.targets if f"{module}.bias" in names.links]
    others = [name for name in names.links if name.endswith(".bias") and name not in own]
    free = [name for name in others if name.removesuffix("bias") + "weight" not in whole]
    everywhere = bool(free) and set(free) <= set(whole)
    if not everywhere and not any(name in whole for name in own):
        return "none", {}
    tensors = {
        f"{PREFIX}{name.removesuffix('.bias')}.base_layer.bias": whole.pop(name, _of_base(name, names)) for name in own
    }
    if everywhere:
        tensors |= {PREFIX + name: whole.pop(name) for name in free}
    return "all" if everywhere else f"{out.method.lower()}_only", tensors


def _modules_to_save(whole: Iterable[str], names: Names) -> list[str]:
    """The modules of the whole leaves, without those inside another."""
    modules = {name.rpartition(".")[0] for name in whole}
    if "" in modules:
        lost = [name for name in whole if "." not in name]
        ours = [leaf for name in lost for leaf in names.links[name].ours]
        raise PeftError(f"{listed(ours)}: {listed(lost)} is in no module of PyTorch; peft keeps whole modules only")
    outer = [m for m in modules if not any(m != other and m.startswith(f"{other}.") for other in modules)]
    return sorted(outer, key=natural_key)


def _covered(saved: list[str], names: Names) -> list[str]:
    """The leaves that peft keeps for these modules: of every module whose path ends so, with all inside it."""

    def kept(name: str) -> bool:
        parts = name.split(".")
        return any(".".join(parts[:i]).endswith(tuple(saved)) for i in range(1, len(parts)))

    return [name for name in (*names.links, *names.binding.extras) if saved and kept(name)]


def _of_base(name: str, names: Names) -> np.ndarray:
    if name in names.binding.extras:
        return np.asarray(names.binding.extras[name])
    link = names.links[name]
    arrays = link.layout.save([np.asarray(names.leaves[leaf]) for leaf in link.ours])
    return np.asarray(arrays[link.theirs.index(name)])


def _targets(out: Written, names: Names, saved: list[str]) -> list[str] | str:
    """The paths of the targets, or where a path ends like another, an expression for just them."""
    if not out.targets:
        return NO_TARGETS
    targets = sorted(out.targets, key=natural_key)
    modules = {name.rpartition(".")[0] for name in names.links}
    fields = {"target_modules": targets, "modules_to_save": saved}
    if {module for module in modules if selected(fields, module)} == set(targets):
        return targets
    return "|".join(map(re.escape, targets))


def _feedforward(out: Written, targets: list[str] | str) -> list[str] | str:
    chosen = sorted(out.inputs, key=natural_key)
    exact = {module for module in out.targets if is_feedforward({"feedforward_modules": chosen}, module)}
    return chosen if isinstance(targets, list) and exact == out.inputs else "|".join(map(re.escape, chosen))
