"""What huge pages from the C library are worth on CPU: steps of `tl.fit` with and without them.

XLA takes the working memory of each launch anew from the C library, and Linux clears it page by page. glibc 2.35 and
newer ask the system for huge pages where the variable of the environment below says so. Every measurement is a fresh
process of one thread; the two ways take turns; medians of milliseconds a step (of each process the best of three fits)
and of the most memory used.

    taskset -c 0 python benchmarks/huge_pages.py [--rounds 3] [--models mlp resnet18 vit-s minilm]
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys

import jax
import optax
from against_torch.cases import CASES, data
from facts import facts

import tljax as tl
from tljax.evaluation.report.text import aligned

RESULT = pathlib.Path(__file__).parent / "results" / "huge_pages.json"
TUNABLES = "glibc.malloc.hugetlb=1"
WAYS = {"usual": {}, "huge pages": {"GLIBC_TUNABLES": TUNABLES}}
THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
ONE = {"XLA_FLAGS": THREAD, "JAX_PLATFORMS": "cpu"}
STEPS = {"mlp": 400, "resnet18": 12, "vit-s": 6, "minilm": 6}


def child(name: str) -> None:
    """Times a model's steps in this process."""
    case, steps = CASES[name], STEPS[name]
    x, y = data(case, name, 8 * case.batch)
    model = case.build()
    params = jax.jit(model.init)(jax.random.key(0), jax.tree.map(lambda part: part[:1], x))
    seconds = [
        tl.fit(
            model, params, tl.cross_entropy(), train=(x, y), optimizer=optax.adamw(1e-4), batch_size=case.batch,
            steps=steps, progress=False,
        ).training_seconds
        for _ in range(4)
    ]  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"milliseconds": 1000 * min(seconds[1:]) / steps, "megabytes": peak}))


def run(name: str, way: str) -> dict[str, float]:
    """What a fresh process measures."""
    env = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"} | ONE | WAYS[way]
    done = subprocess.run([sys.executable, __file__, "--child", name], env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=pathlib.Path, default=RESULT)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return
    rows = {}
    for name in options.models:
        found = [{way: run(name, way) for way in WAYS} for _ in range(options.rounds)]
        row = {
            kind: {way: statistics.median(f[way][kind] for f in found) for way in WAYS}
            for kind in ("milliseconds", "megabytes")
        }
        ratios = [f["huge pages"]["milliseconds"] / f["usual"]["milliseconds"] for f in found]
        rows[name] = row | {"ratio": statistics.median(ratios), "in pairs": [min(ratios), max(ratios)]}
    about = {"GLIBC_TUNABLES": TUNABLES, "threads": 1, "rounds": options.rounds, "rows": rows}
    options.output.write_text(json.dumps(facts() | about, indent=1) + "\n")
    print(table(rows))


def table(rows: dict) -> str:
    """The rows as text."""
    head = ["model", "usual", "huge pages", "ratio", "in pairs", "MB usual", "MB huge pages"]
    lines = [
        [
            name, *(f"{row['milliseconds'][way]:.1f}" for way in WAYS), f"{row['ratio']:.2f}",
            "{:.2f} to {:.2f}".format(*row["in pairs"]), *(f"{row['megabytes'][way]:.0f}" for way in WAYS),
        ]
        for name, row in rows.items()
    ]  # fmt: skip
    return aligned([head, *lines])


if __name__ == "__main__":
    main()
