"""Results of transfer runs that never ran, with the structure and the habits of real ones; and that they are sound."""

import json

import numpy as np
import pytest

T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Student's t for 95 % at n - 1 degrees of freedom, from a printed table, by n."""

GRAFT = """\
graft: 8 of 10 target leaves filled from the source, 29,798 of 30,123 parameters
  action         leaf         leaves  parameters
  loaded         backbone/**       8      29,798
  reinitialised  head/**           2         325
  dropped        head/**           2         325  reinit"""


def fake_results(
    *,
    seeds=5,
    shots=(1, 2, 5, 10),
    methods=("full", "scratch", "linear-probe", "knn"),
    classes=("5", "6", "7", "8", "9"),
    gain=0.06,
    judged=None,
    title="digits 0-4 → digits 5-9",
):
    """The results of a classification run; `classes=None` makes a regression run."""
    random = np.random.default_rng(7)
    judged = judged or methods[0]
    results = _facts(title, seeds, shots, methods, classes)
    for method in methods:
        for number in shots:
            for seed in range(seeds):
                make = _regression_cell if classes is None else _class_cell
                results["cells"].append(make(random, method, number, seed, classes, gain))
            if method != "knn":
                results["curves"].append(_curve(random, method, number, results))
    metric = "rmse" if classes is None else "accuracy"
    results["summary"] = [_summary(results, method, number, metric) for method in methods for number in shots]
    found = next(s["gain"] for s in results["summary"] if (s["method"], s["shots"]) == (judged, max(shots)))
    lead = {"helped": "Transfer helped", "hurt": "Transfer hurt (negative transfer)", "undecided": "Undecided"}
    sentence = (
        f"{lead[found['outcome']]}: {metric} changes by {abs(100 * found['mean']):.1f} points against training from "
        f"scratch (95 % interval of the gain, {seeds} paired seeds)."
    )
    results["verdict"] = {
        "outcome": found["outcome"], "sentence": sentence, "method": judged, "shots": max(shots), "metric": metric,
    }  # fmt: skip
    return json.loads(json.dumps(results))


def _facts(title, seeds, shots, methods, classes):
    names = None if classes is None else list(classes)
    source_names = None if classes is None else ["0", "1", "2", "3", "4"]
    return {
        "title": title,
        "source": {
            "name": "digits", "classes": source_names, "train": 541, "valid": 90, "test": 270, "input": [8, 8, 1],
            "test_metrics": {"rmse": 1.2, "r2": 0.9} if classes is None else {"accuracy": 0.9815, "macro_f1": 0.981},
            "seeds": 1, "steps": 600, "best_step": 450,
        },
        "target": {"name": "digits", "classes": names, "pool": 500, "valid": 100, "test": 300, "input": [8, 8, 1]},
        "model": {"name": "lenet", "parameters": 30123, "text": "lenet(width=16)\nconv 3×3, 16\ndense 64"},
        "graft": {"text": GRAFT, "counts": {"loaded": 8, "reinitialised": 2}},
        "protocol": {
            "seeds": seeds, "steps": 300, "batch_size": 32, "rates": [0.0003, 0.001, 0.003], "optimizer": "adamw",
            "chosen_by": f"{'rmse' if classes is None else 'accuracy'} on the validation split (100 examples), "
            "never the test split",
            "level": 0.95,
            "interval": "t-interval over seeds; a seed is a draw of labels, initialisation and data order",
        },
        "shots": list(shots), "methods": list(methods), "cells": [], "curves": [],
    }  # fmt: skip


def _skill(method, shots, gain):
    base = 0.55 + 0.36 * np.log(1 + shots) / np.log(11)
    lift = {"scratch": 0, "full": 1, "lp-ft": 1.1, "linear-probe": 0.7, "knn": 0.4}.get(method, 0.2)
    return base + gain * lift


def _class_cell(random, method, shots, seed, classes, gain):
    size = len(classes)
    skill = np.clip(_skill(method, shots, gain) + 0.02 * random.normal() + 0.05 * random.normal(size=size), 0.02, 0.99)
    confusion = np.zeros((size, size), int)
    each = 300 // size
    for true in range(size):
        others = np.arange(size) != true
        wrong = random.dirichlet(np.full(size - 1, 0.4)) * (1 - skill[true])
        chances = np.empty(size)
        chances[true], chances[others] = skill[true], wrong
        confusion[true] = random.multinomial(each, chances / chances.sum())
    recall = np.diagonal(confusion) / each
    precision = np.diagonal(confusion) / np.maximum(confusion.sum(0), 1)
    f1 = 2 * recall * precision / np.maximum(recall + precision, 1e-9)
    accuracy = np.diagonal(confusion).sum() / confusion.sum()
    nll = -np.log(accuracy) * 2 + 0.1
    return {
        "method": method, "shots": shots, "seed": seed,
        "rate": None if method == "knn" else float(random.choice([0.0003, 0.001, 0.003])),
        "best_step": None if method == "knn" else int(random.integers(2, 20) * 15),
        "valid": float(accuracy),
        "test": {
            "accuracy": float(accuracy), "macro_recall": float(recall.mean()),
            "macro_precision": float(precision.mean()), "macro_f1": float(f1.mean()),
            "worst_recall": float(recall.min()), "nll": float(nll), "brier": float(1 - accuracy) * 1.3,
            "ece": float(0.02 + 0.2 * (1 - accuracy)),
        },
        "worst_class": classes[int(recall.argmin())], "confusion": confusion.tolist(),
    }  # fmt: skip


def _regression_cell(random, method, shots, seed, classes, gain):
    rmse = 14.0 - 10 * _skill(method, shots, gain) + 0.2 * random.normal()
    return {
        "method": method, "shots": shots, "seed": seed, "rate": None if method == "knn" else 0.001,
        "best_step": None if method == "knn" else 150, "valid": float(rmse),
        "test": {"mae": float(0.8 * rmse), "rmse": float(rmse), "r2": float(1 - rmse**2 / 200)},
    }  # fmt: skip


def _curve(random, method, shots, results):
    steps = list(range(0, 301, 15))
    runs = [c for c in results["cells"] if c["method"] == method and c["shots"] == shots]
    lines, losses = [], []
    speed = {"full": 40, "scratch": 90, "linear-probe": 60}.get(method, 50)
    for i, run in enumerate(runs):
        start, end = (20.0, run["valid"]) if "rmse" in run["test"] else (1 / 5, run["valid"])
        shape = 1 - np.exp(-np.asarray(steps) / speed)
        line = start + (end - start) * shape + 0.01 * abs(end - start) * random.normal(size=len(steps))
        loss = 1.6 * np.exp(-np.asarray(steps) / speed) + 0.02
        stop = len(steps) if i % 3 else len(steps) - 5
        lines.append([float(v) if t < stop else None for t, v in enumerate(line)])
        losses.append([float(v) if 0 < t < stop else None for t, v in enumerate(loss)])
    key = "rmse" if "rmse" in runs[0]["test"] else "accuracy"
    return {"method": method, "shots": shots, "steps": steps, key: lines, "train_loss": losses}


def _interval(values):
    values = np.asarray(values)
    if len(values) < 2:
        return float(values.mean()), None
    return float(values.mean()), float(T_95[len(values)] * values.std(ddof=1) / np.sqrt(len(values)))


def _summary(results, method, shots, metric):
    def values(name, key):
        return [c["test"][key] for c in results["cells"] if c["method"] == name and c["shots"] == shots]

    metrics = {}
    for key in results["cells"][0]["test"]:
        mean, half = _interval(values(method, key))
        metrics[key] = {"mean": mean, "half_width": half}
    if method == "scratch":
        return {"method": method, "shots": shots, "metrics": metrics, "gain": None}
    sign = -1 if metric == "rmse" else 1
    differences = sign * (np.asarray(values(method, metric)) - np.asarray(values("scratch", metric)))
    mean, half = _interval(differences)
    low, high = (None, None) if half is None else (mean - half, mean + half)
    outcome = "undecided" if half is None or low <= 0 <= high else "helped" if low > 0 else "hurt"
    gain = {
        "over": "scratch", "mean": mean, "low": low, "high": high, "values": differences.tolist(), "outcome": outcome,
    }  # fmt: skip
    return {"method": method, "shots": shots, "metrics": metrics, "gain": gain}


@pytest.fixture(scope="module")
def results():
    return fake_results()


def test_the_metrics_of_a_fake_cell_are_those_of_its_confusion_matrix(results):
    for cell in results["cells"]:
        matrix = np.asarray(cell["confusion"])
        assert cell["test"]["accuracy"] == pytest.approx(matrix.trace() / matrix.sum())
        assert cell["test"]["worst_recall"] == pytest.approx((matrix.diagonal() / matrix.sum(1)).min())


def test_the_fake_summaries_cover_every_method_and_number_of_shots(results):
    assert len(results["summary"]) == len(results["methods"]) * len(results["shots"])
    assert len(results["cells"]) == len(results["summary"]) * results["protocol"]["seeds"]
