"""What a graft did: one row for every leaf of both trees."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from tljax.tree.select import Spec, select
from tljax.tree.table import table
from tljax.types import TljaxError

ACTIONS = {
    "loaded": "from the source as it was",
    "renamed": "from the source under another name",
    "resized": "from the source through a resize rule",
    "cast": "from the source in another dtype",
    "reinitialised": "the target's own value, on purpose",
    "kept": "the target's own value, for want of a source",
    "left_over": "in the source, wanted by no target leaf",
    "dropped": "in the source, ignored on purpose",
}
"""What can happen to a leaf. When several did, the first of resized, cast and renamed counts."""


class GraftError(TljaxError):
    """Trees that do not fit, with every leaf concerned and what would settle it."""


@dataclasses.dataclass(frozen=True)
class Row:
    """What happened to one leaf of the target, of the source, or of both."""

    action: str
    target: str | None = None
    """Its name in the target; None when only the source has it."""
    source: str | None = None
    """Its name in the source; None when only the target has it."""
    target_shape: tuple[int, ...] | None = None
    source_shape: tuple[int, ...] | None = None
    target_dtype: str | None = None
    source_dtype: str | None = None
    note: str = ""
    """The resize rule, or the argument that decided."""

    @property
    def name(self) -> str:
        """The name in the target, or else in the source."""
        return self.target if self.target is not None else str(self.source)

    @property
    def parameters(self) -> int:
        """How many parameters the leaf has, in the target if it is there."""
        shape = self.target_shape if self.target is not None else self.source_shape
        return math.prod(shape or ())

    @property
    def change(self) -> str:
        """What is not the same in both trees besides the name."""
        parts = []
        if self.action == "resized":
            parts.append(f"{list(self.source_shape or ())} -> {list(self.target_shape or ())} by {self.note}")
        elif self.note:
            parts.append(self.note)
        if self.source_dtype and self.target_dtype and self.source_dtype != self.target_dtype:
            parts.append(f"{self.source_dtype} -> {self.target_dtype}")
        return "; ".join(parts)


@dataclasses.dataclass(frozen=True)
class GraftReport:
    """One row for every leaf of both trees; `str` gives a table of it.

    >>> report = GraftReport((Row("loaded", "w", "w", (3, 2), (3, 2)), Row("kept", "head/w", None, (2,))))
    >>> report.leaves["loaded"], report.parameters["kept"], report.names("kept")
    (1, 2, ['head/w'])
    """

    rows: tuple[Row, ...]

    @property
    def leaves(self) -> dict[str, int]:
        """The number of leaves by action."""
        return {action: len(self.names(action)) for action in ACTIONS}

    @property
    def parameters(self) -> dict[str, int]:
        """The number of parameters by action."""
        return {action: sum(r.parameters for r in self.rows if r.action == action) for action in ACTIONS}

    def names(self, *actions: str) -> list[str]:
        """The names of the leaves to which one of `actions` happened: the target's where there is one."""
        _check_actions(actions)
        return [row.name for row in self.rows if row.action in actions]

    def raise_if(self, **where: bool | Spec) -> None:
        """Raises `GraftError` when an action happened: to any leaf (True), or to one that a selector selects.

        >>> report = GraftReport((Row("kept", "head/w", None, (2,)),))
        >>> report.raise_if(kept="backbone/**", left_over=True)
        >>> report.raise_if(kept=True)
        Traceback (most recent call last):
        tljax.tree.report.GraftError: 1 leaf was kept, which was not to happen: 'head/w'
        """
        _check_actions(where)
        for action, spec in where.items():
            if spec is False:
                continue
            chosen = select("**" if spec is True else spec)
            names = [name for name in self.names(action) if chosen.matches(name)]
            if names:
                leaves = "1 leaf was" if len(names) == 1 else f"{len(names)} leaves were"
                which = ", ".join(map(repr, names))
                raise GraftError(f"{leaves} {action.replace('_', ' ')}, which was not to happen: {which}")

    def to_dict(self) -> dict[str, Any]:
        """The report in dicts, lists, strings and numbers, for JSON."""
        rows = [dataclasses.asdict(row) | {"parameters": row.parameters} for row in self.rows]
        return {"leaves": self.leaves, "parameters": self.parameters, "rows": rows}

    def __str__(self) -> str:
        target = [row for row in self.rows if row.target is not None]
        filled = [row for row in target if row.source is not None]
        share = sum(r.parameters for r in filled), sum(r.parameters for r in target)
        head = (
            f"graft: {len(filled)} of {len(target)} target leaves filled from the source, "
            f"{share[0]:,} of {share[1]:,} parameters"
        )
        return "\n".join([head, *table(self.rows, ACTIONS)])


def _check_actions(actions: Iterable[str]) -> None:
    unknown = [action for action in actions if action not in ACTIONS]
    if unknown:
        raise GraftError(f"no action is called {unknown[0]!r}; actions are {', '.join(ACTIONS)}")
