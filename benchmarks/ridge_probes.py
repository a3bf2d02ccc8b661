"""1300 ridge probes, each with exact leave-one-out and test accuracy: one program beside loops over scikit-learn.

5 shot sizes x 20 draws x 13 strengths; up to 500 labelled examples of 10 classes, 512 features, 1000 test examples. The
features are drawn: class means and Gaussian noise around 1, whose variances fall as those of a network's features do,
as j^-1.5; that is what LogisticRegression needs hundreds of steps for. Round, well separated features take it ten.

    tljax         `tljax.probes.ridge_paths`: leave-one-out error and accuracy, and test accuracy, of all 1300
    ridge loop    scikit-learn RidgeClassifierCV, once a draw, over the 13 strengths; test accuracy of the chosen only
    logistic loop scikit-learn LogisticRegression, once a draw and strength, to convergence; test accuracy

The three take turns, size by size and round by round; the loop over LogisticRegression is timed on a stated sample of
the draws, all strengths each, and multiplied. Compilation stands in a column of its own.

    python benchmarks/ridge_probes.py [--rounds 3] [--sample 2]
"""

import argparse
import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from facts import facts
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV

from tljax.probes import ridge_paths
from tljax.probes.ridge import GRID

RESULT = pathlib.Path(__file__).parent / "results" / "ridge_probes.json"
SHOTS, DRAWS, CLASSES, WIDTH, TESTED = (1, 5, 10, 25, 50), 20, 10, 512, 1000


def features(seed: int = 0) -> tuple[np.ndarray, ...]:
    """Features and labels to draw from, and to test on."""
    rng = np.random.default_rng(seed)
    deviations = 3 * (1 + np.arange(WIDTH) / 4) ** -0.75
    means = 1 + 0.25 * rng.normal(size=(CLASSES, WIDTH)) * deviations
    y = np.arange(2000) % CLASSES
    x = (means[y] + rng.normal(size=(2000, WIDTH)) * deviations).astype(np.float32)
    return x[:1000], y[:1000], x[1000:], y[1000:]


def draws(y: np.ndarray) -> dict[int, np.ndarray]:
    """By shots the row numbers of every draw."""
    rng = np.random.default_rng(1)
    rows = {c: np.flatnonzero(y == c) for c in range(CLASSES)}
    return {
        k: np.stack([np.concatenate([rng.choice(rows[c], k, replace=False) for c in rows]) for _ in range(DRAWS)])
        for k in SHOTS
    }


def ours(data: tuple[np.ndarray, ...], subsets: np.ndarray) -> Any:
    """All draws of one size."""
    x, y, test, known = data
    return jax.block_until_ready(ridge_paths(x, y, subsets, test_features=test, test_labels=known))


def ridge_cv(data: tuple[np.ndarray, ...], rows: np.ndarray) -> float:
    """One draw."""
    x, y, test, known = data
    part = x[rows] - x[rows].mean(0)
    strengths = GRID * np.sum(np.square(part)) / min(part.shape)
    return float(RidgeClassifierCV(alphas=strengths).fit(x[rows], y[rows]).score(test, known))


def logistic_loop(data: tuple[np.ndarray, ...], rows: np.ndarray) -> list[float]:
    """One draw at every strength."""
    x, y, test, known = data
    heads = [LogisticRegression(C=c, max_iter=1000).fit(x[rows], y[rows]) for c in np.logspace(-3, 3, 13)]
    return [float(head.score(test, known)) for head in heads]


def seconds(call: Callable[[], Any]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def timed(data: tuple[np.ndarray, ...], rounds: int, sample: int) -> dict[str, Any]:
    """Medians over rounds of the time of all 1300, and compilation."""
    drawn = draws(data[1])
    first = {k: seconds(lambda k=k: ours(data, drawn[k])) for k in SHOTS}
    taken: dict[str, list[dict[int, float]]] = {
        name: [] for name in ("tljax", "RidgeClassifierCV", "LogisticRegression")
    }
    for done in range(rounds):
        rows: dict[str, dict[int, float]] = {name: {} for name in taken}
        for k in SHOTS:
            rows["tljax"][k] = seconds(lambda k=k: ours(data, drawn[k]))
            rows["RidgeClassifierCV"][k] = seconds(lambda k=k: [ridge_cv(data, each) for each in drawn[k]])
            some = [drawn[k][(done * sample + i) % DRAWS] for i in range(sample)]
            loop = seconds(lambda some=some: [logistic_loop(data, each) for each in some])
            rows["LogisticRegression"][k] = loop * DRAWS / sample
        for name, row in rows.items():
            taken[name].append(row)
    medians = {name: {str(k): statistics.median(row[k] for row in runs) for k in SHOTS} for name, runs in taken.items()}
    compiled = sum(max(0.0, first[k] - medians["tljax"][str(k)]) for k in SHOTS)
    return {"seconds": medians, "compile_seconds": {"tljax": compiled}, "rounds": rounds, "logistic_draws": sample}


def accuracies(data: tuple[np.ndarray, ...]) -> dict[str, dict[str, float]]:
    """Mean test accuracy at the strength that is chosen: both ridge loops must agree."""
    drawn, found = draws(data[1]), {}
    for k in SHOTS:
        paths = ours(data, drawn[k])
        chosen = np.asarray(paths.test_accuracy)[np.arange(DRAWS), paths.chosen]
        theirs = [ridge_cv(data, rows) for rows in drawn[k]]
        found[str(k)] = {"tljax": float(chosen.mean()), "RidgeClassifierCV": float(np.mean(theirs))}
    return found


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sample", type=int, default=2, help="draws that LogisticRegression is timed on, of 20")
    options = parser.parse_args()
    data = features()
    load = os.getloadavg()[0]
    found = timed(data, options.rounds, options.sample)
    totals = {name: sum(row.values()) for name, row in found["seconds"].items()}
    print(f"{'seconds by shots':<20}" + "".join(f"{k:>9}" for k in SHOTS) + f"{'all':>9}{'compile':>9}{'x tljax':>9}")
    for name, row in found["seconds"].items():
        compiled = found["compile_seconds"].get(name, 0.0)
        cells = "".join(f"{value:>9.3f}" for value in row.values())
        print(f"{name:<20}{cells}{totals[name]:>9.2f}{compiled:>9.2f}{totals[name] / totals['tljax']:>9.1f}")
    print(f"LogisticRegression: {options.sample} of {DRAWS} draws a round, multiplied")
    whole = facts("scikit-learn") | {"load_before": load, "totals": totals, **found}
    RESULT.write_text(json.dumps(whole | {"accuracy": accuracies(data)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
