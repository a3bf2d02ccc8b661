"""What a step sends between devices: on paper, and as it stands in a compiled program.

On paper, with rings: to sum `b` bytes over `n` devices each sends `2 (n-1)/n b`; to put together an array of `b` bytes
that is divided over `n`, `(n-1)/n b`; as much to sum one and divide it. So data parallelism costs about twice the bytes
of what learns, however many devices there are, and a frozen parameter that lies whole on every device costs nothing.

Reference: Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations, JPDC 2009;
Zhao et al. (2023), arXiv:2304.11277, for divided parameters.
"""

import math
import re
from typing import Any, NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_CALL = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
_SHAPE = re.compile(r"\b[a-z]+(\d*)(?:e\w+)?\[([\d,]*)\]")
_NUMBERED = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=")
_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_NAMED = re.compile(r"replica_groups=mesh\[(.*?)\].*?\{('[^}]*)\}")


class Collective(NamedTuple):
    """One operation of a program in which devices exchange arrays."""

    kind: str
    """One of `KINDS`, in XLA's words."""
    bytes: int
    """Size of what is summed, put together or exchanged, whole: of a gather the result, else the operand."""
    devices: int
    """How many devices exchange with each other; there may be several such groups, side by side."""

    @property
    def sent(self) -> float:
        """Bytes that each device sends, with rings.

        >>> Collective("all-reduce", 800, 8).sent, Collective("all-gather", 800, 8).sent
        (1400.0, 700.0)
        """
        if self.kind == "collective-permute":
            return float(self.bytes)
        return (2 if self.kind == "all-reduce" else 1) * (self.devices - 1) / self.devices * self.bytes


class Traffic(NamedTuple):
    """Bytes that each device sends in one step."""

    gather: float
    """To put divided parameters together."""
    reduce: float
    """To sum gradients."""

    @property
    def total(self) -> float:
        """Both."""
        return self.gather + self.reduce


def step_traffic(
    whole: float = 0, divided: float = 0, frozen: float = 0, *, data: int, fsdp: int = 1, gathers: int = 1
) -> Traffic:
    """The paper model of a step on a mesh of `data` times `fsdp` devices: bytes that each device sends.

    Args:
      whole: bytes of the parameters that learn and lie whole on every device.
      divided: bytes of those that learn and are divided over `fsdp`.
      frozen: bytes of those that are divided, and do not learn; whole ones cost nothing.
      data, fsdp: the axes of the mesh.
      gathers: how often divided parameters are put together: once, and kept for the backward pass; or for each pass, 2,
        as where a model is rematerialised.

    With `n = data fsdp` devices the gradients cost `2 (n-1)/n whole + (fsdp-1)/fsdp divided +
    2 (data-1)/data divided/fsdp`, the parameters `gathers (fsdp-1)/fsdp (divided + frozen)`. Activations are not
    counted: with these two axes none is exchanged, but for statistics of a batch.

    >>> step_traffic(400e6, data=16)  # 100 million parameters that learn, in float32
    Traffic(gather=0.0, reduce=750000000.0)
    >>> step_traffic(1.2e6, data=16).total  # low-rank adapters beside them
    2250000.0
    >>> step_traffic(divided=400e6, data=1, fsdp=16).total
    750000000.0
    """
    n, apart = data * fsdp, (fsdp - 1) / fsdp
    reduce = 2 * (n - 1) / n * whole + apart * divided + 2 * (data - 1) / data * divided / fsdp
    return Traffic(gathers * apart * (divided + frozen), reduce)


def collectives(program: Any) -> tuple[Collective, ...]:
    """The collectives of a compiled program, `jax.jit(...).lower(...).compile()`, or of its text.

    One that stands in a loop counts once: so those of the step of `fit`, whose loop is over steps.

    >>> text = "%sum = f32[10,2]{1,0} all-reduce(%x), replica_groups={{0,1},{2,3}}, to_apply=%add"
    >>> collectives(text)
    (Collective(kind='all-reduce', bytes=80, devices=2),)
    """
    text = program if isinstance(program, str) else program.as_text()
    found = []
    for line in text.splitlines():
        call = _CALL.search(line)
        if call is not None:
            found.append(_collective(call, line))
    return tuple(found)


def _collective(call: re.Match[str], line: str) -> Collective:
    kind, devices = call[2], _devices(line)
    sizes = [_bytes(*shape) for shape in _SHAPE.findall(call[1])]
    if call[3] and kind == "all-gather":  # the operands, then the results
        sizes = sizes[len(sizes) // 2 :]
    elif call[3] and kind == "collective-permute":
        sizes = sizes[:1]
    return Collective(kind, sum(sizes) * (devices if kind == "reduce-scatter" else 1), devices)


def _bytes(bits: str, dimensions: str) -> int:
    elements = math.prod(int(n) for n in dimensions.split(",") if n)
    return math.ceil(int(bits or 8) / 8 * elements)  # pred has no number of bits


def _devices(line: str) -> int:
    """How many devices are in a group, which XLA writes in three ways."""
    if numbered := _NUMBERED.search(line):
        return int(numbered[2])
    if listed := _LISTED.search(line):
        return len(listed[1].split(","))
    if named := _NAMED.search(line):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", named[1]))
        axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", named[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    return 1
