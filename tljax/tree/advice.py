"""What to say when a graft does not fit, and which arguments would settle it."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from tljax.tree.globs import is_glob, wildcards
from tljax.tree.paths import nearest, quoted
from tljax.tree.rename import renamed
from tljax.tree.report import GraftReport
from tljax.tree.table import MANY, covering

_TRIED = 10
"""So many renamings are tried out before one is suggested."""


def fault_text(
    report: GraftReport, faults: list[str], wanted: Mapping[str, Any], given: Mapping[str, Any], strict: bool
) -> str:
    """The message of the `GraftError` for what went wrong; empty when nothing did."""
    parts = [] if given else ["the source has no arrays"]
    if faults:
        parts += [f"{_leaves(faults)} cannot be filled:", *(f"  {fault}" for fault in faults)]
    kept = report.names("kept") if strict else []
    spare = report.names("left_over") if strict else []
    if kept:
        parts.append(f"{_leaves(kept)} of the target without a source:")
        parts += _listed(kept, wanted, spare or list(given))
        parts.append(f"  to keep the target's own values: reinit={list(covering(kept, wanted))}")
    if spare:
        notes = {row.name: row.note for row in report.rows if row.action == "left_over"}
        parts.append(f"{_leaves(spare)} of the source left over:")
        parts += _listed(spare, given, [], notes)
        parts.append(f"  to ignore: drop={list(covering(spare, given))}")
    if kept and spare:
        parts += _renaming(kept, spare, wanted, given)
    if kept or spare:
        parts.append("to take what fits and report the rest: strict=False")
    return "\n".join(["the trees do not fit", *parts]) if parts else ""


def _leaves(names: list[str]) -> str:
    return "1 leaf" if len(names) == 1 else f"{len(names)} leaves"


def _listed(
    names: list[str], among: Mapping[str, Any], candidates: list[str], notes: Mapping[str, str] | None = None
) -> list[str]:
    """A line for each of `names`, with the nearest candidates; when they are many, for each glob that covers them."""
    groups = {name: [name] for name in names} if len(names) <= MANY else covering(names, among)
    lines: list[str] = []
    for label, members in groups.items():
        facts = [] if members == [label] else [_leaves(members)]
        if members == [label] and notes and notes.get(label):
            facts.append(notes[label])
        if candidates and len(lines) < MANY:  # for thousands of leaves the search would take minutes
            facts.append(f"nearest: {quoted(nearest(members[0], candidates, 2))}")
        lines.append(f"  {label}" + (f"  ({'; '.join(facts)})" if facts else ""))
    return lines


def _renaming(kept: list[str], spare: list[str], wanted: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """A renaming that fills at least half of what is missing, as code on a line; or nothing."""

    def fills(pair: tuple[str, str]) -> int:
        moved = {new: old for old, new in renamed(dict([pair]), spare).items() if new is not None}
        return sum(n in moved and np.shape(given[moved[n]]) == np.shape(wanted[n]) for n in kept)

    best = max(_candidates(kept[:MANY], spare), key=lambda pair: (fills(pair), -len(pair[0])), default=None)
    if best is None or 2 * fills(best) < len(kept):
        return []
    return [f"to move leaves: rename={{{best[0]!r}: {best[1]!r}}} fills {fills(best)} of {len(kept)}"]


def _candidates(kept: list[str], spare: list[str]) -> list[tuple[str, str]]:
    """Renamings of the prefixes by which missing and spare names differ, the commonest first."""
    found: Counter[tuple[str, str]] = Counter()
    for new in kept:
        for old in spare:
            a, b = new.split("/"), old.split("/")
            shared = next((i for i, (x, y) in enumerate(zip(a[::-1], b[::-1])) if x != y), min(len(a), len(b)))
            if not shared:
                continue
            value, key = "/".join(a[: len(a) - shared]), "/".join(b[: len(b) - shared])
            if not is_glob(key + value):
                found[key, value] += 1
            stars = [re.sub(r"\d+", "*", f"{prefix}/**") for prefix in (key, value)]
            if len(wildcards(stars[0])) == len(wildcards(stars[1])) > 1:
                found[stars[0], stars[1]] += 1
    return [pair for pair, _ in found.most_common(_TRIED)]
