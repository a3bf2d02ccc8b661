"""The result of a measurement for a person: one configuration as a list, several as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from tljax.recipes.bench.doubts import name_of
from tljax.recipes.bench.spread import WIDE

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def results_text(results: Mapping[str, Any]) -> str:
    """What was measured, where, and what there is to doubt."""
    rows = results["rows"]
    body = _card(rows[0]) if len(rows) == 1 and "failed" not in rows[0] else _table(rows)
    doubts = [f"warning: {text}" for text in results["warnings"]]
    return "\n".join([*_where(results), "", *body, *([""] if doubts else []), *doubts])


def _where(results: Mapping[str, Any]) -> list[str]:
    machine, versions = results["machine"], results["versions"]
    loads = [results["load"][key] for key in ("before", "after")]
    told = "" if None in loads else f", load {loads[0]:.1f} before and {loads[1]:.1f} after"
    where = f"{machine['devices']} x {machine['device']} ({machine['platform']})"
    meshes = dict.fromkeys(row["configuration"].get("mesh", "one device") for row in results["rows"])
    where += f", of which {', '.join(meshes)}" if machine["devices"] > 1 else ""
    lines = [
        f"{where}; {machine['processor']}, {machine['cores']} cores{told}",
        f"jax {versions['jax']}, tljax {versions['tljax']}, {results['date']}",
    ]
    ceilings = results["ceilings"]
    for dtype, found in ceilings.get("matmul", {}).items():
        rate = found["rate"]
        lines.append(
            f"ceiling: {quantity(rate['median'], 'FLOP/s')} in {dtype} matrix products of side {found['side']}, middle "
            f"half {rate['q1'] / rate['median']:.0%} to {rate['q3'] / rate['median']:.0%} of it"
        )
    if "copy" in ceilings:
        rate, size = ceilings["copy"]["rate"], ceilings["copy"]["array_bytes"]
        lines.append(
            f"ceiling: {quantity(rate['median'], 'B/s')} streaming arrays of {quantity(size, 'B')}, middle half "
            f"{rate['q1'] / rate['median']:.0%} to {rate['q3'] / rate['median']:.0%} of it"
        )
    return lines


def _card(row: Mapping[str, Any]) -> list[str]:
    """One configuration, a line for each number."""
    step, memory, config = row["step_seconds"], row["memory"], row["configuration"]
    source = {"device": "by the device's allocator", "xla": "by XLA's analysis of the program", None: "not told"}
    others = [f"{k} {v}" for k, v in config.items() if k not in ("model", "method", "batch", "dtype")]
    pairs = [
        ("configuration", f"{name_of(config)} ({', '.join(others)})"),
        (
            "step time",
            f"{duration(step['median'])} median; middle half {duration(step['q1'])} to {duration(step['q3'])}",
        ),
        ("", f"least {duration(step['least'])}; {step['repeats']} repeats of {row['steps_per_repeat']} steps"),
        ("examples", f"{quantity(row['examples_per_second'], '/s')}, {row['examples_per_step']} a step"),
        ("compilation", duration(row["compile_seconds"])),
        ("first step", f"made {duration(row['first_step_seconds'])} after the start"),
        ("operations", f"{quantity(row['flops_per_step'], 'FLOP')} a step"),
        ("", f"{quantity(row['flops_per_second'], 'FLOP/s')}, {percent(row['of_matmul_ceiling'])} of the ceiling"),
        ("memory moved", f"{quantity(row['bytes_per_step'], 'B')} a step"),
        ("", f"{quantity(row['bytes_per_second'], 'B/s')}, {percent(row['of_copy_ceiling'])} of the ceiling"),
        ("peak memory", f"{quantity(memory['peak_bytes'], 'B')} {source[memory['source']]}"),
        ("host", f"{percent(row['host_share'])} of the time launching; else it waits"),
    ]
    pairs += [("profile", row["trace"])] if "trace" in row else []
    return [f"{name:<15}{text}" for name, text in pairs]


_COLUMNS = (
    "compile", "first step", "step", "+-", "least", "examples/s", "FLOP", "FLOP/s", "of matmul", "B", "of copy", "peak",
    "host",
)  # fmt: skip


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each configuration."""
    cells = [["configuration", *_COLUMNS]]
    cells += [[name_of(row["configuration"]), *_cells(row)] for row in rows if "failed" not in row]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = ["  ".join(_aligned(line, widths)).rstrip() for line in cells]
    legend = (
        "+-: distance of the quartiles of the step time, ! where wide; of matmul, of copy: shares of the ceilings; "
        "peak: d by the device, x by XLA; host: share of the time launching"
    )
    failed = [f"{name_of(row['configuration'])}: {row['failed']}" for row in rows if "failed" in row]
    return [*lines, legend, *failed]


def _cells(row: Mapping[str, Any]) -> list[str]:
    step, memory = row["step_seconds"], row["memory"]
    mark = {"device": " d", "xla": " x", None: ""}[memory["source"]]
    return [
        duration(row["compile_seconds"]),
        duration(row["first_step_seconds"]),
        duration(step["median"]),
        f"{step['width']:.0%}{'!' if step['width'] > WIDE else ' '}",
        duration(step["least"]),
        quantity(row["examples_per_second"], ""),
        quantity(row["flops_per_step"], ""),
        quantity(row["flops_per_second"], ""),
        percent(row["of_matmul_ceiling"]),
        quantity(row["bytes_per_step"], ""),
        percent(row["of_copy_ceiling"]),
        quantity(memory["peak_bytes"], "") + mark,
        percent(row["host_share"]),
    ]


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    """The first column to the left, numbers to the right."""
    return [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))]


def quantity(value: float | None, unit: str) -> str:
    """A number with three digits, a prefix and its unit.

    >>> quantity(12_345_678.0, "FLOP/s"), quantity(250.0, "/s"), quantity(None, "B")
    ('12.3 MFLOP/s', '250 /s', 'not told')
    """
    if value is None:
        return "not told"
    size, prefix = next(((s, p) for s, p in _PREFIXES if value >= s), (1.0, ""))
    return f"{_digits(value / size)} {prefix}{unit}".rstrip()


def duration(seconds: float) -> str:
    """Seconds with three digits.

    >>> duration(0.0123456), duration(83.21), duration(4.5e-6)
    ('12.3 ms', '83.2 s', '4.50 us')
    """
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= size:
            return f"{_digits(seconds / size)} {unit}"
    return f"{_digits(seconds / 1e-9)} ns"


def percent(share: float | None) -> str:
    """A share in percent.

    >>> percent(0.456), percent(0.0123), percent(None)
    ('46%', '1.2%', 'not told')
    """
    return "not told" if share is None else f"{share:.0%}" if share >= 0.095 else f"{share:.1%}"


def _digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
