"""LogME of 10,000 x 512 features and 100 classes: ours against the published fixed point, written in NumPy from its
formula: one decomposition, then a loop over the classes. Interleaved; medians; JSON beside this file.

    OPENBLAS_NUM_THREADS=1 python benchmarks/logme_speed.py

Both use one thread for linear algebra when told so, which on a busy machine is the only fair comparison.
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import time
from collections.abc import Callable

import numpy as np
from facts import facts

from tljax import scores

ROOT = pathlib.Path(__file__).parent


def published(features: np.ndarray, labels: np.ndarray) -> float:
    """You et al. 2022, algorithm 3, in float64: alpha and beta from 1, at most 11 rounds, until their ratio rests."""
    f = features.astype(np.float64)
    n, d = f.shape
    _, squares, vt = np.linalg.svd(f.T @ f)
    s = np.sqrt(squares)
    kept = s > 1e-10
    u, energy = (f @ vt.T[:, kept]) / s[kept], s[kept] ** 2
    found = []
    for c in range(int(labels.max()) + 1):
        t = (labels == c).astype(np.float64)
        x2 = (u.T @ t) ** 2
        rest = t @ t - x2.sum()
        alpha = beta = 1.0
        for _ in range(11):
            ratio = alpha / beta
            gamma = (energy / (energy + ratio)).sum()
            m2 = (energy * x2 / (ratio + energy) ** 2).sum()
            residual = (x2 / (1 + energy / ratio) ** 2).sum() + rest
            alpha, beta = gamma / (m2 + 1e-5), (n - gamma) / (residual + 1e-5)
            value = d * math.log(alpha) + n * math.log(beta) - np.log(alpha + beta * energy).sum()
            value -= beta * residual + alpha * m2 + n * math.log(2 * math.pi)
            if abs(alpha / beta - ratio) / ratio <= 1e-3:
                break
        found.append(value / 2 / n)
    return float(np.mean(found))


def optimum(features: np.ndarray, labels: np.ndarray) -> float:
    """The greatest evidence by a fine search in float64, class by class."""
    f = features.astype(np.float64)
    n = len(f)
    u, s, _ = np.linalg.svd(f, full_matrices=False)
    energy, found = s**2, []
    for c in range(int(labels.max()) + 1):
        t = (labels == c).astype(np.float64)
        x2 = (u.T @ t) ** 2
        rest, middle, half = t @ t - x2.sum(), math.log(energy[0]), 40.0
        for _ in range(8):
            grid = np.linspace(middle - half, middle + half, 401)
            share = energy[None] / np.exp(grid)[:, None]
            q = rest + (x2[None] / (1 + share)).sum(1)
            values = -0.5 * (math.log(2 * math.pi) + 1 + np.log(q / n) + np.log1p(share).sum(1) / n)
            middle, half = grid[values.argmax()], half / 100
        found.append(values.max())
    return float(np.mean(found))


def timed(call: Callable[[], float]) -> tuple[float, float, float]:
    """The value, the seconds on the wall, and those of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    value = call()
    return value, time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--out", type=pathlib.Path, default=ROOT / "results/logme_speed.json")
    chosen = options.parse_args()
    rng = np.random.default_rng(0)
    labels = np.arange(10_000) % 100
    means = rng.normal(size=(100, 512))
    features = np.maximum(0.5 * means[labels] + rng.normal(size=(10_000, 512)), 0).astype(np.float32)
    ways = {
        "tljax": lambda: scores.logme(features, labels, center=False),
        "published": lambda: published(features, labels),
    }
    values = {name: way() for name, way in ways.items()}  # compiles
    values["optimum"] = optimum(features, labels)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(chosen.repeats):
        for name, way in ways.items():
            times[name].append(timed(way)[1:])
    seconds = {name: statistics.median(wall for wall, _ in found) for name, found in times.items()}
    processor = {name: statistics.median(cpu for _, cpu in found) for name, found in times.items()}
    ratios = [theirs[0] / ours[0] for ours, theirs in zip(times["tljax"], times["published"])]
    result = facts() | {
        "threads": os.environ.get("OPENBLAS_NUM_THREADS", "all"),
        "median_seconds": seconds,
        "median_processor_seconds": processor,
        "median_ratio": statistics.median(ratios),
        "values": values,
        "apart_from_optimum": abs(values["tljax"] - values["optimum"]),
    }
    chosen.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
