"""What was read from a weight file, and what was not."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax

from tljax.checkpoints.buffers import size_of
from tljax.checkpoints.errors import shown

MAX_ROWS = 20
"""Lines of one kind that a printed report shows; all are in its fields."""


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What was read from a weight file, and what was not. Prints as a table."""

    path: str
    format: str
    """"safetensors", "npz", "msgpack", "torch" or "orbax"."""
    separator: str
    """What nests the names of the file: "/" in Flax layouts, "." in torch layouts."""
    dtypes: Mapping[str, tuple[int, int]]
    """For each dtype the number of leaves read and of their elements."""
    nbytes: int
    """Bytes read."""
    unwrapped: tuple[str, ...] = ()
    """Keys and prefixes that were taken off, outermost first."""
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What is in the file and is no weight, by name, and as what it was taken."""
    not_selected: int = 0
    """How many leaves the selector left in the file."""
    nonfinite: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """How many elements are NaN or infinite, for the leaves that have any."""
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What the file says of itself."""
    notes: tuple[str, ...] = ()
    """What else a reader should know: a wrong suffix, a choice among several files."""

    @property
    def leaves(self) -> int:
        """The number of leaves read."""
        return sum(leaves for leaves, _ in self.dtypes.values())

    @property
    def parameters(self) -> int:
        """The number of elements read."""
        return sum(elements for _, elements in self.dtypes.values())

    def __str__(self) -> str:
        head = f"{self.path}: {self.format}, {_many(self.leaves, 'leaf')}, {_many(self.parameters, 'element')}"
        sizes = [f"{name}: {_many(n, 'leaf')}, {_many(size, 'element')}" for name, (n, size) in self.dtypes.items()]
        rows = [("dtype", text) for text in sizes]
        rows += [("unwrapped", shown(" ".join(self.unwrapped)))] if self.unwrapped else []
        rows += _first("left out", [f"{shown(name)}: {reason}" for name, reason in self.left_out.items()])
        rows += [("unselected", _many(self.not_selected, "leaf"))] if self.not_selected else []
        rows += _first("NaN or inf", [f"{shown(name)}: {_many(n, 'element')}" for name, n in self.nonfinite.items()])
        rows += [("note", note) for note in self.notes]
        head += f", {_size(self.nbytes)}"
        return "\n".join([head, *(f"  {label:<10}  {text}" for label, text in rows)])


def count_dtypes(specs: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, tuple[int, int]]:
    """For each dtype the number of leaves and of elements.

    >>> count_dtypes({"w": jax.ShapeDtypeStruct((2, 3), "float32"), "b": jax.ShapeDtypeStruct((3,), "float32")})
    {'float32': (2, 9)}
    """
    counts: dict[str, tuple[int, int]] = {}
    for spec in specs.values():
        leaves, elements = counts.get(spec.dtype.name, (0, 0))
        counts[spec.dtype.name] = (leaves + 1, elements + math.prod(spec.shape))
    return counts


def total_size(specs: Mapping[str, jax.ShapeDtypeStruct]) -> int:
    """The bytes of all leaves.

    >>> total_size({"w": jax.ShapeDtypeStruct((2, 3), "float32")})
    24
    """
    return sum(map(size_of, specs.values()))


def _first(label: str, lines: Sequence[str]) -> list[tuple[str, str]]:
    """Rows for the first of `lines`, and one that counts the rest."""
    rest = [f"... and {len(lines) - MAX_ROWS} more"] if len(lines) > MAX_ROWS else []
    return [(label, line) for line in [*lines[:MAX_ROWS], *rest]]


def _many(n: int, noun: str) -> str:
    plural = {"leaf": "leaves"}.get(noun, noun + "s")
    return f"{n:,} {noun if n == 1 else plural}"


def _size(nbytes: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= scale:
            return f"{nbytes / scale:.1f} {unit}"
    return f"{nbytes} bytes"
