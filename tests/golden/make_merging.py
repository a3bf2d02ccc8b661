"""Reference values for merging, in NumPy and float64, from the definitions: `merging.json`.

python tests/golden/make_merging.py        # writes the file
"""

import json
import math
import pathlib

import numpy as np


def ties(vectors: np.ndarray, density: float) -> np.ndarray:
    kept = np.zeros_like(vectors)
    for row, vector in zip(kept, vectors):
        largest = np.argsort(-np.abs(vector), kind="stable")[: int(len(vector) * density)]
        row[largest] = vector[largest]
    sign = np.sign(kept.sum(0))
    sign[sign == 0] = np.sign(kept.sum())
    agree = np.where(sign > 0, kept > 0, kept < 0)
    return (kept * agree).sum(0) / np.maximum(agree.sum(0), 1)


def slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    angle = math.acos(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def regmean(inputs: list[np.ndarray], weights: list[np.ndarray], scale: float) -> np.ndarray:
    grams = [x.T @ x / len(x) for x in inputs]
    grams = [scale * g + (1 - scale) * np.diag(np.diag(g)) for g in grams]
    return np.linalg.solve(sum(grams), sum(g @ w for g, w in zip(grams, weights)))


def values() -> dict:
    rng = np.random.default_rng(21)
    vectors = rng.standard_normal((3, 10)).round(3)
    a, b = rng.standard_normal(5).round(3), rng.standard_normal(5).round(3)
    fa, fb = rng.random(5).round(3), rng.random(5).round(3)
    inputs = [rng.standard_normal((20, 3)).round(3) for _ in range(2)]
    weights = [rng.standard_normal((3, 2)).round(3) for _ in range(2)]
    found = {
        "task_vectors": vectors,
        "ties_density0_2_lambda1": ties(vectors, 0.2),
        "ties_density0_5_lambda1": ties(vectors, 0.5),
        "task_arithmetic_sum_lambda0_4": 0.4 * vectors.sum(0),
        "va": a,
        "vb": b,
        "slerp_t0_3": slerp(a, b, 0.3),
        "fisher_a": fa,
        "fisher_b": fb,
        "fisher_merge_equal": (fa * a + fb * b) / (fa + fb),
        "regmean_x": np.stack(inputs),
        "regmean_w": np.stack(weights),
        "regmean_reduce1_0": regmean(inputs, weights, 1.0),
        "regmean_reduce0_9": regmean(inputs, weights, 0.9),
    }
    return {name: array.tolist() for name, array in found.items()}


if __name__ == "__main__":
    pathlib.Path(__file__).with_name("merging.json").write_text(json.dumps(values(), indent=1) + "\n")
