"""What validators choose in runs that go wrong: entropy minimisation, ever stronger, on a target that has moved.

Sixteen pairs of domains are drawn: classes are Gaussian, and the target is shifted and turned against the source. One
run a pair and strength is evaluated every 20 steps, with all validators; the accuracy on the target at the step that
each of them would choose is compared with that at the last step, pair by pair.

    python benchmarks/validators.py [--pairs 16]
"""

import argparse
import json
import pathlib

import jax
import numpy as np
import optax
from facts import add_output, facts, output_of

import tljax as tl

RESULT = pathlib.Path(__file__).parent / "results" / "validators.json"
STRENGTHS = (0.3, 1.0, 3.0, 10.0)
CLASSES, WIDTH, EXAMPLES = 4, 8, 300
MODEL = tl.models.mlp((32,), num_classes=CLASSES)
OPTIMIZER = optax.sgd(0.1, momentum=0.9)
OBJECTIVES = {s: tl.cross_entropy(stream="source") + s * tl.objectives.entropy_minimization() for s in STRENGTHS}
CHOICES = {
    **{name: tl.validator(name) for name in tl.evaluation.VALIDATORS},
    "snd, at_least=0.9": tl.validator("snd", at_least=0.9),
}


def domains(seed: int) -> tuple[dict, dict]:
    """Training and validation data, by stream."""
    rng = np.random.default_rng(seed)
    means = 1.6 * rng.normal(size=(CLASSES, WIDTH))
    turn = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]

    def draw(moved: bool) -> tuple[np.ndarray, np.ndarray]:
        y = rng.integers(0, CLASSES, EXAMPLES)
        x = means[y] + rng.normal(size=(EXAMPLES, WIDTH))
        x = x + 2.4 * turn[:1] + 0.35 * x @ turn if moved else x
        return x.astype(np.float32), y.astype(np.int32)

    source, held_out, target, held_back = draw(False), draw(False), draw(True), draw(True)
    train = {"source": source, "target": (target[0], None)}
    return train, {"source": held_out, "target": held_back, "source_train": (source[0], None)}


def chosen(seed: int, strength: float) -> dict[str, float]:
    """The accuracy on the target at the last step, and at the step of every choice."""
    train, valid = domains(seed)
    start = MODEL.init(jax.random.key(seed), train["source"][0])
    result = tl.fit(
        MODEL, start, OBJECTIVES[strength], train=train, valid=valid, metric=tl.validator("im"), optimizer=OPTIMIZER,
        steps=400, eval_every=20, seed=seed, progress=False,
    )  # fmt: skip
    rows = [row for row in result.history if row["split"] == "valid"]
    found = {"last": rows[-1]["oracle_accuracy"]}
    for name, choice in CHOICES.items():
        values = [choice.value(row) for row in rows]
        best = int(np.argmax(np.where(np.isnan(values), -np.inf, values)))
        found[name] = rows[best]["oracle_accuracy"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=16, help="of domains, 2 or more (default: 16)")
    add_output(parser, RESULT)
    options, table = parser.parse_args(), {}
    pairs = options.pairs
    if pairs < 2:
        parser.error(f"--pairs must be 2 or more, for an interval of their differences; found {pairs}")
    output = output_of(parser, options, RESULT, "pairs")
    for strength in STRENGTHS:
        runs = [chosen(seed, strength) for seed in range(pairs)]
        last = [run["last"] for run in runs]
        print(f"\nstrength {strength:g}: accuracy on the target at the last step {100 * np.mean(last):.1f} %")
        table[str(strength)] = {"last": float(np.mean(last))}
        for name in CHOICES:
            gain = tl.paired_gain([run[name] for run in runs], last)
            mean = float(np.mean([run[name] for run in runs]))
            low, high = gain.interval.low, gain.interval.high
            table[str(strength)][name] = {"mean": mean, "gain": gain.mean, "low": low, "high": high}
            print(f"  {name:20} {100 * mean:5.1f} %  {100 * gain.mean:+5.1f} [{100 * low:+5.1f}, {100 * high:+5.1f}]")
    output.write_text(json.dumps(facts() | {"pairs": pairs, "accuracy": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
