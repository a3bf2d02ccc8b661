"""What became of each adapted leaf, as a table."""

from collections.abc import Iterable
from typing import NamedTuple

from tljax.tree.table import covering

_ADVICE = {
    "custom_jvp_call": "multiply outside of the function, and give it the product",
    "custom_vjp_call": "multiply outside of the function, and give it the product",
    "dot_general": "multiply the activations by one weight after the other",
    "mul": "scale the activations, before or after the product",
    "output": "leave the leaf out of what the function returns",
    "reshape": "reshape the activations, or keep the axes of inputs and outputs apart",
    "scan": "give it to the loop as a constant or among the scanned arrays",
    "while": "read it in the loop's body from outside, instead of carrying it on",
}
_OTHERWISE = "apply it to the activations, before or after the product"


class Row(NamedTuple):
    """What became of one leaf."""

    leaf: str
    kind: str
    rank: int | None
    """None for kinds without."""
    factored: tuple[str, ...] = ()
    """The primitives that take it in parts."""
    merged: tuple[tuple[str, str, bool], ...] = ()
    """The primitives for which it is merged, why, and whether that is cheaper anyway."""
    whole: bool = False
    """Whether the kind has no factors here (a bias, a full copy), so that merging is the way."""

    @property
    def dear(self) -> list[str]:
        """The primitives for which it is merged, although in parts it would be cheaper."""
        return [primitive for primitive, _, cheaper in self.merged if not cheaper]

    def __str__(self) -> str:
        told = [f"factored in {', '.join(self.factored)}"] if self.factored else []
        told += [f"merged for {primitive}: {why}" for primitive, why, _ in self.merged]
        return "; ".join(told) or ("a value of its own" if self.whole else "not used")

    def advice(self) -> str:
        """What to write instead where it is merged.

        >>> Row("w", "lora", 8, merged=(("scan", "a loop carries it on", False),)).advice()
        'give it to the loop as a constant or among the scanned arrays'
        """
        return "; ".join(dict.fromkeys(_ADVICE.get(primitive, _OTHERWISE) for primitive in self.dear))


class Explanation(NamedTuple):
    """A row for each adapted leaf; printed, like leaves share a line."""

    rows: tuple[Row, ...]

    @property
    def merged(self) -> dict[str, str]:
        """The leaves that are merged although they have factors, and for what; where it is cheaper too."""
        return {row.leaf: ", ".join(p for p, _, _ in row.merged) for row in self.rows if row.merged}

    def __str__(self) -> str:
        groups: dict[tuple[str, str, str], list[str]] = {}
        for row in self.rows:
            rank = "" if row.rank is None else str(row.rank)
            groups.setdefault((row.kind, rank, str(row)), []).append(row.leaf)
        names = [row.leaf for row in self.rows]
        cells = [("leaf", "kind", "rank", "in the program")]
        cells += [(glob, *key) for key, leaves in groups.items() for glob in covering(leaves, names)]
        return "\n".join(_aligned(cells))


def _aligned(cells: list[tuple[str, str, str, str]]) -> Iterable[str]:
    a, b, c, _ = (max(map(len, column)) for column in zip(*cells))
    return (f"{w:<{a}}  {x:<{b}}  {y:>{c}}  {z}".rstrip() for w, x, y, z in cells)
