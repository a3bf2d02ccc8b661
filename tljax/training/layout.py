"""Layouts: which arrays of a model are divided over which axes of a mesh.

    layout(shard("**/query/kernel", (None, "tensor")), shard("backbone/embed/**", ()))

Rules apply in order; where several match a leaf, the last one decides. A leaf that no rule speaks of is divided over
`fsdp` along the longest of its axes that divides, if it is large, and else is whole on every device.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from jax.sharding import Mesh, PartitionSpec

from tljax.training.layout_table import table
from tljax.training.mesh import AXES, checked_mesh, mesh_text
from tljax.training.placement import Placement, axes_of, usual
from tljax.tree import Selector, named_leaves, nearest, select
from tljax.types import Params, TljaxError

Over = tuple[Any, ...]
"""For each axis of an array the axis of the mesh that it is divided over, a tuple of such, or None."""
LARGE = 1 << 14
"""Arrays of more bytes than this are divided over `fsdp` if no rule says otherwise."""


class LayoutError(TljaxError):
    """A rule of a layout that fits no mesh, or not the array that it speaks of."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """A rule: the leaves that `where` selects are divided over the axes `over`."""

    where: Selector
    over: Over

    def __str__(self) -> str:
        return f"shard({self.where}, {self.over})"


def shard(where: Any, over: Over) -> Shard:
    """The rule that divides the leaves that `where` selects; ``()`` puts them whole on every device.

    Args:
      where: whatever `tljax.select` takes.
      over: for each axis of the leaf, from the first, ``"data"``, ``"fsdp"``, ``"tensor"``, a tuple of these, or None;
        axes that are left out stay whole.

    Raises:
      LayoutError: where `over` is no such tuple, or names an axis twice.

    >>> print(shard("**/query/kernel", (None, "tensor")))
    shard('**/query/kernel', (None, 'tensor'))
    """
    selector = select(where)
    if not isinstance(over, tuple):
        raise LayoutError(
            f"shard({selector}, {over!r}): say over what each axis is divided in a tuple, as ('fsdp',) or "
            "(None, 'tensor'); () for an array that stays whole"
        )
    named = [axis for entry in over for axis in axes_of(entry)]
    for axis in named:
        if axis not in AXES:
            close = nearest(str(axis), AXES, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise LayoutError(f"shard({selector}, {over}): a mesh has the axes {', '.join(AXES)}, not {axis!r}{hint}")
        if named.count(axis) > 1:
            raise LayoutError(f"shard({selector}, {over}): an array can be divided over {axis!r} only once")
    return Shard(selector, tuple(over))


@dataclasses.dataclass(frozen=True)
class Layout:
    """Rules in order, and from what size on other arrays are divided. Make one with `layout`."""

    rules: tuple[Shard, ...] = ()
    above: float = LARGE

    def __str__(self) -> str:
        size = [] if self.above == LARGE else [f"above={self.above}"]
        return f"layout({', '.join([*map(str, self.rules), *size])})"

    def resolve(self, params: Params, mesh: Mesh) -> Placement:
        """Where every leaf of `params` lies on `mesh`; of `params` only names, shapes and dtypes matter.

        Raises:
          NoMatchError: a rule that matches nothing.
          LayoutError: a leaf that does not divide.
          MeshError: a mesh that `mesh` did not make.

        >>> import jax
        >>> from tljax.training.mesh import mesh
        >>> params = {"kernel": np.zeros((4, 6)), "bias": np.zeros(6)}
        >>> placement = layout(shard("kernel", (None, "tensor"))).resolve(params, mesh(devices=jax.devices()[:1]))
        >>> placement.shardings(params)["kernel"].spec
        P(None, 'tensor')
        """
        checked_mesh(mesh)
        rules = self._chosen(params)
        found = []
        for name, leaf in named_leaves(params).items():
            rule = rules.get(name)
            spec = usual(leaf, mesh, self.above) if rule is None else _checked(rule, name, np.shape(leaf), mesh)
            found.append((name, np.shape(leaf), spec))
        return Placement(mesh, tuple(found), self.above)

    def table(self, params: Params, mesh: Mesh) -> str:
        """A line for leaves that are alike: their shape, over what they are divided, and what each device holds.

        >>> import jax
        >>> from tljax.training.mesh import mesh
        >>> params = {"body": {"kernel": np.ones((8, 6), "float32")}, "head": {"kernel": np.ones((6, 2), "float32")}}
        >>> print(layout(shard("body/**", (None, "fsdp"))).table(params, mesh(devices=jax.devices()[:1])))
        where        shape  divided over   bytes  a device  by
        body/kernel  8 x 6  -, fsdp 1        192       192  shard('body/**', (None, 'fsdp'))
        head/kernel  6 x 2  -                 48        48  -
        all                                  240       240
        """
        placement = self.resolve(params, mesh)
        return table(placement, named_leaves(params), {name: str(rule) for name, rule in self._chosen(params).items()})

    def _chosen(self, params: Params) -> dict[str, Shard]:
        return {name: rule for rule in self.rules for name in rule.where.names(params)}


def layout(*rules: Shard, above: float = LARGE) -> Layout:
    """A layout from rules; `layout()` divides the large arrays over `fsdp`, and leaves all others whole.

    Args:
      rules: as `shard` makes them.
      above: arrays of more bytes than this are divided over `fsdp` if no rule speaks of them; ``math.inf`` for none.

    Raises:
      LayoutError: for anything that is no rule, or a size below 0.

    >>> print(layout(shard("backbone/**", ()), above=1024))
    layout(shard('backbone/**', ()), above=1024)
    """
    for rule in rules:
        if not isinstance(rule, Shard):
            raise LayoutError(f"layout() takes rules such as shard('**/kernel', ('fsdp',)); found {rule!r}")
    if isinstance(above, bool) or not isinstance(above, int | float | np.number) or not above >= 0:
        raise LayoutError(f"above is a size in bytes, 0 or more; found {above!r}")
    return Layout(rules, above)


def _checked(rule: Shard, name: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """The division that `rule` asks for, of the leaf `name` of that shape."""
    what = f"{rule}: {name!r} of the shape {shape}"
    if len(rule.over) > len(shape):
        raise LayoutError(f"{what} has {len(shape)} axes, and the rule speaks of {len(rule.over)}")
    for axis, (n, entry) in enumerate(zip(shape, rule.over)):
        parts = math.prod(mesh.shape[name] for name in axes_of(entry))
        if n % parts:
            raise LayoutError(
                f"{what} does not divide: its axis {axis} of {n} over {' and '.join(axes_of(entry))}, {parts} parts on "
                f"{mesh_text(mesh)}"
            )
    return PartitionSpec(*rule.over)
