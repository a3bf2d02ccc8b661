"""Resize rules by name, and which of them would fix a mismatch."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tljax.tree.grids import position_grid
from tljax.tree.kernels import input_channels, kernel_size
from tljax.tree.paths import nearest, quoted
from tljax.tree.rows import head_rows, vocab_rows
from tljax.tree.rule import Apply, ResizeError, Rule, shape_text

RULES: dict[str, Callable[..., Rule]] = {
    "head_rows": head_rows,
    "vocab_rows": vocab_rows,
    "input_channels": input_channels,
    "position_grid": position_grid,
    "kernel_size": kernel_size,
}
"""The makers of rules, by name."""

_NEEDS = {
    "head_rows": "head_rows(source_classes, target_classes)",
    "position_grid": "position_grid(prefix_tokens=1)",
}


def rule_from(rule: "str | Apply | Rule") -> Rule:
    """`rule` itself, a function made a rule, or the rule of that name with its defaults.

    Raises `ResizeError` for an unknown name, or one that cannot do without options.

    >>> str(rule_from("kernel_size")), str(rule_from(lambda name, source, target: source.T))
    ('kernel_size (centre)', '<lambda>')
    """
    if isinstance(rule, Rule):
        return rule
    if callable(rule):
        return Rule(getattr(rule, "__name__", type(rule).__name__), rule)
    if rule in _NEEDS:
        raise ResizeError(f"the rule {rule!r} needs options: write {_NEEDS[rule]} instead of its name")
    if rule not in RULES:
        near = quoted(nearest(str(rule), RULES) or RULES)
        raise ResizeError(f"no resize rule is called {rule!r}; the nearest are {near}")
    return RULES[rule]()


def suggestion(name: str, source: Any, target: Any) -> str:
    """The arguments of `graft`, as code, that would settle the mismatch of shapes at `name`.

    >>> suggestion("stem/conv/kernel", np.zeros((3, 3, 3, 8)), np.zeros((3, 3, 1, 8)))
    "resize={'stem/conv/kernel': input_channels()}"
    """
    rule = _fitting(name.lower(), np.shape(source), np.shape(target))
    if rule.startswith("keymap"):
        return rule.removeprefix("keymap: ")
    fresh = f"reinit={name!r} for fresh values"
    if not rule:
        return fresh
    return f"resize={{{name!r}: {rule}}}" + (f", or {fresh}" if rule.startswith(("head", "vocab")) else "")


def _fitting(name: str, old: tuple[int, ...], new: tuple[int, ...]) -> str:
    """The rule for these shapes, as code; empty when none fits."""
    if sorted(old) == sorted(new) and len(old) > 1 and len(set(old)) > 1:
        return "keymap: nothing yet: the source looks transposed, so convert it from its own layout first"
    tables = tuple(shape[1:] if len(shape) == 3 and shape[0] == 1 else shape for shape in (old, new))
    if "pos" in name and all(len(t) == 2 for t in tables) and tables[0][1] == tables[1][1]:
        return "position_grid(source_grid, target_grid, prefix_tokens=...)"
    if len(old) != len(new):
        return ""
    differs = [i - len(old) for i in range(len(old)) if old[i] != new[i]]
    if len(old) >= 3 and max(differs) < -2:
        return "kernel_size()"
    if len(old) >= 3 and differs == [-2]:
        return "input_channels()"
    if differs == [-1] and len(old) <= 2 and not any(word in name for word in ("vocab", "embed")):
        return "head_rows(source_classes, target_classes)"
    if differs == [-len(old)] and len(old) <= 2:
        patches = "patch" in name or "stem" in name
        return "input_channels(source_channels, target_channels)" if patches else "vocab_rows(...)"
    return ""


__all__ = [
    "RULES",
    "ResizeError",
    "Rule",
    "head_rows",
    "input_channels",
    "kernel_size",
    "position_grid",
    "rule_from",
    "shape_text",
    "suggestion",
    "vocab_rows",
]
