"""MNIST <-> USPS under TLlib's protocol: eleven published methods and sums of them, beside the published accuracies.

TLlib's LeNet, batches of 128 + 128 images, SGD with its momentum (Nesterov's but for MCD and AFN, whose backbones have
none), rates, schedules and hyper-parameters; from
scratch, without augmentation, 20 evaluations a run. USPS is enlarged from 16 to 28 pixels by Pillow's bicubic filter.
The published numbers are one run of 50,000 steps each, of which the best of 20 evaluations on the target's test set is
reported. Here that stands in a column of its own, "best on test", beside the last step and the steps that validators
choose without labels of the target: "im" and "snd" on 2,000 of its training images, "source" the accuracy on 2,000 test
images of the source.

With fewer steps the schedules stay as published, functions of the step that do not know the length of the run: then the
rates end higher, and gradient reversal, 0.99 after 5,000 steps, is weak for a larger part of the run. The source-only
training before BSP is 3 of 20 parts of a run, whatever its length.

Every cell, a method and a seed, is a file of its own in benchmarks/results/domain_digits, and is not run again where it
is there already; one that is stopped on its way begins anew. The digits lie in the folder that TLJAX_DATA_DIR names.

    python benchmarks/domain_digits.py [--steps 50000] [--direction mnist-usps] [--seeds 0 1] [--methods dann ...]
    python benchmarks/domain_digits.py --together                  # the whole table, on an accelerator
    python benchmarks/domain_digits.py --steps 5000 --table        # what is there, and what is missing
"""

import argparse
import functools
import json
import pathlib
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from domain_methods import METHODS, TO_MNIST, TO_USPS, Method, ce, optimizer, sgd
from domain_network import network
from facts import data_folder, facts
from PIL import Image

import tljax as tl
from tljax.checkpoints.run import write_atomically

CELLS = pathlib.Path(__file__).parent / "results" / "domain_digits"
EVALUATIONS, BATCH, HELD_OUT = 20, 128, 2000
CHOOSERS = {"last": None, "im": "im", "snd": "snd", "source": "source_accuracy", "best on test": "oracle_accuracy"}
"""The columns, and the number whose highest value chooses the step; the last step where there is none."""


class Data(NamedTuple):
    """A direction: images `[N, 28, 28, 1]` as bytes, and classes."""

    source: tuple[np.ndarray, np.ndarray]
    target: tuple[np.ndarray, None]
    valid: dict[str, Any]
    """2,000 test images of the source, 2,000 training images of the target, and "test", all test images of the
    target with their classes, which choose nothing but the column that says so."""


@functools.cache
def digits() -> dict[str, np.ndarray]:
    """Images and classes of both sets, ``mnist_train_x`` and so on."""
    folder = data_folder("digits", "usps.npz", "mnist_train.npz", "mnist_test.npz")
    usps, found = np.load(folder / "usps.npz"), {}
    for part in ("train", "test"):
        mnist = np.load(folder / f"mnist_{part}.npz")
        found[f"mnist_{part}_x"] = mnist["x"].reshape(-1, 28, 28, 1).astype(np.uint8)
        found[f"usps_{part}_x"] = np.stack([enlarged(image) for image in usps[f"{part}_x"].reshape(-1, 16, 16)])
        found[f"mnist_{part}_y"], found[f"usps_{part}_y"] = mnist["y"], usps[f"{part}_y"]
    return {name: a.astype(np.int32) if name.endswith("y") else a for name, a in found.items()}


def enlarged(image: np.ndarray) -> np.ndarray:
    """16x16 in 0..1 as bytes of 28x28, `[28, 28, 1]`."""
    bytes_ = Image.fromarray(np.round(255 * image).astype(np.uint8))
    return np.asarray(bytes_.resize((28, 28), Image.Resampling.BICUBIC))[:, :, None]


def domains(direction: str) -> Data:
    """The data of a direction, as ``"mnist-usps"``."""
    source, target = direction.split("-")
    d, rng = digits(), np.random.default_rng(0)
    known = rng.permutation(len(d[f"{source}_test_y"]))[:HELD_OUT]
    unknown = rng.permutation(len(d[f"{target}_train_y"]))[:HELD_OUT]
    valid = {
        "source": (d[f"{source}_test_x"][known], d[f"{source}_test_y"][known]),
        "target": (d[f"{target}_train_x"][unknown], None),
        "test": (d[f"{target}_test_x"], d[f"{target}_test_y"]),
    }
    return Data((d[f"{source}_train_x"], d[f"{source}_train_y"]), (d[f"{target}_train_x"], None), valid)


def train(method: Method, direction: str, steps: int, seeds: list[int]) -> list[dict[str, Any]]:
    """A run for each seed, several in one program, and what was measured at the evaluations of each."""
    data, model = domains(direction), network(method.network)
    objective, started, alone = method.objective(direction), time.perf_counter(), len(seeds) == 1
    starts = [model.init(jax.random.key(seed), data.source[0][:1]) for seed in seeds]
    params = starts[0] if alone else jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    fit = functools.partial(tl.fit, seed=seeds[0]) if alone else functools.partial(tl.fit_many, seeds=seeds)
    if method.before:
        first = sgd(1e-3, method.gamma, method.decay)
        count = method.before * steps // EVALUATIONS
        params = fit(
            model, params, ce(), train={"source": data.source}, optimizer=first, steps=count, batch_size=BATCH,
            progress=False,
        ).last  # fmt: skip
    streams = {"source": data.source, "target": data.target}
    result = fit(
        model, params, objective, train={name: streams[name] for name in objective.streams}, valid=data.valid,
        metric=tl.validator("im", oracle="test"), optimizer=optimizer(method, direction), steps=steps, batch_size=BATCH,
        eval_every=steps // EVALUATIONS, progress=False,
    )  # fmt: skip
    about = {
        "objective": str(objective), "seconds": time.perf_counter() - started,
        "milliseconds a step": 1000 * result.step_seconds,
    } | ({} if alone else {"seeds in one program": seeds})  # fmt: skip
    valid = [row for row in result.history if row["split"] == "valid"]
    return [about | {"evaluations": [own(row) for row in valid if row.get("run", i) == i]} for i in range(len(seeds))]


def own(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the log, without what is the same in all rows of a run."""
    return {name: value for name, value in row.items() if name not in ("split", "run")}


def file_of(direction: str, steps: int, name: str, seed: int) -> pathlib.Path:
    """Where a cell is kept."""
    return CELLS / f"{direction}_{steps}_{name}_{seed}.json"


def run(direction: str, steps: int, name: str, seeds: list[int]) -> None:
    """Run the cells of some seeds, in one program if there are several, and keep them."""
    listed = " ".join(map(str, seeds))
    command = f"python benchmarks/domain_digits.py --steps {steps} --direction {direction} --methods {name}"
    known = facts(command=f"{command} --seeds {listed}" + " --together" * (len(seeds) > 1))
    CELLS.mkdir(parents=True, exist_ok=True)
    for seed, found in zip(seeds, train(METHODS[name], direction, steps, seeds), strict=True):
        about = known | {"direction": direction, "method": name, "steps": steps, "seed": seed} | found
        write_atomically(file_of(direction, steps, name, seed), json.dumps(about, indent=1) + "\n")
        shown = "  ".join(f"{column} {100 * chosen(about, column):.1f}" for column in CHOOSERS)
        print(f"{name:<10} seed {seed}  {found['seconds']:6.0f} s  {shown}", flush=True)


def chosen(cell: dict[str, Any], column: str) -> float:
    """The accuracy on the target's test set at the step that the column's rule chooses, the first of equal ones.

    The start, which is evaluated too, is not chosen from.
    """
    rows, rule = [row for row in cell["evaluations"] if row["step"]], CHOOSERS[column]
    row = rows[-1] if rule is None else max(rows, key=lambda row: row[rule])
    return row["oracle_accuracy"]


def kept(direction: str, steps: int, names: Iterable[str], seeds: Iterable[int]) -> list[dict[str, Any]]:
    """The cells that there are."""
    files = [file_of(direction, steps, name, seed) for name in names for seed in seeds]
    return [read(file) for file in files if file.exists()]


def read(file: pathlib.Path) -> dict[str, Any]:
    """A cell; raises `SystemExit`, which names the file, where it is damaged."""
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise SystemExit(f"{file} is damaged ({error}); delete it, and the cell is run again") from error


def table(
    cells: Collection[Mapping[str, Any]], direction: str, steps: int, names: Collection[str] = (*METHODS,),
    seeds: Collection[int] = range(5),
) -> str:  # fmt: skip
    """Means over the seeds of `cells` with half of a 95 % interval, and which of `names` and `seeds` are missing."""
    lines = [
        f"{direction}, {steps} steps" + ("" if steps == 50_000 else " (published: 50000)") + ", accuracy in percent",
        f"{'method':<10}{'seeds':>6}" + "".join(f"{column:>15}" for column in CHOOSERS) + f"{'published':>11}",
    ]
    missing: list[str] = []
    for name in names:
        own_cells = {cell["seed"]: cell for cell in cells if cell["method"] == name and cell["seed"] in seeds}
        missing += [f"{name} {seed}" for seed in seeds if seed not in own_cells]
        if not own_cells:
            continue
        row = f"{name:<10}{len(own_cells):>6}"
        for column in CHOOSERS:
            found = tl.interval([100 * chosen(cell, column) for cell in own_cells.values()])
            row += f"{found.mean:.1f}{'' if len(own_cells) == 1 else f' ± {found.half_width:.1f}'}".rjust(15)
        lines.append(row + f"{METHODS[name].published.get(direction, '-'):>11}")
    lines.append(f"not run (method seed): {', '.join(missing) or 'none'}")
    return "\n".join(lines)


def main() -> None:
    """Run the cells that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--direction", choices=(TO_USPS, TO_MNIST), default=TO_USPS)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--together", action="store_true", help="all seeds of a method in one program: on accelerators")
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args()
    if options.steps < EVALUATIONS or options.steps % EVALUATIONS:
        parser.error(f"--steps must be a multiple of {EVALUATIONS}, and not 0; found {options.steps}")
    if min(options.seeds) < 0:
        parser.error(f"--seeds must be 0 or more; found {min(options.seeds)}")
    for group in [options.seeds] if options.together else [[seed] for seed in options.seeds]:
        for name in options.methods:
            missing = [seed for seed in group if not file_of(options.direction, options.steps, name, seed).exists()]
            if missing and not options.table:
                run(options.direction, options.steps, name, missing)
    asked = (options.direction, options.steps, options.methods, options.seeds)
    print(table(kept(*asked), *asked))


if __name__ == "__main__":
    main()
