"""From what a training script saved to the weights alone.

    {"epoch": 18, "state_dict": {"module.conv1.weight": ...}, "optimizer": ...}   ->   {"conv1.weight": ...}

Three rules, applied until none does, and reported: an optimiser's state beside the weights is left out; if the rest
stands under one key of `WRAPPERS`, with nothing but bookkeeping and averaged copies beside it, that key is taken off; a
``module.`` (or ``_orig_mod.``) in front of every torch name is taken off.  Anything else stays: what might be weights
is never dropped.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax

from tljax.checkpoints.errors import CheckpointError
from tljax.checkpoints.source import LeafPath
from tljax.tree import nearest

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "params", "target")
"""Keys that hold the weights in a larger whole, the likeliest first."""
OPTIMIZERS = re.compile(r"opt(im(izers?)?)?(_states?)?(_dict)?")
_AVERAGES = ("ema", "ema_params", "params_ema", "ema_state_dict", "state_dict_ema", "model_ema", "ema_model")
_BOOKKEEPING = re.compile(
    r"(lr_)?schedulers?|(loss_|grad_)?scaler|amp|p?rngs?(_key|_state)?|callbacks|loops|hyper_parameters|mixedprecision"
)
_COUNTER = re.compile(
    r"(global_?)?steps?|epochs?|iter(ation)?s?|num_updates|lr|seed|version|best.*|.*(acc(uracy)?|prec|loss|time)[\d@_]*"
)
_PREFIXES = ("module.", "_orig_mod.")

Leaves = Mapping[LeafPath, jax.ShapeDtypeStruct]
Paths = dict[LeafPath, LeafPath]


class Unwrapped(NamedTuple):
    """The weights of a file."""

    paths: Paths
    """From a leaf's path without its wrapping to its path in the file."""
    removed: tuple[str, ...]
    """Keys and prefixes taken off, outermost first."""
    left_out: dict[str, str]
    """What was left out, and as what it was taken."""


def unwrap(leaves: Leaves, separator: str) -> Unwrapped:
    """The weights among `leaves`, by the rules above.

    >>> leaf = jax.ShapeDtypeStruct((), "float32")
    >>> found = unwrap({("state_dict", "module.w"): leaf, ("optimizer", "m"): leaf, ("epoch",): leaf}, ".")
    >>> found.paths, found.removed
    ({('w',): ('state_dict', 'module.w')}, ('state_dict', 'module.'))
    >>> found.left_out
    {'optimizer': 'optimiser state (1 array)', 'epoch': 'bookkeeping (1 array)'}
    """
    paths = {path: path for path in leaves}
    removed: list[str] = []
    left_out: dict[str, str] = {}
    while found := _step(groups := _by_first_key(paths), leaves):
        wrapper, dropped = found
        for key, reason in dropped.items():
            n = len(groups[key])
            left_out[separator.join([*removed, key])] = f"{reason} ({n} array{'s' if n > 1 else ''})"
        kept = {path: old for key, inside in groups.items() if key not in dropped for path, old in inside.items()}
        paths = kept if wrapper is None else {path[1:]: old for path, old in kept.items()}
        removed += [] if wrapper is None else [wrapper]
    if separator == ".":
        paths, prefixes = _without_prefixes(paths)
        removed += prefixes
    return Unwrapped(paths, tuple(removed), left_out)


def descend(leaves: Leaves, root: str, where: object) -> Unwrapped:
    """The leaves under the key `root` (several keys joined by "/"), whatever stands beside it; all for "".

    Raises `CheckpointError` with the nearest keys when there is none.
    """
    keys = tuple(root.split("/")) if root else ()
    n = len(keys)
    paths = {p[n:]: p for p in leaves if p[:n] == keys and len(p) > n}
    if not paths:
        known = sorted({"/".join(p[: i + 1]) for p in leaves for i in range(min(len(p) - 1, 3))})
        hint = ", ".join(map(repr, nearest(root, known[:1000]) or known[:5])) or "none: the file does not nest"
        raise CheckpointError(f"{where}: nothing stands under root={root!r}; the nearest keys are {hint}")
    beside = dict.fromkeys(p[0] for p in leaves if p[:n] != keys)
    return Unwrapped(paths, keys, dict.fromkeys(beside, "not under the root"))


def _by_first_key(paths: Paths) -> dict[str, Paths]:
    groups: dict[str, Paths] = {}
    for path, old in paths.items():
        groups.setdefault(path[0], {})[path] = old
    return groups


def _step(groups: dict[str, Paths], leaves: Leaves) -> tuple[str | None, dict[str, str]] | None:
    """The wrapper to take off, if any, and the keys to leave out; None when there is nothing to do."""
    nests = {key for key, inside in groups.items() if all(len(path) > 1 for path in inside)}
    optimizers = {key: "optimiser state" for key in groups if key in nests and OPTIMIZERS.fullmatch(key.lower())}
    for key in optimizers:  # older Flax keeps the weights in the optimiser, as its target
        if any(path[1] == "target" and len(path) > 2 for path in groups[key]):
            beside = _droppable(set(groups) - {key}, groups, leaves)
            return None if beside is None else (key, beside)
    if "target" in nests and any(path[1] == "param_states" for path in groups.get("state", {}) if len(path) > 1):
        optimizers["state"] = "optimiser state"
    rest = [key for key in groups if key not in optimizers]
    for wrapper in WRAPPERS:
        if wrapper in nests and wrapper in rest:
            beside = _droppable((key for key in rest if key != wrapper), groups, leaves)
            if beside is not None:
                return wrapper, {**optimizers, **beside}
    return (None, optimizers) if optimizers and rest else None


def _droppable(keys: Iterable[str], groups: dict[str, Paths], leaves: Leaves) -> dict[str, str] | None:
    """Why each of `keys` may be left out; None if one of them might hold weights."""
    reasons: dict[str, str] = {}
    for key in keys:
        name = key.lower()
        scalars = all(not leaves[old].shape for old in groups[key].values())
        if name in _AVERAGES:
            reasons[key] = "averaged copy"
        elif _BOOKKEEPING.fullmatch(name) or (scalars and _COUNTER.fullmatch(name)):
            reasons[key] = "bookkeeping"
        else:
            return None
    return reasons


def _without_prefixes(paths: Paths) -> tuple[Paths, list[str]]:
    removed = []
    while prefix := next((p for p in _PREFIXES if paths and all(_has(path, p) for path in paths)), None):
        paths = {(path[0].removeprefix(prefix), *path[1:]): old for path, old in paths.items()}
        removed.append(prefix)
    return paths, removed


def _has(path: LeafPath, prefix: str) -> bool:
    return path[0].startswith(prefix) and len(path[0]) > len(prefix)
