"""Write ridge.json: exact leave-one-out predictions of ridge regression, in float64 NumPy.

    python tests/golden/make_ridge.py

Every example is really left out and the equations solved again without it; nothing is shared with the library. The
features are drawn by `case`; those called "tiny", "imbalanced" and "wide" are the cases of these names in the
project's reference vectors, whose scores were computed from a decomposition.
"""

import json
import math
import pathlib

import numpy as np

CASES = {
    "tiny": {"seed": 4, "counts": [3, 3, 3], "dim": 4, "sep": 1.0},
    "imbalanced": {"seed": 1, "counts": [30, 10, 5], "dim": 8, "sep": 0.8},
    "wide": {"seed": 2, "counts": [6, 6, 6, 6], "dim": 40, "sep": 0.7},
}
STRENGTHS = (0.1, 1.0, 10.0)


def case(seed, counts, dim, sep):
    """Features around class means, mixed; and classes."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(counts)), counts)
    y = y[rng.permutation(len(y))]
    mu = sep * rng.standard_normal((len(counts), dim))
    mix = np.eye(dim) + 0.5 * rng.standard_normal((dim, dim)) / math.sqrt(dim)
    return mu[y] + rng.standard_normal((len(y), dim)) @ mix, y


def fitted(x, t, strength):
    """Weights and intercept from the normal equations, the intercept as a column that is not penalised."""
    full = np.concatenate([x, np.ones((len(x), 1))], 1)
    penalty = np.diag([strength] * x.shape[1] + [0.0])
    both = np.linalg.solve(full.T @ full + penalty, full.T @ t)
    return both[:-1], both[-1]


def left_out(x, y, strength):
    t = 2.0 * np.eye(y.max() + 1)[y] - 1.0
    rows = []
    for i in range(len(x)):
        keep = np.arange(len(x)) != i
        w, b = fitted(x[keep], t[keep], strength)
        rows.append(x[i] @ w + b)
    return np.array(rows), t


def scores():
    found = {}
    for name, recipe in CASES.items():
        x, y = case(**recipe)
        found[name] = {"input_sum": float(x.sum()), "strengths": []}
        for strength in STRENGTHS:
            loo, t = left_out(x, y, strength)
            w, b = fitted(x, t, strength)
            k = np.arange(1, loo.size + 1)
            found[name]["strengths"].append(
                {
                    "strength": strength,
                    "accuracy": float((loo.argmax(1) == y).mean()),
                    "mse": float(((t - loo) ** 2).mean()),
                    "loo_sum": float(loo.sum()),
                    "loo_weighted": float((loo.ravel() * np.cos(k)).sum()),
                    "first": loo[0].tolist(),
                    "weights_norm": float(np.linalg.norm(w)),
                    "bias": b.tolist(),
                }
            )
    return found


if __name__ == "__main__":
    file = pathlib.Path(__file__).with_name("ridge.json")
    file.write_text(json.dumps(scores(), indent=1) + "\n")
