"""The cells that there are, in one JSON and as a table."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

RESULTS = pathlib.Path(__file__).resolve().parents[1] / "results"
CELLS, SUMMARY = RESULTS / "against_torch", RESULTS / "against_torch.json"
NOTE = "CPU time, one thread, busy machine; DANN: time on the clock, benchmarks/dann_speed.py"


def file_of(folder: pathlib.Path, name: str, method: str, device: str, dtype: str) -> pathlib.Path:
    """Where a cell is kept."""
    return folder / f"{name}_{method}_{device}_{dtype}.json"


def collected(folder: pathlib.Path, device: str, dtype: str, wanted: list[tuple[str, str]]) -> dict[str, Any]:
    """The rows of the cells, what made the last of them, and the cells that were not run."""
    rows, missing, about = [], [], {}
    for name, method in wanted:
        file = file_of(folder, name, method, device, dtype)
        if not file.exists():
            missing.append(f"{name} {method}")
            continue
        cell = json.loads(file.read_text())
        about = {key: cell[key] for key in ("date", "machine", "versions")}
        times, clock = cell["ms a step"], "cpu" if device == "cpu" else "wall"
        rows.append({
            "model": name, "method": method, "batch": str(cell["batch"]), "ms": times["tljax"][clock],
            "eager": cell["ratios"]["eager"], "compile": cell["ratios"]["compile"],
        })  # fmt: skip
    dann = RESULTS / "dann_speed.json"
    if device == "cpu" and folder == CELLS and dann.exists():
        found = json.loads(dann.read_text())
        milliseconds = found["seconds for 1000 steps"]["tljax"]  # seconds of 1,000 steps
        rows.append({
            "model": "digits", "method": "DANN", "batch": "2x128", "ms": milliseconds,
            "eager": {"median": found["torch / tljax"]}, "compile": None,
        })  # fmt: skip
    command = "python -m benchmarks.against_torch --table"
    return {
        "command": command,
        "note": NOTE,
        "device": device,
        "dtype": dtype,
        **about,
        "rows": rows,
        "missing": missing,
    }


def text(found: Mapping[str, Any]) -> str:
    """Milliseconds a step of tljax, and torch's time over tljax's; above 1 tljax is faster."""
    lines = [f"{'model':<11}{'method':<8}{'batch':>6}{'tljax ms':>10}{'eager / tljax':>25}{'compile / tljax':>25}"]
    lines += [
        f"{row['model']:<11}{row['method']:<8}{row['batch']:>6}{row['ms']:>10.3f}"
        f"{_ratio(row['eager']):>25}{_ratio(row['compile']):>25}"
        for row in found["rows"]
    ]
    return "\n".join([*lines, *([f"not run: {', '.join(found['missing'])}"] if found["missing"] else [])])


def _ratio(found: Mapping[str, float] | None) -> str:
    if not found:
        return "-"
    spread = f" ({found['least']:.2f} to {found['most']:.2f})" if "least" in found else ""
    return f"{found['median']:.2f}{spread}"
