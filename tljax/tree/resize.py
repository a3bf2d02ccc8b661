"""Resize rules by name, and which of them would fix a mismatch."""

from collections.abc import Callable, Sequence
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


def rule_from(rule: "str | Apply | Rule | Sequence[Any]") -> Rule:
    """`rule` itself, a function made a rule, the rule of that name with its defaults, or several one after the other.

    Raises `ResizeError` for an unknown name, or one that cannot do without options.

    >>> str(rule_from("kernel_size")), str(rule_from([kernel_size(), input_channels()]))
    ('kernel_size (centre)', 'kernel_size (centre), input_channels')
    """
    if isinstance(rule, Rule):
        return rule
    if isinstance(rule, list | tuple):
        return _one_after_the_other([rule_from(part) for part in rule])
    if callable(rule):
        return Rule(getattr(rule, "__name__", type(rule).__name__), rule)
    if rule in _NEEDS:
        raise ResizeError(f"the rule {rule!r} needs options: write {_NEEDS[rule]} instead of its name")
    if rule not in RULES:
        near = quoted(nearest(str(rule), RULES) or RULES)
        raise ResizeError(f"no resize rule is called {rule!r}; the nearest are {near}")
    return RULES[rule]()


def _one_after_the_other(rules: list[Rule]) -> Rule:
    def apply(name: str, source: Any, target: Any) -> Any:
        for rule in rules:
            source = rule(name, source, target)
        return source

    return Rule(", ".join(map(str, rules)), apply, reorders=any(rule.reorders for rule in rules))


def suggestion(name: str, source: Any, target: Any) -> str:
    """What would settle the mismatch of shapes at `name`: arguments of `graft`, as code.

    >>> suggestion("stem/conv/kernel", np.zeros((3, 3, 3, 8)), np.zeros((3, 3, 1, 8)))
    "write resize={'stem/conv/kernel': input_channels()}"
    """
    old, new = np.shape(source), np.shape(target)
    if sorted(old) == sorted(new) and len(old) > 1:
        return "the source looks transposed: convert it from its own layout first"
    rule = _fitting(name.lower(), old, new)
    if not rule:
        return f"write reinit={name!r} for fresh values"
    fresh = f", or reinit={name!r} for fresh values" if rule.startswith(("head", "vocab")) else ""
    return f"write resize={{{name!r}: {rule}}}{fresh}"


def _fitting(name: str, old: tuple[int, ...], new: tuple[int, ...]) -> str:
    """The rule for these shapes, as code; empty when none fits."""
    tables = tuple(shape[1:] if len(shape) == 3 and shape[0] == 1 else shape for shape in (old, new))
    if "pos" in name and all(len(t) == 2 for t in tables) and tables[0][1] == tables[1][1]:
        return "position_grid(source_grid, target_grid, prefix_tokens=...)"
    if len(old) != len(new):
        return ""
    differs = [i - len(old) for i in range(len(old)) if old[i] != new[i]]
    if len(old) >= 3:
        rules = ["kernel_size()"] * (differs[0] < -2) + ["input_channels()"] * (-2 in differs)
        return "" if -1 in differs else rules[0] if len(rules) == 1 else f"[{', '.join(rules)}]"
    if differs == [-1] and not any(word in name for word in ("vocab", "embed")):
        return "head_rows(source_classes, target_classes)"
    if differs == [-len(old)]:
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
