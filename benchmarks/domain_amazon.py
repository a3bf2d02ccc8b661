"""Amazon reviews, positive or negative: all 12 pairs of books, DVDs, electronics and kitchenware, no target labels.

Bags of words, 5,000 counts c as log(1 + c); 2,000 labelled reviews of the source and 2,000 unlabelled ones of the
target, tested on all other reviews of the target, 3,586 to 5,945. One network throughout: 5000-100-2, ReLU, dropout 0.5
on the hidden layer, Adam 1e-3, 128 + 128 reviews a step, 400 steps, and the last step is reported. Nothing was tuned,
on the target or elsewhere. "logistic" is `tl.logistic` (C = 1) on the source's words; "DANN 2016" are the accuracies of
the paper for this representation (arXiv 1505.07818), whose hyper-parameters were chosen for each pair.

Methods that the result file has, with as many seeds, are not run again.

    python benchmarks/domain_amazon.py [--seeds 5] [--methods dann coral ...]
"""

import argparse
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from facts import add_output, data_folder, facts, output_of

import tljax as tl
from tljax import objectives as of
from tljax.checkpoints.run import write_atomically

RESULT = pathlib.Path(__file__).parent / "results" / "domain_amazon.json"
DOMAINS = ("books", "dvd", "electronics", "kitchen")
STEPS, BATCH, HIDDEN = 400, 128, 100
PAIRS = [(source, target) for source in DOMAINS for target in DOMAINS if source != target]
DANN_2016 = dict(zip(PAIRS, (78.4, 73.3, 77.9, 72.3, 75.4, 78.3, 71.3, 73.8, 85.4, 70.9, 74.0, 84.3)))
SOURCE_ONLY = "source only"

Domains = dict[str, tuple[np.ndarray, np.ndarray]]


def ce() -> tl.Term:
    """Cross-entropy on the source."""
    return tl.cross_entropy(stream="source")


def adversary() -> dict[str, Any]:
    """A small discriminator, and the paper's schedule over the whole run."""
    return {"discriminator": of.Discriminator(HIDDEN), "strength": of.warm_up(alpha=10, steps=STEPS)}


METHODS: dict[str, Callable[[], tl.Term]] = {
    SOURCE_ONLY: ce,
    "dann": lambda: ce() + of.dann(**adversary()),
    "coral": lambda: ce() + of.coral(),
    "dan": lambda: ce() + of.dan(linear=False),
    "mcc": lambda: ce() + of.mcc(),
    "dann+mcc": lambda: ce() + of.dann(**adversary()) + of.mcc(),
}


def reviews(part: str) -> Domains:
    """``log(1 + counts)`` `[N, 5000]` and labels `[N]` of every domain."""
    z, found = np.load(data_folder("text", "amazon_reviews.npz") / "amazon_reviews.npz"), {}
    for domain in DOMAINS:
        data, columns, starts, y = (z[f"{domain}_{part}_{what}"] for what in ("data", "indices", "indptr", "y"))
        x = np.zeros((len(y), int(z["n_features"])), np.float32)
        x[np.repeat(np.arange(len(y)), np.diff(starts.astype(np.int64))), columns] = np.log1p(data.astype(np.float32))
        found[domain] = x, y.astype(np.int32)
    return found


def accuracies(model: tl.Model, result: tl.Result, seeds: int, test: tuple[np.ndarray, np.ndarray]) -> list[float]:
    """In percent, of each seed's last step."""
    x, y = test
    answers = [np.asarray(tl.predict(model, result.of(i), x).logits).argmax(1) for i in range(seeds)]
    return [100 * float(np.mean(answer == y)) for answer in answers]


def measure(name: str, seeds: int, train: Domains, test: Domains) -> dict[str, Any]:
    """Accuracies of a method by pair (also within the source, for source only), a number for each seed."""
    model = tl.models.mlp((HIDDEN,), 2, dropout=0.5)
    starts = jax.vmap(lambda key: model.init(key, train["books"][0][:1]))(jax.random.split(jax.random.key(0), seeds))
    objective, optimizer, found = METHODS[name](), optax.adam(1e-3), {}
    for source, target in [(s, s) for s in DOMAINS] if name == SOURCE_ONLY else PAIRS:
        streams = {"source": train[source], "target": (train[target][0], None)}
        result = tl.fit_many(
            model, starts, objective, train={s: streams[s] for s in objective.streams}, optimizer=optimizer,
            seeds=range(seeds), steps=STEPS, batch_size=BATCH, progress=False,
        )  # fmt: skip
        for tested in DOMAINS if name == SOURCE_ONLY else (target,):
            found[f"{source}-{tested}"] = accuracies(model, result, seeds, test[tested])
    return found


def logistic(train: Domains, test: Domains) -> dict[str, list[float]]:
    """Accuracies by pair of a logistic regression on the source's words."""
    found = {}
    for source in DOMAINS:
        head = tl.logistic(*train[source])
        weights, bias = np.asarray(head.weights), np.asarray(head.bias)
        for target in DOMAINS:
            right = (test[target][0] @ weights + bias).argmax(1) == test[target][1]
            found[f"{source}-{target}"] = [100 * float(np.mean(right))]
    return found


def table(found: dict[str, Any]) -> str:
    """Means in percent, and the mean gain over source only with its 95 % interval over the pairs."""
    columns = list(found)
    lines = [f"{'':<28}" + "".join(f"{c:>12}" for c in columns) + f"{'DANN 2016':>12}"]
    for source, target in [*[(d, d) for d in DOMAINS], *PAIRS]:
        pair = f"{source}-{target}"
        row = "".join(f"{np.mean(found[c][pair]):.1f}".rjust(12) if pair in found[c] else f"{'':>12}" for c in columns)
        lines.append(f"{source} -> {target}".ljust(28) + row + f"{DANN_2016.get((source, target), ''):>12}")
    means = {c: np.array([np.mean(found[c][f"{s}-{t}"]) for s, t in PAIRS]) for c in columns}
    whole = "".join(f"{means[c].mean():.1f}".rjust(12) for c in columns)
    lines.append("mean of the 12 pairs".ljust(28) + whole + f"{np.mean(list(DANN_2016.values())):>12.1f}")
    for name in columns:
        if name not in ("logistic", SOURCE_ONLY):
            gain = tl.interval(means[name] - means[SOURCE_ONLY])
            worse = int(np.sum(means[name] < means[SOURCE_ONLY]))
            lines.append(
                f"{name}: gain {gain.mean:+.1f} ± {gain.half_width:.1f} over source only; below it in {worse} pairs"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="runs of a pair and method (default: 5)")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    add_output(parser, RESULT)
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error(f"--seeds must be 1 or more; found {options.seeds}")
    output = output_of(parser, options, RESULT, "seeds")
    before = kept(output, options.seeds)
    found, made = before.get("accuracy", {}), before.get("made", {})
    train, test = reviews("train"), reviews("test")
    for name in dict.fromkeys(["logistic", SOURCE_ONLY, *options.methods]):
        if name not in found:
            done = logistic(train, test) if name == "logistic" else measure(name, options.seeds, train, test)
            found[name], now = done, facts()
            made[name] = {"command": now["command"], "date": now["date"], "machine": now["machine"]}
            about = now | {"seeds": options.seeds, "made": made, "accuracy": found}
            write_atomically(output, json.dumps(about, indent=1) + "\n")
    print(table(found))


def kept(file: pathlib.Path, seeds: int) -> dict[str, Any]:
    """What was measured before with as many seeds: it is not measured again."""
    before = json.loads(file.read_text()) if file.exists() else {}
    return before if before.get("seeds") == seeds else {}


if __name__ == "__main__":
    main()
