"""A training run for test_resume: `python resume_script.py FOLDER [HOOK [ARGUMENT]] [name=value ...]`.

HOOK says when the process ends itself: `log STEP` at that row of the log, `torn STEP` in the middle of writing it,
`save N` while save number N is being written, `saved N` right after it, `trace` while compiling, `close` in the last
wait. With `signal=SIGTERM` it is that signal instead of SIGKILL.
"""

import os
import pathlib
import signal
import sys

import jax
import numpy as np
import optax
from training_cases import HITS, TANH, examples

from tljax.checkpoints.run import RunCheckpoints
from tljax.objectives import cross_entropy
from tljax.plans import plan, rate
from tljax.training import fit, fit_many
from tljax.training.log import Log, _line

SETTINGS = {"steps": "60", "save_every": "7", "eval_every": "5", "log_every": "3", "stack": "0", "signal": "SIGKILL"}


def arm(hook, argument, number):
    """Make the process end itself where `hook` says; returns what `on_log` should call."""

    def end():
        os.kill(os.getpid(), number)

    rows = []

    def at_row(row):
        if hook == "log" and row["step"] == int(argument) and not rows:  # once: a second signal acts at once
            rows.append(row)
            end()

    if hook == "torn":
        add = Log.add

        def torn(self, row):
            if row["step"] == int(argument):
                with self._file.open("a") as out:
                    out.write(_line(row)[: len(_line(row)) // 2])
                end()
            add(self, row)

        Log.add = torn
    if hook in ("save", "saved"):
        save, count = RunCheckpoints.save, []

        def counted(self, *rest):
            save(self, *rest)
            count.append(1)
            if len(count) == int(argument):
                if hook == "saved":
                    self.wait()
                end()

        RunCheckpoints.save = counted
    if hook == "close":
        RunCheckpoints.close = lambda self: end()
    return at_row


def augment(key, batch):
    return batch._replace(x=batch.x + 0.1 * jax.random.normal(key, batch.x.shape))


def main(folder, *words):
    given = dict(word.split("=") for word in words if "=" in word)
    hook, argument, *_ = (*[word for word in words if "=" not in word], None, None)
    settings = SETTINGS | given
    listener = arm(hook, argument, signal.Signals[settings["signal"]])
    traced = []

    def apply(params, x, *, train=False, **rest):
        traced.append(train)
        if hook == "trace" and traced.count(True) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return TANH.apply(params, x, **rest)

    x, y = examples(200)
    model = TANH._replace(apply=apply)
    whole = {
        "optimizer": optax.adamw(optax.cosine_decay_schedule(0.1, int(settings["steps"])), weight_decay=0.01),
        "steps": int(settings["steps"]), "batch_size": 8, "metric": HITS, "ema": 0.9, "clip_norm": 1.0,
        "eval_every": int(settings["eval_every"]), "log_every": int(settings["log_every"]),
        "save_every": int(settings["save_every"]) or None, "augment": augment,
        "run_dir": pathlib.Path(folder) / "run", "on_log": [listener], "progress": False,
    }  # fmt: skip
    data = (cross_entropy(), plan(rate("head/**", 3.0)), (x[:150], y[:150]), (x[150:], y[150:]))
    if int(settings["stack"]):
        starts = jax.vmap(lambda key: TANH.init(key, x))(jax.random.split(jax.random.key(0), 2))
        result = fit_many(model, starts, *data, seeds=[1, 2], patience=6, subsets=[range(150), range(20)], **whole)
    else:
        result = fit(model, TANH.init(jax.random.key(0), x), *data, seed=1, **whole)
    leaves = jax.tree.leaves((result.params, result.last, result.best_value, result.best_step))
    np.savez(pathlib.Path(folder) / "result.npz", *map(np.asarray, leaves))
    (pathlib.Path(folder) / "history.txt").write_text(repr(result.history))


if __name__ == "__main__":
    main(*sys.argv[1:])
