"""The scores of every candidate on every subset, kept so that the table can be made again without any training.

    python benchmarks/zoo/score.py [--run-dir runs/zoo] [--methods LEEP NCE ...]

Scores with the methods that are missing, or that are named, and gathers all there are in
benchmarks/results/zoo_scores.npz: of every method by its name an array `[task, shots, draw, candidate]`, and the names
along the axes; "chances" are the probabilities of being the best that `tljax rank` states. Each method has a file in
the run folder, so several calls can share the work.
"""

import argparse
import functools
import json
import pathlib
import warnings
from typing import Any

import numpy as np
from candidates import CANDIDATES, RUN_DIR
from methods import METHODS, OURS, Case, ranked
from tasks import SHOTS, TASKS

RESULT = pathlib.Path(__file__).parents[1] / "results" / "zoo_scores.npz"
DRAWS = 3
AXES = {"candidates": np.array(list(CANDIDATES)), "tasks": np.array(list(TASKS)), "shots": np.array(SHOTS)}


@functools.cache
def arrays(file: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a file, read once."""
    with np.load(file) as found:
        return dict(found)


def cases(folder: pathlib.Path, task: str, shots: int, draw: int) -> dict[str, Case]:
    """The candidates on one subset, as features.py wrote them."""
    facts: dict[str, dict[str, Any]] = json.loads((folder / "candidates.json").read_text())
    shared = arrays(folder / f"{task}.npz")
    i = shared[f"draws_{shots}"][draw]
    found = {}
    for name in CANDIDATES:
        own = arrays(folder / f"{task}--{name}.npz")
        theta = own["probabilities"][i] if "probabilities" in own else None
        found[name] = Case(own["features"][i], shared["labels"][i], theta, facts[name])
    return found


def scored(method: str, folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The scores of one method `[task, shots, draw, candidate]`, NaN where it finds none; ours with its chances."""
    shape = (len(TASKS), len(SHOTS), DRAWS, len(CANDIDATES))
    found = {name: np.full(shape, np.nan, np.float32) for name in ([OURS, "chances"] if method == OURS else [method])}
    for place in np.ndindex(shape[:3]):
        task, shots, draw = list(TASKS)[place[0]], SHOTS[place[1]], place[2]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given = cases(folder, task, shots, draw)
            if method == OURS:
                found[OURS][place], found["chances"][place] = ranked(given)
            else:
                found[method][place] = [METHODS[method](case) for case in given.values()]
    return found


def gather(parts: pathlib.Path) -> None:
    """Put all methods into one file."""
    found: dict[str, np.ndarray] = {}
    for file in sorted(parts.glob("*.npz")):
        found |= dict(np.load(file))
    np.savez_compressed(RESULT, **found | AXES)


def main() -> None:
    """Score and gather."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", default=RUN_DIR)
    parser.add_argument("--methods", nargs="*", choices=[*METHODS, OURS], default=[])
    options = parser.parse_args()
    run_dir = pathlib.Path(options.run_dir)
    parts = run_dir / "scores"
    parts.mkdir(parents=True, exist_ok=True)
    for method in options.methods or [*METHODS, OURS]:
        file = parts / f"{method}.npz"
        if method in options.methods or not file.exists():
            np.savez_compressed(file, **scored(method, run_dir / "features"))
            print(method, flush=True)
    gather(parts)


if __name__ == "__main__":
    main()
