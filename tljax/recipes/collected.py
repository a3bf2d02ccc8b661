"""From the scored cells of `tljax transfer` to the results that its report shows."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tljax.evaluation import (
    LabelFactor,
    label_curve_area,
    label_factors,
    paired_gain,
    steps_to,
    variance_components,
    verdict,
    wilson,
)
from tljax.evaluation.compute import SHARES
from tljax.evaluation.report.results import BASELINE, REFERENCES
from tljax.recipes.results import CLASS_METRICS, NUMBER_METRICS, Scored, curve, gain_over, mean_of, numbers_of, or_none
from tljax.recipes.runs import Cell, Stage
from tljax.recipes.settings import Settings
from tljax.recipes.tasks import Task

Cells = Mapping[Cell, Scored]


@dataclasses.dataclass(frozen=True)
class Collected:
    """All that was scored."""

    settings: Settings
    target: Task
    table: Mapping[str, Cells]
    stages: Mapping[str, Sequence[Stage]]
    """What training took, by method."""
    drawn: Mapping[Cell, str]
    """What tells the draws of labels apart."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of the test split."""
        return NUMBER_METRICS if self.target.regression else CLASS_METRICS

    @property
    def main(self) -> str:
        """The metric of the verdict."""
        return "rmse" if self.target.regression else "accuracy"

    def described(self) -> dict[str, Any]:
        """The part of the results that follows from the scores, as JSON values."""
        shots, methods = self.settings.all_shots, list(self.table)
        return {
            "verdict": self._verdict(),
            "shots": list(shots),
            "methods": methods,
            "cells": [self._cell(m, c, s) for m, cells in self.table.items() for c, s in cells.items()],
            "curves": self._curves(),
            "summary": [self._summary(method, k) for method in methods for k in shots],
            "labels": self._labels(),
            "compute": {m: found for m in methods if (found := self._compute(m)) is not None},
        }

    def values(self, method: str, shots: int, metric: str) -> list[list[float]]:
        """The metric of every run, by draw of labels and training seed."""
        found: dict[int, list[float]] = {}
        for cell, scored in self.table[method].items():
            if cell.shots == shots:
                found.setdefault(cell.seed, []).append(float(scored.test[metric]))
        return list(found.values())

    def means(self, method: str, shots: int, metric: str) -> list[float]:
        """One value for each draw of labels: the mean over its training seeds."""
        return [float(np.mean(runs)) for runs in self.values(method, shots, metric)]

    @property
    def _step(self) -> float:
        """In which steps the main metric comes: the accuracy in those of an example, an error in none."""
        return 0.0 if self.target.regression else 1 / len(self.target.test)

    def _verdict(self) -> dict[str, Any]:
        shots, method = self.settings.labels_per_class, self.settings.method
        a, b = (self.means(name, shots, self.main) for name in (method, BASELINE))
        better = not self.target.regression
        found = verdict(paired_gain(a, b, higher_is_better=better, resolution=self._step), metric=self.main)
        judged = {"method": method, "shots": shots, "metric": self.main}
        return {"outcome": found.outcome, "sentence": found.sentence} | judged

    def _cell(self, method: str, cell: Cell, scored: Scored) -> dict[str, Any]:
        found: dict[str, Any] = {
            "method": method,
            "shots": cell.shots,
            "seed": cell.seed,
            "repeat": cell.repeat,
            "labels": self.drawn[cell],
            "rate": scored.rate,
            "best_step": scored.best_step,
            "valid": or_none(scored.valid),
            "test": numbers_of(scored.test, self.metrics),
        }
        if "confusion" in scored.test:
            worst = {name: int(scored.test[name]) for name in ("worst_class", "worst_support")}
            found |= {"confusion": np.asarray(scored.test["confusion"]).tolist(), **worst}
            found["temperature"] = or_none(scored.test["temperature"])
        return found

    def _summary(self, method: str, shots: int) -> dict[str, Any]:
        values = self.means(method, shots, self.main)
        gains = {
            other: gain_over(other, values, self.means(other, shots, self.main), self.main, resolution=self._step)
            for other in REFERENCES
            if other in self.table and other != method
        }
        return {
            "method": method,
            "shots": shots,
            "metrics": {name: mean_of(self.means(method, shots, name)) for name in self.metrics},
            "gain": gains.get(BASELINE),
            "gains": gains,
            "spread": self._spread(method, shots),
        }

    def _spread(self, method: str, shots: int) -> dict[str, Any]:
        """Standard deviations of one run by what makes them, and the interval that so few test examples leave."""
        found = variance_components(self.values(method, shots, self.main))
        draws = self.means(method, shots, self.main)
        spread: dict[str, Any] = {
            "whole": or_none(float(np.std(draws, ddof=1))) if len(draws) > 1 else None,
            "labels": or_none(found.subset**0.5),
            "training": or_none(found.seed**0.5),
            "draws": found.subsets,
            "repeats": found.seeds,
        }
        if not self.target.regression and np.isfinite(found.interval.mean):
            size = len(self.target.test)
            noise = wilson(round(found.interval.mean * size), size)
            spread["test"] = [noise.low, noise.high]
        return spread

    def _curves(self) -> list[dict[str, Any]]:
        found = []
        for method, cells in self.table.items():
            for shots in self.settings.all_shots:
                runs = [scored.history for cell, scored in cells.items() if cell.shots == shots and scored.history]
                if runs:
                    found.append({"method": method, "shots": shots} | curve(runs, self.main))
        return found

    def _labels(self) -> dict[str, Any]:
        """Areas under the label curves, and what labels are worth against scratch."""
        shots, up = self.settings.all_shots, not self.target.regression
        tables = {m: np.array([self.means(m, k, self.main) for k in shots]).T for m in self.table}
        areas = {m: label_curve_area(shots, table).tolist() for m, table in tables.items()}
        factors = {}
        for method, table in tables.items():
            if method != BASELINE and len(shots) > 1:
                both = [
                    label_factors(shots, table, tables[BASELINE], at=at, higher_is_better=up)
                    for at in ("method", "baseline")
                ]
                factors[method] = {"method": [*map(_factor, both[0])], "baseline": [*map(_factor, both[1])]}
        return {
            "areas": {m: mean_of(area) for m, area in areas.items()},
            "area_gains": {
                m: gain_over(BASELINE, area, areas[BASELINE], self.main) for m, area in areas.items() if m != BASELINE
            },
            "factors": factors,
        }

    def _compute(self, method: str) -> dict[str, Any] | None:
        """What a run of `method` takes, and how much of it brings it near to its own end, at the main shots."""
        stages = self.stages.get(method)
        if not stages:
            return None
        *earlier, last = stages
        flops = [stage.step_flops for stage in stages]
        known = all(f is not None for f in flops)
        before = [sum(s.steps * s.batch_size for s in earlier), sum(s.steps * (s.step_flops or 0) for s in earlier)]
        reached = {}
        for share in SHARES:
            steps = self._steps_to(method, share)
            if steps is not None:
                examples = before[0] + steps * last.batch_size
                done = before[1] + steps * (last.step_flops or 0)
                reached[f"{100 * share:g}"] = {"steps": steps, "examples": examples, "flops": done if known else None}
        return {
            "runs": len(self.table[method]) * len(self.settings.learning_rates),
            "steps": sum(stage.steps for stage in stages),
            "examples": before[0] + last.steps * last.batch_size,
            "flops": before[1] + last.steps * (last.step_flops or 0) if known else None,
            "step_flops": last.step_flops,
            "to": reached,
        }

    def _steps_to(self, method: str, share: float) -> float | None:
        """The mean over the runs of the last stage; None where one of them does not tell."""
        shots, found = self.settings.labels_per_class, []
        for cell, scored in self.table[method].items():
            if cell.shots == shots:
                rows = [row for row in scored.history if row["split"] == "valid" and self.main in row]
                steps, values = [row["step"] for row in rows], [row[self.main] for row in rows]
                found.append(steps_to(steps, values, share=share, higher_is_better=not self.target.regression))
        known = [steps for steps in found if steps is not None]
        return float(np.mean(known)) if found and len(known) == len(found) else None


def _factor(found: LabelFactor) -> dict[str, Any]:
    """JSON knows no infinity: an end for which no number can be named is None, and `open` says so."""
    known = np.isfinite(found.factor) and not np.isnan(found.low)
    return {
        "shots": int(found.shots),
        "factor": or_none(found.factor),
        "relation": found.relation,
        "low": or_none(found.low),
        "high": or_none(found.high),
        "interval": bool(known),
    }
