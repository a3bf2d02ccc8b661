"""Regularised against plain fine-tuning: an ImageNet MobileNet on PACS, at 15, 30, 50 and 100 % of the labels.

    python benchmarks/regularisers.py tune
    python benchmarks/regularisers.py table [--seeds 5] [--run-dir DIR] [--minutes 45]

PACS is a cut of four domains (art, cartoon, photo, sketch) with seven classes and 64x64 pixels, 1120 images. A seed
halves them into a pool of labels and a test part, every class and domain alike, and draws nested subsets of the pool.
Every run starts at the best head on frozen features (LP-FT), and has the same optimiser, rate, steps and augmentation;
each method has its published weight. The stem and the first five blocks, on the large maps, stay frozen, to save time.
The accuracy is that of the last step on the test part. Nothing is chosen there: the rate is plain fine-tuning's best on
another draw, which `tune` tells.

"table" writes a file for every method and seed, goes on where it was, and stops at `--minutes`; it prints the table of
the seeds that all methods begun have, with the gain over plain fine-tuning, and writes it as JSON. Data and weights
stand in the folder named by TLJAX_DATA_DIR.
"""

import argparse
import json
import pathlib
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from facts import add_output, data_folder, facts, output_of

import tljax as tl
from tljax.data.augment import chain, random_crop, random_flip

RESULTS = pathlib.Path(__file__).parent / "results" / "regularisers.json"
DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
SHARES = (15, 30, 50, 100)
STEPS, BATCH, RATE = 80, 16, 0.003
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
LAYERS = tuple(f"backbone/block_{i:02d}/conv" for i in (6, 8, 10, 12))
METHODS = ("fine-tuning", "l2-sp", "delta", "bss", "lwf", "co-tuning")
PLAN = tl.plan(tl.freeze(["backbone/stem/**", "backbone/block_0[0-4]/**"]))
AUGMENT = chain(random_flip(), random_crop(6))


class Source(NamedTuple):
    """The pretrained model with a head for PACS, and what it was."""

    model: tl.Model
    params: Any
    whole: Any
    """With the model of the 1000 classes: `(model, params)`."""


class Split(NamedTuple):
    """A seed's data."""

    x: np.ndarray
    y: np.ndarray
    subsets: list[np.ndarray]
    """For each share the rows of the pool."""
    test: tuple[np.ndarray, np.ndarray]


def load() -> tuple[Source, np.ndarray, np.ndarray, np.ndarray]:
    """The source, the images `[1120, 64, 64, 3]`, their classes, and their cells (class and domain)."""
    weights = (
        data_folder("checkpoints/mobilenetv1_025", "mobilenetV1X0.25_pretrain.tar") / "mobilenetV1X0.25_pretrain.tar"
    )
    whole = tl.load_pretrained(weights)
    own = tl.load_pretrained(weights, num_classes=7)
    with np.load(data_folder("images", "pacs64.npz") / "pacs64.npz") as d:
        x = np.concatenate([d[f"{name}_x"] for name in DOMAINS])
        y = np.concatenate([d[f"{name}_y"] for name in DOMAINS]).astype(np.int32)
    domain = np.repeat(np.arange(4), len(y) // 4)
    source = Source(own.model, own.params, (whole.model, whole.params))
    return source, (x.astype(np.float32) / 255 - MEAN) / STD, y, domain * 7 + y


def split(x: np.ndarray, y: np.ndarray, cell: np.ndarray, seed: int) -> Split:
    """Half of every cell is the pool; its subsets are nested, and balanced over classes first, then over domains."""
    order = np.random.default_rng(seed).permutation(len(y))
    place = np.empty(len(y), int)
    for c in np.unique(cell):
        rows = order[cell[order] == c]
        place[rows] = np.arange(len(rows))
    pool = np.flatnonzero(place < 20)
    ranked = np.lexsort((np.random.default_rng(seed + 1000).permutation(len(pool)), place[pool]))
    subsets = [np.sort(ranked[: round(len(pool) * share / 100)]) for share in SHARES]
    test = np.flatnonzero(place >= 20)
    return Split(x[pool], y[pool], subsets, (x[test], y[test]))


def starts(source: Source, data: Split, shares: list[int]) -> Any:
    """The pretrained parameters with the best head on frozen features for the labels of each share, stacked."""
    heads = [
        tl.closed_form_head(source.model, source.params, (data.x[data.subsets[i]], data.y[data.subsets[i]]))[0]
        for i in shares
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *heads)


def objective(method: str, source: Source, data: Split, rows: np.ndarray) -> tl.Term:
    """The objective of `method` with its published weights, for the labels `rows`."""
    if method == "fine-tuning":
        return tl.cross_entropy()
    if method == "l2-sp":
        return tl.cross_entropy() + 0.01 * tl.l2_sp(source.params)
    if method == "delta":
        return tl.cross_entropy() + 0.01 * tl.delta(source.params, LAYERS)
    if method == "bss":
        return tl.cross_entropy() + 1e-3 * tl.bss()
    head = source.whole[1]["head"]
    if method == "lwf":
        return tl.cross_entropy() + 4.0 * tl.lwf(source.params, head)
    logits = tl.predict(*source.whole, data.x[rows], batch_size=140).logits
    return tl.cross_entropy() + 2.3 * tl.co_tuning(tl.recipes.category_relationship(logits, data.y[rows]), head)


def optimizer(method: str) -> optax.GradientTransformation:
    """SGD with Nesterov's momentum; decay, but for the two that decay themselves; a tenth of the rate after 60 %."""
    schedule = optax.piecewise_constant_schedule(RATE, {int(0.6 * STEPS): 0.1})
    decay = 0.0 if method in ("l2-sp", "delta") else 5e-4
    return optax.chain(optax.add_decayed_weights(decay), optax.sgd(schedule, momentum=0.9, nesterov=True))


def run(method: str, source: Source, data: Split, seed: int, shared: dict[str, Any]) -> list[float]:
    """The test accuracies at all shares; what depends on no label is compiled once, and kept in `shared`."""
    groups = [[i] for i in range(len(SHARES))] if method == "co-tuning" else [list(range(len(SHARES)))]
    made = shared.setdefault(f"{method} optimizer", optimizer(method))
    found = []
    for group in groups:
        rows = data.subsets[group[0]]
        term = objective(method, source, data, rows) if len(groups) > 1 else None
        term = term or shared.setdefault(method, objective(method, source, data, rows))
        result = tl.fit_many(
            source.model, starts(source, data, group), term, PLAN, (data.x, data.y), optimizer=made,
            seeds=[seed] * len(group), subsets=[data.subsets[i] for i in group], steps=STEPS, batch_size=BATCH,
            augment=AUGMENT, log_every=STEPS, progress=False,
        )  # fmt: skip
        for i in range(len(group)):
            found.append(tl.evaluate(source.model, result.of(i), data.test, batch_size=140)["accuracy"])
    return [float(value) for value in found]


def frozen_probe(source: Source, data: Split) -> list[float]:
    """Ridge regression on the frozen features, at all shares."""
    pool, test = (tl.predict(source.model, source.params, x, batch_size=140).features for x in (data.x, data.test[0]))
    heads = [tl.ridge(pool[rows], data.y[rows]) for rows in data.subsets]
    return [float(np.mean(np.argmax(head.predict(test), -1) == data.test[1])) for head in heads]


def table(options: argparse.Namespace) -> None:
    """Run what is missing, seed by seed, print and write."""
    began, folder = time.monotonic(), pathlib.Path(options.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    source, *arrays = load()
    shared: dict[str, Any] = {}
    for seed in range(options.seeds):
        data = split(*arrays, seed)
        for method in ("frozen probe", *METHODS):
            file = folder / f"{method}-{seed}.json"
            if file.exists():
                continue
            if time.monotonic() - began > 60 * options.minutes:
                report(folder, options)
                return
            at = time.monotonic()
            accuracies = frozen_probe(source, data) if method == "frozen probe" else run(
                method, source, data, seed, shared
            )  # fmt: skip
            file.write_text(json.dumps({"accuracies": accuracies, "seconds": time.monotonic() - at}))
            print(seed, method, [f"{100 * a:.1f}" for a in accuracies], f"{time.monotonic() - at:.0f} s", flush=True)
    report(folder, options)


def plain(found: tl.evaluation.Interval) -> dict[str, float | None]:
    """An interval as JSON values; of one seed it has no bounds."""
    return {name: None if np.isnan(value) else value for name, value in found._asdict().items()}


def report(folder: pathlib.Path, options: argparse.Namespace) -> None:
    """The table of the methods that are begun, of the seeds that all of them have."""
    methods = [m for m in ("frozen probe", *METHODS) if (folder / f"{m}-0.json").exists()]
    whole = [s for s in range(options.seeds) if all((folder / f"{m}-{s}.json").exists() for m in methods)]
    if "fine-tuning" not in methods or not whole:
        print("nothing to compare yet")
        return
    read = {m: [json.loads((folder / f"{m}-{s}.json").read_text()) for s in whole] for m in methods}
    values = {m: np.array([cell["accuracies"] for cell in cells]) for m, cells in read.items()}
    rows = []
    for method in methods:
        for i, share in enumerate(SHARES):
            gain = tl.paired_gain(values[method][:, i], values["fine-tuning"][:, i])
            rows.append({
                "method": method, "labels": share, "accuracies": values[method][:, i].tolist(),
                "mean": plain(tl.interval(values[method][:, i])), "gain": plain(gain.interval),
            })  # fmt: skip
        cells = [row for row in rows if row["method"] == method]
        text = [f"{100 * c['mean']['mean']:.1f} ({100 * c['gain']['mean']:+.1f})" for c in cells]
        print(f"| {method} | {' | '.join(text)} | {100 * values[method].mean():.1f} |")
    found = facts() | {
        "settings": {"steps": STEPS, "batch_size": BATCH, "rate": RATE, "seeds": whole},
        "seconds": {m: [round(cell["seconds"], 1) for cell in cells] for m, cells in read.items()},
        "table": rows,
    }  # fmt: skip
    options.output.write_text(json.dumps(found, indent=1) + "\n")


def tune() -> None:
    """The test accuracies of plain fine-tuning on another draw, at several rates and half of the labels."""
    source, *arrays = load()
    data, rates = split(*arrays, 100), (0.3, 1.0, 3.0)
    result = tl.fit_many(
        source.model, starts(source, data, [2] * len(rates)), tl.cross_entropy(), PLAN, (data.x, data.y),
        optimizer=optimizer("fine-tuning"), seeds=[100] * len(rates), rates=rates,
        subsets=[data.subsets[2]] * len(rates), steps=STEPS, batch_size=BATCH, augment=AUGMENT, log_every=STEPS,
        progress=False,
    )  # fmt: skip
    for i, rate in enumerate(rates):
        print(RATE * rate, tl.evaluate(source.model, result.of(i), data.test, batch_size=140)["accuracy"])


def main() -> None:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("tune", "table"))
    parser.add_argument("--seeds", type=int, default=5, help="draws of labels (default: 5)")
    parser.add_argument("--run-dir", default="runs/regularisers", help="of what is there already nothing is run again")
    parser.add_argument("--minutes", type=float, default=45, help="after which no further run is begun (default: 45)")
    add_output(parser, RESULTS)
    options = parser.parse_args()
    options.output = output_of(parser, options, RESULTS, "seeds", "run_dir")
    if options.which == "tune":
        tune()
    else:
        table(options)


if __name__ == "__main__":
    main()
