"""The scores of every candidate on every subset, kept so that the table can be made again without any training.

    python benchmarks/zoo/score.py [--run-dir runs/zoo] [--methods LEEP NCE ...]

Writes benchmarks/results/zoo_scores.npz: an array `[task, shots, draw, candidate]` for every method by its name. Those
that are there already are kept, unless they are named.
"""

import argparse
import json
import pathlib
import warnings
from typing import Any

import numpy as np
from candidates import RUN_DIR
from methods import METHODS, Case
from tasks import SHOTS, TASKS

RESULT = pathlib.Path(__file__).parents[1] / "results" / "zoo_scores.npz"
DRAWS = 5


class Features:
    """What features.py wrote."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.facts: dict[str, dict[str, Any]] = json.loads((folder / "candidates.json").read_text())

    def cases(self, task: str) -> dict[tuple[int, int, str], Case]:
        """All cases of a task by shots, draw and candidate."""
        found, shared = {}, np.load(self.folder / f"{task}.npz")
        for name, facts in self.facts.items():
            with np.load(self.folder / f"{task}--{name}.npz") as file:
                own = dict(file)
            for shots in SHOTS:
                for draw, i in enumerate(shared[f"draws_{shots}"][:DRAWS]):
                    theta = own["probabilities"][i] if "probabilities" in own else None
                    found[shots, draw, name] = Case(own["features"][i], shared["labels"][i], theta, facts)
        return found


def scored(method: str, features: Features) -> np.ndarray:
    """The scores of one method, `[task, shots, draw, candidate]`; NaN where it finds none."""
    values = np.full((len(TASKS), len(SHOTS), DRAWS, len(features.facts)), np.nan, np.float32)
    for t, task in enumerate(TASKS):
        for (shots, draw, name), case in features.cases(task).items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                place = t, SHOTS.index(shots), draw, list(features.facts).index(name)
                values[place] = METHODS[method](case)
    return values


def main() -> None:
    """Score with every method that is missing, or that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", default=RUN_DIR)
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=[])
    options = parser.parse_args()
    features = Features(pathlib.Path(options.run_dir) / "features")
    axes = {"candidates": np.array(list(features.facts)), "tasks": np.array(list(TASKS)), "shots": np.array(SHOTS)}
    found = dict(np.load(RESULT)) if RESULT.exists() else {}
    for method in METHODS:
        if method not in found or method in options.methods:
            found[method] = scored(method, features)
            np.savez_compressed(RESULT, **found | axes)
            print(method, flush=True)


if __name__ == "__main__":
    main()
