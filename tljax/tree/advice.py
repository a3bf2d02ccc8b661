"""What to say when a graft does not fit, and which arguments would settle it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tljax.tree.paths import nearest, quoted
from tljax.tree.report import GraftReport
from tljax.tree.table import covering

_NEAREST_FOR = 20
"""Nearest names are looked up for so many leaves; for thousands the search would take minutes."""


def fault_text(
    report: GraftReport, faults: list[str], wanted: Mapping[str, Any], given: Mapping[str, Any], strict: bool
) -> str:
    """The message of the `GraftError` for what went wrong; empty when nothing did."""
    parts = []
    if not given:
        parts.append("the source has no arrays")
    if faults:
        parts.append("\n".join([f"{_leaves(faults)} cannot be filled:", *(f"  {fault}" for fault in faults)]))
    kept = report.names("kept") if strict and given else []
    spare = report.names("left_over") if strict else []
    if kept:
        lines = [f"  {name}{_nearest(i, name, spare or list(given))}" for i, name in enumerate(kept)]
        fix = f"  to keep the target's values: reinit={covering(kept, list(wanted))}"
        parts.append("\n".join([f"{_leaves(kept)} of the target get nothing from the source:", *lines, fix]))
    if spare:
        lines = [f"  {name}" for name in spare]
        fix = f"  to ignore them: drop={covering(spare, list(given))}"
        parts.append("\n".join([f"{_leaves(spare)} of the source are left over:", *lines, fix]))
    if kept and spare:
        move = _renaming(kept, spare, wanted, given)
        parts.append(f"{move}to take what fits and report the rest: strict=False")
    elif kept or spare:
        parts.append("to take what fits and report the rest: strict=False")
    return "\n".join(["the trees do not fit", *parts]) if parts else ""


def _leaves(names: list[str]) -> str:
    return "1 leaf" if len(names) == 1 else f"{len(names)} leaves"


def _nearest(i: int, name: str, candidates: list[str]) -> str:
    return f"  (nearest: {quoted(nearest(name, candidates, 2))})" if i < _NEAREST_FOR and candidates else ""


def _renaming(kept: list[str], spare: list[str], wanted: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """The renaming of a prefix that fills most of what is missing, as code on a line; or nothing."""
    shapes = {name: np.shape(given[name]) for name in spare}
    prefixes = dict.fromkeys(pair for new in kept[:_NEAREST_FOR] for old in spare for pair in _prefix_pairs(new, old))

    def fills(new: str, old: str) -> int:
        moved = {_under(new, n.removeprefix(old).removeprefix("/")): n for n in spare if _is_under(n, old)}
        return sum(name in moved and shapes[moved[name]] == np.shape(wanted[name]) for name in kept)

    best = max(prefixes, key=lambda pair: fills(*pair), default=None)
    if best is None or fills(*best) < 2:
        return ""
    return f"to move a subtree: rename={{{best[1]!r}: {best[0]!r}}} fills {fills(*best)} leaves\n"


def _prefix_pairs(new: str, old: str) -> list[tuple[str, str]]:
    """The shortest prefixes that differ when the segments both names end on are taken off."""
    a, b = new.split("/"), old.split("/")
    shared = 0
    while shared < min(len(a), len(b)) and a[-1 - shared] == b[-1 - shared]:
        shared += 1
    return [("/".join(a[: len(a) - shared]), "/".join(b[: len(b) - shared]))] if shared else []


def _under(prefix: str, rest: str) -> str:
    return "/".join(part for part in (prefix, rest) if part)


def _is_under(name: str, prefix: str) -> bool:
    return not prefix or name == prefix or name.startswith(f"{prefix}/")
