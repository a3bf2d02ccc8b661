"""The table of the cells that there are."""

import json
import pathlib
from typing import Any

RESULTS = pathlib.Path(__file__).parents[1] / "results"
CELLS = RESULTS / "against_torch"


def file_of(folder: pathlib.Path, name: str, method: str, device: str, dtype: str) -> pathlib.Path:
    """Where a cell is kept."""
    return folder / f"{name}_{method}_{device}_{dtype}.json"


def table(folder: pathlib.Path, device: str, dtype: str, wanted: list[tuple[str, str]]) -> str:
    """Milliseconds a step, and torch's time over tljax's; above 1 tljax is faster."""
    lines = [
        f"{'model':<11}{'method':<8}{'batch':>6}{'tljax ms':>10}{'eager ms':>10}{'compile ms':>12}"
        f"{'eager/tljax':>22}{'compile/tljax':>22}"
    ]
    missing = []
    for name, method in wanted:
        file = file_of(folder, name, method, device, dtype)
        if not file.exists():
            missing.append(f"{name} {method}")
            continue
        cell = json.loads(file.read_text())
        clock = "cpu" if device == "cpu" else "wall"
        ms = {way: both[clock] for way, both in cell["ms a step"].items()}
        ratios = "".join(f"{_ratio(cell['ratios'][way]):>22}" for way in ("eager", "compile"))
        lines.append(
            f"{name:<11}{method:<8}{cell['batch']:>6}{ms['tljax']:>10.3f}{ms['eager']:>10.3f}{ms['compile']:>12.3f}"
            + ratios
        )
    dann = RESULTS / "dann_speed.json"
    if device == "cpu" and folder == CELLS and dann.exists():
        found: dict[str, Any] = json.loads(dann.read_text())
        each = found["seconds for 1000 steps"]
        lines.append(
            f"{'digits':<11}{'DANN':<8}{'2x128':>6}{each['tljax']:>10.1f}{each['torch']:>10.1f}{'':>12}"
            f"{found['torch / tljax']:>8.2f}  (benchmarks/dann_speed.py, time on the clock)"
        )
    return "\n".join([*lines, *([f"not run: {', '.join(missing)}"] if missing else [])])


def _ratio(found: dict[str, float]) -> str:
    return f"{found['median']:.2f} ({found['least']:.2f} to {found['most']:.2f})"
