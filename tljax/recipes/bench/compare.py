"""Two measurements side by side: the ratio of the step times of each configuration, with what the spread allows to say.

The ratio is that of the medians, B / A. Its range goes from the lower quartile of B over the upper of A to the upper of
B over the lower of A. A change is called one only where it is larger than `SLACK` and the middle halves of the two do
not overlap; two times are called the same only where the range is no wider than `NARROW`. All else is unclear.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tljax.recipes.bench.doubts import name_of
from tljax.recipes.bench.results import read_results
from tljax.recipes.bench.table import duration

SLACK = 0.05
"""Changes of the median up to this share are none."""
NARROW = 0.1
"""How far from 1 the range of times that are the same may go."""
_COUNTS = (("flops_per_step", "FLOPs"), ("bytes_per_step", "bytes moved"))


class Ratio(NamedTuple):
    """Of two step times, the new one over the old."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What can be said of it.

        >>> Ratio(1.2, 1.1, 1.3).verdict, Ratio(1.2, 0.9, 1.4).verdict, Ratio(1.02, 1.01, 1.03).verdict
        ('SLOWER', 'unclear', 'same')
        """
        small = abs(self.value - 1) <= SLACK
        if small and self.low >= 1 - NARROW and self.high <= 1 + NARROW:
            return "same"
        if small or self.low <= 1 <= self.high:
            return "unclear"
        return "SLOWER" if self.value > 1 else "faster"


def ratio(old: Mapping[str, float], new: Mapping[str, float]) -> Ratio:
    """The ratio of two spreads, with `median`, `q1` and `q3`.

    >>> ratio({"median": 2.0, "q1": 1.0, "q3": 4.0}, {"median": 3.0, "q1": 2.0, "q3": 4.0})
    Ratio(value=1.5, low=0.5, high=4.0)
    """
    return Ratio(new["median"] / old["median"], new["q1"] / old["q3"], new["q3"] / old["q1"])


def compare_files(old: str, new: str) -> str:
    """What changed from one result of `tljax bench` to another, as text.

    Raises `BenchError` for a file that is none, or two that have no configuration in common.
    """
    return "\n".join(_compared(read_results(old), read_results(new), old, new))


def _compared(a: Mapping[str, Any], b: Mapping[str, Any], old: str, new: str) -> Iterator[str]:
    yield f"A: {old}, {a.get('date', 'without a date')}"
    yield f"B: {new}, {b.get('date', 'without a date')}"
    yield from (f"differs: {text}" for text in _differences(a, b))
    for name, found in (("A", a), ("B", b)):
        yield from (f"{name} warns: {text}" for text in found.get("warnings", ()))
    yield ""
    rows, others = ({_key(row): row for row in found["rows"]} for found in (a, b))
    both = [key for key in rows if key in others]
    yield from _table([(rows[key], others[key]) for key in both])
    for name, mine, theirs in (("A", rows, others), ("B", others, rows)):
        for key in mine:
            if key not in theirs:
                yield f"only in {name}: {_full_name(mine[key], [*rows.values(), *others.values()])}"


def _key(row: Mapping[str, Any]) -> str:
    return json.dumps(row["configuration"], sort_keys=True)


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    """What was not the same beside the code."""
    for part in ("machine", "versions", "flags", "settings"):
        mine, theirs = a.get(part, {}), b.get(part, {})
        for name in sorted(mine.keys() | theirs.keys()):
            if mine.get(name) != theirs.get(name):
                yield f"{part} {name}: {mine.get(name, 'none')} in A, {theirs.get(name, 'none')} in B"


def _table(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> Iterator[str]:
    lines = [["configuration", "A", "B", "B / A", "range", "", ""]]
    every = [row for pair in pairs for row in pair]
    lines += [[_full_name(old, every), *_cells(old, new)] for old, new in pairs]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines if pairs else ():
        cells = [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:5], widths[1:5])), *line[5:]]
        yield "  ".join(cells).rstrip()
    if not pairs:
        yield "no configuration is in both"


def _cells(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    if "failed" in old or "failed" in new:
        times = ["failed" if "failed" in row else duration(row["step_seconds"]["median"]) for row in (old, new)]
        verdict = "same" if "failed" in old and "failed" in new else "FAILS" if "failed" in new else "works"
        return [*times, "", "", verdict, new.get("failed", "")]
    found = ratio(old["step_seconds"], new["step_seconds"])
    times = [duration(row["step_seconds"]["median"]) for row in (old, new)]
    return [*times, f"{found.value:.3f}", f"{found.low:.3f} to {found.high:.3f}", found.verdict, _more(old, new)]


def _more(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What else of a row changed: what is counted rather than timed."""
    pairs = [(name, old.get(key), new.get(key)) for key, name in _COUNTS]
    peaks = [row.get("memory", {}) for row in (old, new)]
    if peaks[0].get("source") == peaks[1].get("source"):
        pairs.append(("peak memory", *(peak.get("peak_bytes") for peak in peaks)))
    changed = [f"{name} x {b / a:.2f}" for name, a, b in pairs if a and b and abs(b / a - 1) > SLACK]
    return ", ".join(changed)


def _full_name(row: Mapping[str, Any], every: Sequence[Mapping[str, Any]]) -> str:
    """The row's name, with what tells it from others of the same name."""
    mine, name = row["configuration"], name_of(row["configuration"])
    others = [other["configuration"] for other in every if name_of(other["configuration"]) == name]
    keys = sorted({key for other in others for key in other.keys() | mine.keys() if other.get(key) != mine.get(key)})
    return " ".join([name, *(f"{key} {mine.get(key, 'usual')}" for key in keys)])
