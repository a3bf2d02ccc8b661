"""A layout as a table: which arrays, over which axes of the mesh, and how many bytes each device holds."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tljax.training.placement import Placement, axes_of
from tljax.tree import nbytes
from tljax.tree.table import covering


def table(placement: Placement, leaves: Mapping[str, Any], rules: Mapping[str, str]) -> str:
    """A line for leaves that are alike, in the order of `leaves`. `rules`: what decided, where a rule did.

    >>> import jax
    >>> from tljax.training.mesh import mesh
    >>> print(table(Placement(mesh(devices=jax.devices()[:1]), (), 0), {"w": np.zeros(3, np.int8)}, {}))
    where  shape  divided over   bytes  a device  by
    w      3      -                  3         3  -
    all                              3         3
    """
    order = {name: i for i, name in enumerate(leaves)}
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    for name, leaf in leaves.items():
        kind = (_shape_text(np.shape(leaf)), _division(placement, name, leaf), rules.get(name, "-"))
        groups.setdefault(kind, {})[name] = leaf
    lines, whole, part = [], 0, 0
    for (shape, over, rule), group in groups.items():
        for label, names in covering(group, leaves).items():
            size = nbytes([group[name] for name in names])
            own = size // _parts(placement, names[0], group[names[0]])
            lines.append((order[names[0]], (label, shape, over, f"{size:,}", f"{own:,}", rule)))
            whole, part = whole + size, part + own
    head = ("where", "shape", "divided over", "bytes", "a device", "by")
    rows = [head, *(row for _, row in sorted(lines)), ("all", "", "", f"{whole:,}", f"{part:,}", "")]
    a, b, c, d, e, _ = (max(map(len, column)) for column in zip(*rows))
    texts = [f"{r[0]:<{a}}  {r[1]:<{b}}  {r[2]:<{c}}  {r[3]:>{d}}  {r[4]:>{e}}  {r[5]}".rstrip() for r in rows]
    return "\n".join(texts)


def _shape_text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "()"


def _division(placement: Placement, name: str, leaf: Any) -> str:
    """Over what each axis is divided, and in how many parts: ``-, fsdp 4``."""
    sizes = placement.mesh.shape
    entries = [" ".join(f"{axis} {sizes[axis]}" for axis in axes_of(e)) or "-" for e in placement.spec(name, leaf)]
    return ", ".join(entries) or "-"


def _parts(placement: Placement, name: str, leaf: Any) -> int:
    axes = [axis for entry in placement.spec(name, leaf) for axis in axes_of(entry)]
    return math.prod(placement.mesh.shape[axis] for axis in axes)
