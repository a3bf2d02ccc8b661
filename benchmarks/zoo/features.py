"""What the scores of the zoo read: features and source probabilities of every candidate on every pool.

    python benchmarks/zoo/features.py [--run-dir runs/zoo] [--out runs/zoo/features]

One file a task and candidate: `features` `[N, D]`, `probabilities` `[N, S]` of the source's head (without it where the
candidate is a random start), and one a task: `labels` `[N]`, and for each number of shots the indices of five nested
draws, `[5, shots * classes]`. `candidates.json` has parameters, width and upstream accuracy.
"""

import argparse
import json
import pathlib

import jax
import numpy as np
from candidates import CANDIDATES, RUN_DIR, load, prepared, size
from tasks import SHOTS, TASKS

import tljax as tl

DRAWS = 5


def main() -> None:
    """Write what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", default=RUN_DIR)
    parser.add_argument("--out", default=f"{RUN_DIR}/features")
    options = parser.parse_args()
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    facts = {}
    for name, candidate in CANDIDATES.items():
        model, params, upstream = load(name, options.run_dir)
        for task in (make() for make in TASKS.values()):
            output = tl.predict(model, params, prepared(candidate, task.pool[0]), batch_size=100)
            found = {"features": np.asarray(output.features, np.float32)}
            if candidate.file or candidate.source:
                found["probabilities"] = np.asarray(jax.nn.softmax(output.logits), np.float32)
            np.savez_compressed(out / f"{task.name}--{name}.npz", **found)
        facts[name] = {"parameters": size(params), "width": found["features"].shape[1], "upstream": upstream,
                       "source": candidate.source or candidate.file.split("/")[0]}  # fmt: skip
        (out / "candidates.json").write_text(json.dumps(facts, indent=1))
        print(name, facts[name], flush=True)
    for task in (make() for make in TASKS.values()):
        draws = {f"draws_{k}": np.stack([task.subset(k, d) for d in range(DRAWS)]) for k in SHOTS}
        np.savez_compressed(out / f"{task.name}.npz", labels=task.pool[1], **draws)


if __name__ == "__main__":
    main()
