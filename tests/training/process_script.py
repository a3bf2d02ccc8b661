"""One process of a run, for test_processes: `python process_script.py FOLDER PORT COUNT NUMBER [name=value ...]`.

`die=STEP` or `term=STEP` with `who=NUMBER` says in which process SIGKILL or SIGTERM strikes at that row of the log, and
`read=N` that its N-th example cannot be read. All devices of all processes together are four.
"""

import json
import os
import pathlib
import signal
import sys
import threading

RUN = __name__ == "__main__"  # pytest imports this file too, to look for doctests
FOLDER, PORT, COUNT, NUMBER, *WORDS = sys.argv[1:] if RUN else (".", "0", "1", "0")
FOLDER, COUNT, NUMBER, GIVEN = pathlib.Path(FOLDER), int(COUNT), int(NUMBER), dict(word.split("=") for word in WORDS)
STEPS = 24
if RUN:
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={4 // COUNT} --xla_backend_optimization_level=1"

import jax  # noqa: E402  (the flags must stand first)
import numpy as np  # noqa: E402
import optax  # noqa: E402
from training_cases import HITS, TANH, examples  # noqa: E402

from tljax.data import stream  # noqa: E402
from tljax.objectives import cross_entropy  # noqa: E402
from tljax.plans import plan  # noqa: E402
from tljax.processes import fetched, join  # noqa: E402
from tljax.training import fit, layout, mesh  # noqa: E402

MINE = int(GIVEN.get("who", 0)) == NUMBER


class Source:
    """Examples, and which of them the feeds have asked for."""

    def __init__(self, x, y):
        self.x, self.y, self.asked = x, y, []

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        if threading.current_thread().name == "tljax-feed":
            self.asked.append(i)
            if MINE and "read" in GIVEN and len(self.asked) >= int(GIVEN["read"]):
                raise OSError("no such disk")
        return self.x[i], int(self.y[i])


def strike(row):
    """The listeners are those of process 0, which strikes the one that is meant."""
    for name, number in (("die", signal.SIGKILL), ("term", signal.SIGTERM)):
        if row["step"] == int(GIVEN.get(name, -1)) and row["split"] == "train":
            os.kill(int((FOLDER / f"{GIVEN.get('who', 0)}.pid").read_text()), number)


def main():
    (FOLDER / f"{NUMBER}.pid").write_text(str(os.getpid()))
    if COUNT > 1:
        join(f"localhost:{PORT}", COUNT, NUMBER, heartbeat_seconds=10)
    x, y = examples(40)
    train, valid = Source(x[:30], y[:30]), Source(x[30:], y[30:])
    result = fit(
        TANH, TANH.init(jax.random.key(0), x), cross_entropy(), plan(), stream(train), stream(valid),
        optimizer=optax.adam(0.05), steps=STEPS, batch_size=8, metric=HITS, save_every=8, eval_every=6, log_every=3,
        run_dir=FOLDER / "run", on_log=[strike], progress=False, mesh=mesh(fsdp=2), layout=layout(above=8),
    )  # fmt: skip
    (FOLDER / f"{NUMBER}.json").write_text(json.dumps({"train": train.asked, "valid": valid.asked}))
    leaves = jax.tree.leaves(fetched((result.params, result.last)))
    if NUMBER == 0:
        np.savez(FOLDER / "result.npz", *leaves, value=result.best_value)


if RUN:
    main()
