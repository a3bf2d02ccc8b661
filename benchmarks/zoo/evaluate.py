"""How well each method ranks the candidates of the zoo, beside the ground truth of fine-tuning.

    python benchmarks/zoo/evaluate.py [--run-dir runs/zoo]

Reads the ground truth of the run folder (or, without one, that of the kept result) and the scores in
benchmarks/results/zoo_scores.npz; prints the table and writes benchmarks/results/zoo.json. No training.
"""

import argparse
import datetime
import itertools
import json
import os
import pathlib
import platform
import sys
from typing import Any, NamedTuple

import numpy as np

RESULTS = pathlib.Path(__file__).parents[1] / "results"
OURS = "tljax rank"
ANCHORS = ("LogME, published code", "LogME, fixed point")
AXES = ("candidates", "tasks", "shots")


class Zoo(NamedTuple):
    """Ground truth and scores."""

    candidates: tuple[str, ...]
    tasks: tuple[str, ...]
    shots: tuple[int, ...]
    truth: np.ndarray
    """`[task, shots, seed, candidate]`: test accuracies 0..1; NaN for a task and shots that are not whole."""
    scores: dict[str, np.ndarray]
    """Of each method `[task, shots, draw, candidate]`; higher is better, NaN for none."""
    chances: np.ndarray | None = None
    """`[task, shots, draw, candidate]`: the probability of being the best that `rank_models` states."""


def weighted_tau(scores: np.ndarray, truth: np.ndarray) -> float:
    """Vigna's weighted Kendall tau with hyperbolic weights, averaged over both orders of ranking.

    Reference: Vigna 2015, A weighted correlation index for rankings with ties, doi:10.1145/2736277.2741088.
    """
    from scipy.stats import weightedtau

    tau = float(weightedtau(scores, truth).statistic)
    return 0.0 if np.isnan(tau) else tau


def usable(scores: np.ndarray) -> np.ndarray:
    """Scores in which what has none stands last, as finite numbers."""
    finite = np.isfinite(scores)
    last = scores[finite].min() - 1 if finite.any() else 0.0
    return np.where(finite, scores, last)


def regret(scores: np.ndarray, truth: np.ndarray) -> float:
    """What choosing the first loses in points of accuracy; of several that tie, on average."""
    return 100 * float(truth.max() - truth[scores == scores.max()].mean())


def by_draw(zoo: Zoo, method: str, measure: Any) -> np.ndarray:
    """`[task, shots]`: a measure of the method's ranking, averaged over the draws of labels that it was asked for."""
    truth, values = zoo.truth.mean(2), zoo.scores[method]
    found = np.full(truth.shape[:2], np.nan)
    for place in zip(*np.nonzero(known(zoo))):
        scored = [draw for draw in values[place] if not np.isnan(draw).all()]
        if scored:
            found[place] = np.mean([measure(usable(draw), truth[place]) for draw in scored])
    return found


def known(zoo: Zoo) -> np.ndarray:
    """`[task, shots]`: whether there is a ground truth."""
    return ~np.isnan(zoo.truth).any((2, 3))


def by_chance(zoo: Zoo) -> np.ndarray:
    """`[task, shots]`: the regret of a candidate drawn at random."""
    truth = zoo.truth.mean(2)
    return 100 * (truth.max(-1) - truth.mean(-1))


def by_one_run(zoo: Zoo) -> np.ndarray:
    """`[task, shots]`: the regret of fine-tuning every candidate once, measured on the other seeds."""
    seeds = range(zoo.truth.shape[2])
    found = []
    for seed in seeds:
        others = zoo.truth[:, :, [other for other in seeds if other != seed]].mean(2)
        chosen = np.argmax(zoo.truth[:, :, seed], -1)
        found.append(others.max(-1) - np.take_along_axis(others, chosen[..., None], -1)[..., 0])
    return 100 * np.mean(found, 0)


def interval(table: np.ndarray, statistic: Any = np.nanmean, count: int = 2000) -> list[float]:
    """The 95 % bootstrap interval over tasks of a statistic of `[task, ...]`."""
    rng = np.random.default_rng(0)
    drawn = [statistic(table[rng.integers(0, len(table), len(table))]) for _ in range(count)]
    return [round(float(q), 4) for q in np.quantile(drawn, (0.025, 0.975))]


def summary(zoo: Zoo) -> dict[str, Any]:
    """By method: weighted tau and regret over all tasks, with intervals, and by shots."""
    tables = {method: (by_draw(zoo, method, weighted_tau), by_draw(zoo, method, regret)) for method in zoo.scores}
    tables |= {"random": (0 * by_chance(zoo), by_chance(zoo))}
    found = {}
    for method, (tau, lost) in tables.items():
        found[method] = {
            "tau": round(float(np.nanmean(tau)), 4), "tau interval": interval(tau),
            "regret": round(float(np.nanmean(lost)), 4), "regret interval": interval(lost),
            "tau by shots": dict(zip(map(str, zoo.shots), np.nanmean(tau, 0).round(4).tolist())),
            "regret by shots": dict(zip(map(str, zoo.shots), np.nanmean(lost, 0).round(4).tolist())),
            "regret by task": dict(zip(zoo.tasks, np.nanmean(lost, 1).round(4).tolist())),
        }  # fmt: skip
    return found


def comparison(zoo: Zoo, anchor: str) -> dict[str, Any]:
    """Our regret beside that of another: the ratio of the means, and in how many tasks and shots it is lower."""
    both = np.stack([by_draw(zoo, OURS, regret), by_draw(zoo, anchor, regret)], -1)
    both[np.isnan(both).any(-1)] = np.nan

    def ratio(pair: np.ndarray) -> float:
        ours, base = np.nanmean(pair, axis=tuple(range(pair.ndim - 1)))
        return float(ours / max(base, 1e-9))

    return {
        "ratio of mean regrets": round(ratio(both), 4), "interval": interval(both, ratio),
        "cells": int((~np.isnan(both[..., 0])).sum()), "cells lower": int((both[..., 0] < both[..., 1] - 1e-9).sum()),
        "cells equal": int(np.isclose(both[..., 0], both[..., 1]).sum()),
    }  # fmt: skip


def calibration(zoo: Zoo, bins: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)) -> dict[str, Any]:
    """Whether the stated probability of being the best is how often the choice is the best."""
    assert zoo.chances is not None
    truth = np.broadcast_to(zoo.truth.mean(2)[:, :, None], zoo.chances.shape)
    told = known(zoo)[..., None] & ~np.isnan(zoo.chances).any(-1)
    chances, truth = zoo.chances[told], truth[told]
    best = (truth == truth.max(-1, keepdims=True)) & np.ones_like(chances, bool)
    shared = best / best.sum(-1, keepdims=True)
    pick = np.argmax(chances, -1)[..., None]
    stated, right = (np.take_along_axis(a, pick, -1)[..., 0] for a in (chances, shared))
    near = np.take_along_axis(truth >= truth.max(-1, keepdims=True) - 0.01, pick, -1)
    rows = []
    for low, high in itertools.pairwise(bins):
        inside = (stated > low) & (stated <= high)
        if inside.any():
            rows.append({"stated": [low, high], "cases": int(inside.sum()), "mean stated": stated[inside].mean(),
                         "best": right[inside].mean(), "within a point": near[..., 0][inside].mean()})  # fmt: skip
    uniform = np.full_like(chances, 1 / chances.shape[-1])
    brier = {n: float(((p - shared) ** 2).sum(-1).mean()) for n, p in (("ours", chances), ("uniform", uniform))}
    log_score = -(shared * np.log(np.maximum(chances, 1e-3))).sum(-1).mean()
    found = {
        "mean stated": stated.mean(), "best": right.mean(), "within a point": near.mean(), "bins": rows,
        "Brier": brier["ours"], "Brier of equal chances": brier["uniform"],
        "log score": log_score, "log score of equal chances": float(np.log(chances.shape[-1])),
    }  # fmt: skip
    return json.loads(json.dumps(found, default=float), parse_float=lambda text: round(float(text), 4))


def table(found: dict[str, Any]) -> str:
    """The table as it is printed, in Markdown, the least regret first."""
    shots = list(next(iter(found.values()))["tau by shots"])
    lines = [
        f"| method | regret | 95 % | {' | '.join(f'{k} shots' for k in shots)} | tau | 95 % |",
        "|" + "---|" * (len(shots) + 5),
    ]
    for name, row in sorted(found.items(), key=lambda item: item[1]["regret"]):
        low, high = row["regret interval"]
        tau_low, tau_high = row["tau interval"]
        by_shots = " | ".join(f"{value:.2f}" for value in row["regret by shots"].values())
        lines.append(f"| {name} | {row['regret']:.2f} | {low:.2f} - {high:.2f} | {by_shots} | {row['tau']:.2f} | "
                     f"{tau_low:.2f} - {tau_high:.2f} |")  # fmt: skip
    return "\n".join(lines)


def read(run_dir: pathlib.Path, scores_file: pathlib.Path, kept: pathlib.Path) -> tuple[Zoo, dict[str, Any]]:
    """The zoo as far as its ground truth is whole, and that truth: of the run folder, else what was kept."""
    with np.load(scores_file) as file:
        arrays = dict(file)
    candidates, tasks, shots = (tuple(arrays.pop(axis).tolist()) for axis in AXES)
    files = sorted((run_dir / "truth").glob("*.json"))
    cells = {file.stem: json.loads(file.read_text()) for file in files} or json.loads(kept.read_text())["truth"]
    names = [name for name in candidates if name in cells]
    whole = {key for key in cells[names[0]] if all(key in cells[name] for name in names)}
    some = [task for task in tasks if any(f"{task}/{k}" in whole for k in shots)]
    seeds = len(next(cells[names[0]][key]["accuracy"] for key in whole))
    truth = np.full((len(some), len(shots), seeds, len(names)), np.nan)
    for t, task in enumerate(some):
        for s, k in enumerate(shots):
            if f"{task}/{k}" in whole:
                truth[t, s] = np.transpose([cells[name][f"{task}/{k}"]["accuracy"] for name in names])
    t, c = [tasks.index(task) for task in some], [candidates.index(name) for name in names]
    arrays = {name: values[t][..., c] for name, values in arrays.items()}
    chances = arrays.pop("chances", None)
    used = {name: {key: cell for key, cell in cells[name].items() if key in whole} for name in names}
    return Zoo(tuple(names), tuple(some), shots, truth, arrays, chances), used


def report(zoo: Zoo) -> dict[str, Any]:
    """Everything that is told of the methods."""
    found: dict[str, Any] = {"methods": summary(zoo)}
    if OURS in zoo.scores:
        found["ours beside"] = {anchor: comparison(zoo, anchor) for anchor in ANCHORS}
    if zoo.chances is not None:
        found["calibration"] = calibration(zoo)
        asked = (~np.isnan(zoo.chances).any(-1)).sum((0, 2))
        found["rankings asked of ours"] = dict(zip(map(str, zoo.shots), asked.tolist()))
    truth = zoo.truth
    found["ground truth"] = {
        "deviation between seeds": round(float(np.nanmean(truth.std(2, ddof=1))), 4),
        "regret of one run of every candidate": round(float(np.nanmean(by_one_run(zoo))), 4),
        "best": {f"{zoo.tasks[t]}/{zoo.shots[s]}": zoo.candidates[truth[t, s].mean(0).argmax()]
                 for t, s in zip(*np.nonzero(known(zoo)))},
    }  # fmt: skip
    return found


def main() -> None:
    """Print the table, write the JSON."""
    import jax

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", default="runs/zoo")
    options = parser.parse_args()
    result = RESULTS / "zoo.json"
    zoo, cells = read(pathlib.Path(options.run_dir), RESULTS / "zoo_scores.npz", result)
    found = report(zoo)
    print(table(found["methods"]))
    print(json.dumps({name: found[name] for name in found if name != "methods"}, indent=1))
    about = {
        "command": f"python {' '.join(sys.argv)}", "date": datetime.date.today().isoformat(),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "device": jax.devices()[0].device_kind},
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "numpy": np.__version__},
        "candidates": zoo.candidates, "tasks": zoo.tasks, "shots": zoo.shots,
    }  # fmt: skip
    result.write_text(json.dumps(about | found | {"truth": cells}, indent=1) + "\n")


if __name__ == "__main__":
    main()
