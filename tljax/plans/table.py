"""A plan as one table: a line for each group of leaves that are treated alike."""

from collections.abc import Mapping
from typing import Any

from tljax.plans.setting import Setting, number
from tljax.tree import count, named_leaves
from tljax.types import Params, is_constant, is_state

_WIDEST = 60


def table(settings: Mapping[str, Setting], params: Params) -> str:
    """The groups of `settings` in the order of their first leaves in `params`.

    >>> print(table({"w": Setting(rate=0.5, decay=0.1)}, {"w": 1.0}))
    group               leaves   parameters  rate  schedule   decay  where
    learns                   1            1   0.5  -            0.1  w
    """
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for name, leaf in named_leaves(params).items():
        rows.setdefault(_row(name, settings[name]), {})[name] = leaf
    widths = [max(len(row[i]) for row in [*rows, ("", "rate", "schedule", "decay")]) for i in range(1, 4)]
    lines = [_line(("group", "rate", "schedule", "decay"), "leaves", "parameters", "where", widths)]
    for row, leaves in rows.items():
        where = ", ".join(dict.fromkeys("/".join(name.split("/")[:2]) for name in leaves))
        shown = where if len(where) <= _WIDEST else where[: _WIDEST - 3] + "..."
        lines.append(_line(row, str(len(leaves)), f"{count(list(leaves.values())):,}", shown, widths))
    return "\n".join(lines)


def _line(row: tuple[str, ...], leaves: str, parameters: str, where: str, widths: list[int]) -> str:
    group, rate, schedule, decay = row
    a, b, c = widths
    return f"{group:<20}{leaves:>6}{parameters:>13}  {rate:>{a}}  {schedule:<{b}}  {decay:>{c + 1}}  {where}"


def _row(name: str, setting: Setting) -> tuple[str, ...]:
    """Group, rate, schedule and decay."""
    if is_state(name):
        return (f"statistics, {'updated' if setting.trainable and not setting.opens else 'frozen'}", "-", "-", "-")
    if not setting.trainable:
        return ("constant" if is_constant(name) else "frozen", "-", "-", "-")
    parts = [number(setting.rate)] if callable(setting.rate) else []
    parts += ["relative gradient norm"] if setting.automatic else []
    parts += [f"from step {setting.opens}"] if setting.opens else []
    rate = "-" if callable(setting.rate) else number(setting.rate)
    return ("learns", rate, ", ".join(parts) or "-", "-" if setting.decay is None else number(setting.decay))
