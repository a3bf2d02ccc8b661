"""The inputs of the golden scores, drawn as tests/golden/transferability_scores.json says."""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

GOLDEN = json.loads((pathlib.Path(__file__).parents[1] / "golden/transferability_scores.json").read_text())


class Case(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    probabilities: np.ndarray


def classes(counts: list[int], dim: int, n_source: int, seed: int, sep: float, relu: bool) -> Case:
    """Gaussian classes in a common shape, and the probabilities of a random head on them."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(counts)), counts)
    y = y[rng.permutation(len(y))]
    means = sep * rng.standard_normal((len(counts), dim))
    shape = np.eye(dim) + 0.5 * rng.standard_normal((dim, dim)) / np.sqrt(dim)
    x = means[y] + rng.standard_normal((len(y), dim)) @ shape
    x = np.maximum(x, 0) if relu else x
    logits = x @ (rng.standard_normal((dim, n_source)) / np.sqrt(dim))
    p = np.exp(logits - logits.max(1, keepdims=True))
    return Case(x, y, p / p.sum(1, keepdims=True))


def numbers(n: int, dim: int, n_target: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and targets that are linear in them, with noise."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, dim))
    weights = rng.standard_normal((dim, n_target)) / np.sqrt(dim)
    return x, x @ weights + 0.3 * rng.standard_normal((n, n_target))


def case(name: str, dtype: Any = np.float32) -> Case:
    drawn = classes(**GOLDEN["classification"][name]["recipe"])
    return Case(drawn.x.astype(dtype), drawn.y, drawn.probabilities.astype(dtype))
