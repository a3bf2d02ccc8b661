"""The rows of a report as a short text: like leaves share a line, whose label is a glob for them."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from tljax.tree.globs import alternatives

MANY = 24
"""Up to so many leaves without a partner are listed one by one; more are listed as globs that match just them."""


class Line(NamedTuple):
    """Some rows that the table shows as one."""

    label: str
    source: str
    """The label in the source, where it is another."""
    change: str
    rows: list[Any]


def table(rows: Sequence[Any], actions: Iterable[str]) -> list[str]:
    """The lines of a text table of report rows, in the order of `actions`."""
    cells = [("action", "leaf", "leaves", "parameters", "")]
    for action in actions:
        for line in _lines(action, rows):
            parameters = sum(row.parameters for row in line.rows)
            what = "; ".join(text for text in (line.source and f"from {line.source}", line.change) if text)
            cells.append((action.replace("_", " "), line.label, f"{len(line.rows):,}", f"{parameters:,}", what))
    widths = [max(map(len, column)) for column in zip(*cells)]
    return [
        f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}  {e}".rstrip()
        for a, b, c, d, e in cells
    ]


def covering(names: Collection[str], among: Collection[str]) -> dict[str, list[str]]:
    """Few globs that match all of `names` and nothing else `among` the others, with what they match.

    >>> names = ["block_0/w", "block_0/b", "block_1/w", "block_1/b", "norm/w"]
    >>> covering(names, [*names, "norm/b"])
    {'block_{0..1}/**': ['block_0/w', 'block_0/b', 'block_1/w', 'block_1/b'], 'norm/w': ['norm/w']}
    """
    chosen = set(names)
    labels = _labels({name: name in chosen for name in among})
    groups: dict[str, list[Any]] = defaultdict(list)
    for name in names:
        groups[labels[name]].append(name)
    return {line.label: line.rows for line in _by_number([Line(k, "", "", v) for k, v in groups.items()])}


def _lines(action: str, rows: Sequence[Any]) -> list[Line]:
    own = [row for row in rows if row.action == action]
    if action == "resized" or (action in ("kept", "left_over") and len(own) <= MANY):
        return [Line(row.name, _other_name(row), row.change, [row]) for row in own]
    return _by_number(_by_subtree(own, rows))


def _by_subtree(own: Sequence[Any], rows: Sequence[Any]) -> list[Line]:
    """One line for each largest subtree in which all leaves had the same done to them."""
    labels = {}
    for side in ("target", "source"):
        sided = [row for row in rows if getattr(row, side) is not None]
        labels[side] = _labels({getattr(row, side): (row.action, _shared(row), _moved(row)) for row in sided})
    groups: dict[tuple[str, str, str], list[Any]] = defaultdict(list)
    for row in own:
        label, (new, old) = labels["source" if row.target is None else "target"][row.name], _moved(row)
        if new != old and len(label.removesuffix("/**")) < len(new):
            label = f"{new}/**" if row.name != new else new  # the source's label is known from here down only
        source = "" if new == old else old + label.removeprefix(new)
        groups[label, source, _shared(row)].append(row)
    return [Line(label, source, change, members) for (label, source, change), members in groups.items()]


def _shared(row: Any) -> str:
    """What the rows on one line have in common besides their action."""
    return "" if row.action == "left_over" else row.change


def _by_number(lines: list[Line]) -> list[Line]:
    """Lines that differ in one number of the label become one: ``block_{0..11}/**``."""
    groups: dict[tuple, list[Line]] = defaultdict(list)
    for line in lines:
        groups[re.sub(r"\d+", "#", line.label), re.sub(r"\d+", "#", line.source), line.change].append(line)
    merged = []
    for members in groups.values():
        label, source = (_joined([getattr(line, field) for line in members]) for field in ("label", "source"))
        if len(members) == 1 or label is None or source is None:
            merged += members
        else:
            merged.append(Line(label, source, members[0].change, [row for line in members for row in line.rows]))
    return merged


def _joined(labels: list[str]) -> str | None:
    """One glob for labels that differ in one number, which counts up without gaps; None if they do not."""
    split = [re.split(r"(\d+)", label) for label in labels]
    varying = [i for i, column in enumerate(zip(*split)) if len(set(column)) > 1]
    if not varying:
        return labels[0]
    i = varying[0]
    first, texts = split[0], [parts[i] for parts in split]
    counted = f"{{{texts[0]}..{texts[-1]}}}"
    if len(varying) > 1 or tuple(texts) != alternatives(counted):
        return None
    return "".join([*first[:i], counted, *first[i + 1 :]])


def _labels(kinds: dict[str, Any]) -> dict[str, str]:
    """For every name: the glob of the largest subtree of its kind alone, below the root; or the name."""
    below: dict[str, list[Any]] = defaultdict(list)
    for name, kind in kinds.items():
        for prefix in _prefixes(name):
            below[prefix].append(kind)
    pure = {prefix for prefix, found in below.items() if len(found) > 1 and len(set(found)) == 1}
    return {name: next((f"{p}/**" for p in _prefixes(name) if p in pure), name) for name in kinds}


def _prefixes(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]


def _other_name(row: Any) -> str:
    return row.source if row.target and row.source and row.target != row.source else ""


def _moved(row: Any) -> tuple[str, str]:
    """The prefixes of both names without the segments they both end on; empty if not renamed."""
    if not _other_name(row):
        return "", ""
    new, old = row.target.split("/"), row.source.split("/")
    while len(new) > 1 and len(old) > 1 and new[-1] == old[-1]:
        new.pop()
        old.pop()
    return "/".join(new), "/".join(old)
