"""What the scores of the zoo read: features and source probabilities of every candidate on every pool.

    python benchmarks/zoo/features.py [--run-dir runs/zoo] [--candidates lenet-mnist ...]

Below the run folder, one file a task and candidate: `features` `[N, D]` and `probabilities` `[N, S]` of the source's
head (without them where the candidate is a random start); and one a task: `labels` `[N]`, and for each number of shots
the indices of five nested draws, `[5, shots * classes]`. `candidates.json` has parameters, width and upstream accuracy.
"""

import argparse
import json
import pathlib
from typing import Any

import jax
import numpy as np
from candidates import CANDIDATES, RUN_DIR, load, prepared, size
from tasks import SHOTS, TASKS

import tljax as tl

DRAWS = 5


def extract(name: str, run_dir: str, out: pathlib.Path) -> dict[str, Any]:
    """Write the features of one candidate; what is known of it."""
    candidate = CANDIDATES[name]
    model, params, upstream = load(name, run_dir)
    for task in (make() for make in TASKS.values()):
        output = tl.predict(model, params, prepared(candidate, task.pool[0]), batch_size=100)
        found = {"features": np.asarray(output.features, np.float32)}
        if candidate.file or candidate.source:
            found["probabilities"] = np.asarray(jax.nn.softmax(output.logits), np.float32)
        np.savez_compressed(out / f"{task.name}--{name}.npz", **found)
    width, origin = found["features"].shape[1], candidate.source or candidate.file.split("/")[0]
    return {"parameters": size(params), "width": width, "upstream": upstream, "source": origin}


def main() -> None:
    """Write what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", default=RUN_DIR)
    parser.add_argument("--candidates", nargs="*", choices=list(CANDIDATES), default=list(CANDIDATES))
    options = parser.parse_args()
    out = pathlib.Path(options.run_dir) / "features"
    out.mkdir(parents=True, exist_ok=True)
    for task in (make() for make in TASKS.values()):
        draws = {f"draws_{k}": np.stack([task.subset(k, d) for d in range(DRAWS)]) for k in SHOTS}
        np.savez_compressed(out / f"{task.name}.npz", labels=task.pool[1], **draws)
    file = out / "candidates.json"
    facts = json.loads(file.read_text()) if file.exists() else {}
    for name in options.candidates:
        if name not in facts:
            facts[name] = extract(name, options.run_dir, out)
            file.write_text(json.dumps(facts, indent=1))
            print(name, facts[name], flush=True)


if __name__ == "__main__":
    main()
