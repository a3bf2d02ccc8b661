"""The ground truth of the zoo: the test accuracy of tuned full fine-tuning, by candidate, task and shots.

    python benchmarks/zoo/truth.py [--run-dir runs/zoo] [--tasks usps pacs ...] [--candidates lenet-mnist ...]

A cell is fine-tuned from a closed-form head (LP-FT), with the statistics of BatchNorm frozen and a learning rate that
decays as a cosine. Three draws of the labels, each with its own order of batches; the learning rate is the one of
`RATES` that does best on the validation part with draw 0. Each cell is stored when it is done; a later call goes on.
The cells with few shots come first, task by task, so that a table that was interrupted is whole up to some task.
Candidates have a file each, so several calls can share the work.
"""

import argparse
import functools
import json
import math
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from candidates import CANDIDATES, RUN_DIR, Candidate, architecture, load, prepared, start
from tasks import SHOTS, TASKS, Task

import tljax as tl
from tljax.tree import named_leaves
from tljax.types import is_state

DRAWS = 3
RATES = (3e-4, 1e-3)
STEPS = {5: 30, 20: 40, 100: 60}
BATCH = 16
WIDTH = 10
"""Every head has ten outputs, so that one program serves all tasks; those that a task lacks are left out."""


@functools.cache
def program(name: str) -> Any:
    """The compiled start and update of an architecture: Adam, whose rate stands in the state."""
    candidate = next(c for c in CANDIDATES.values() if c.architecture == name)
    params = start(candidate, WIDTH)
    has_statistics = any(map(is_state, named_leaves(params)))
    plan = tl.plan(tl.freeze("**/batch_stats/*")) if has_statistics else tl.plan()
    step = tl.make_step(architecture(name, WIDTH), tl.cross_entropy(), plan.resolve(params), optax.adam(1.0))
    return jax.jit(step.init), jax.jit(step.update)


def tuned(name: str, params: Any, x: np.ndarray, y: np.ndarray, steps: int, rate: float, seed: int) -> Any:
    """Parameters after fine-tuning on `x`, `y`: every example once before any comes again."""
    init, update = program(name)
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(y)) for _ in range(math.ceil(steps * BATCH / len(y)))])
    cut = [order[i * BATCH : (i + 1) * BATCH] for i in range(steps)]
    state = init(params, {"train": tl.Batch(x[cut[0]], y[cut[0]])}, seed=seed)
    for i, batch in enumerate(cut):
        now = np.float32(rate * 0.5 * (1 + math.cos(math.pi * i / steps)))
        state, _ = update(state._replace(rate=jnp.asarray(now)), {"train": tl.Batch(x[batch], y[batch])})
    return state.params


def accuracy(model: tl.Model, params: Any, x: np.ndarray, y: np.ndarray, classes: int) -> float:
    """The share of right answers among the classes of the task."""
    logits = np.asarray(tl.predict(model, params, x, batch_size=100).logits)[:, :classes]
    return float(np.mean(np.argmax(logits, -1) == y))


def cell(candidate: Candidate, backbone: Any, task: Task, parts: Any, shots: int) -> dict[str, Any]:
    """The test accuracies of one candidate on one task, with what was tried on the way."""
    began, model = time.perf_counter(), architecture(candidate.architecture, WIDTH)
    pool, valid, test = parts
    params = start(candidate, WIDTH) | {"backbone": backbone}
    found: dict[str, Any] = {"accuracy": [], "probe": [], "valid": {}}
    for draw in range(DRAWS):
        i = task.subset(shots, draw)
        x, y = pool[i], task.pool[1][i]
        headed, _ = tl.closed_form_head(model, params, (x, y), batch_size=50)
        fine_tune = functools.partial(tuned, candidate.architecture, headed, x, y, STEPS[shots], seed=draw)
        if draw == 0:
            tried = {rate: fine_tune(rate=rate) for rate in RATES}
            found["valid"] = {r: accuracy(model, p, valid, task.valid[1], task.classes) for r, p in tried.items()}
            found["rate"] = max(RATES, key=found["valid"].__getitem__)
        end = tried[found["rate"]] if draw == 0 else fine_tune(rate=found["rate"])
        found["accuracy"].append(accuracy(model, end, test, task.test[1], task.classes))
        found["probe"].append(accuracy(model, headed, test, task.test[1], task.classes))
    return found | {"seconds": time.perf_counter() - began}


def fill(names: list[str], tasks: list[str], run_dir: str) -> None:
    """Fill the cells of these candidates that are missing."""
    folder = pathlib.Path(run_dir) / "truth"
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.json" for name in names}
    done = {name: json.loads(file.read_text()) if file.exists() else {} for name, file in files.items()}
    backbone = functools.cache(lambda name: load(name, run_dir)[1]["backbone"])
    for shots in SHOTS:
        for task in (TASKS[name]() for name in tasks):
            for name in names:
                key = f"{task.name}/{shots}"
                if key in done[name]:
                    continue
                parts = [prepared(CANDIDATES[name], part[0]) for part in (task.pool, task.valid, task.test)]
                new = done[name][key] = cell(CANDIDATES[name], backbone(name), task, parts, shots)
                files[name].write_text(json.dumps(done[name], indent=0))
                print(key, name, np.round(new["accuracy"], 3), np.round(new["probe"], 3), new["rate"],
                      f"{new['seconds']:.1f} s", flush=True)  # fmt: skip


def main() -> None:
    """Fill the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", default=RUN_DIR)
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--candidates", nargs="*", choices=list(CANDIDATES), default=list(CANDIDATES))
    options = parser.parse_args()
    fill(options.candidates, options.tasks, options.run_dir)


if __name__ == "__main__":
    main()
