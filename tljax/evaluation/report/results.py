"""Reading the results of a transfer run: a plain dict of JSON values, as its run folder holds it.

Nothing here is rounded or worded; `numbers` writes values and `document` says what they mean.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from tljax.evaluation.report.numbers import Scale, count, metric, scale
from tljax.types import TljaxError

Results = Mapping[str, Any]
BASELINE = "scratch"
SOURCE_ONLY = "source-only"
"""What an adaptation is compared to."""
REFERENCES = (BASELINE, "linear-probe", "knn")
"""What the gain of every method is told over, where it was run."""

_REQUIRED = (
    "title",
    "verdict",
    "source",
    "target",
    "model",
    "graft",
    "protocol",
    "shots",
    "methods",
    "cells",
    "summary",
)
_LABELS = {
    "full": "full fine-tuning",
    "scratch": "from scratch",
    "source-only": "source only",
    "linear-probe": "linear probe",
    "lp-ft": "LP-FT",
    "knn": "k-NN",
    "bitfit": "BitFit",
    "norm-only": "norms only",
    "lora": "LoRA",
    "rslora": "rsLoRA",
    "dora": "DoRA",
    "pissa": "PiSSA",
    "olora": "OLoRA",
    "vera": "VeRA",
    "ia3": "IA3",
    "lda": "LDA",
}


class ReportError(TljaxError):
    """The report of a run cannot be made from what was given."""


def is_comparison(results: Results) -> bool:
    """Whether these are results of `tljax finetune`, which compares methods; else they are of `tljax transfer`.

    >>> is_comparison({"kind": "comparison"}), is_comparison({})
    (True, False)
    """
    return results.get("kind") == "comparison"


def is_ranking(results: Results) -> bool:
    """Whether these are results of `tljax rank`.

    >>> is_ranking({"kind": "ranking"}), is_ranking({})
    (True, False)
    """
    return results.get("kind") == "ranking"


def is_adaptation(results: Results) -> bool:
    """Whether these are results of `tljax adapt`.

    >>> is_adaptation({"kind": "adaptation"}), is_adaptation({})
    (True, False)
    """
    return results.get("kind") == "adaptation"


def is_unlabelled(results: Results) -> bool:
    """Whether these are results of `tljax adapt` for a target whose labels nobody knows.

    >>> is_unlabelled({"kind": "adaptation", "unlabelled": True}), is_unlabelled({"kind": "adaptation"})
    (True, False)
    """
    return bool(results.get("unlabelled"))


def baseline(results: Results) -> str:
    """The method that the details are shown beside.

    >>> baseline({"kind": "adaptation"}), baseline({})
    ('source-only', 'scratch')
    """
    return SOURCE_ONLY if is_adaptation(results) else BASELINE


def check(results: Results) -> None:
    """Raise `ReportError` where `results` lacks a part of what its command records."""
    required: tuple[str, ...] = _REQUIRED
    if is_comparison(results):
        required = tuple(key for key in (*_REQUIRED, "notes") if key not in ("source", "graft"))
    if is_adaptation(results):
        required = tuple(key for key in (*_REQUIRED, "notes", "features") if key != "graft")
    if is_ranking(results):
        required = ("title", "summary", "target", "models", "notes")
    missing = [key for key in required if key not in results]
    if missing:
        raise ReportError(
            f"these results lack {', '.join(missing)}; a report needs {', '.join(required)}. "
            "Pass the whole dict that the run recorded."
        )
    if is_ranking(results):
        return
    if not results["shots"] or not results["methods"]:
        raise ReportError("these results name no shots or no methods, so there is nothing to report")


def label(method: str) -> str:
    """How the report calls `method`.

    >>> label("knn"), label("my-method")
    ('k-NN', 'my-method')
    """
    return _LABELS.get(method, method)


def judged(results: Results) -> str:
    """The transfer method that the verdict is about."""
    return str(results["verdict"]["method"])


def main_shots(results: Results) -> Any:
    """The number of labels per class that the verdict is about, at which the details are shown; else the largest.

    In a comparison of methods it may be ``"all"``.

    >>> main_shots({"verdict": {"shots": 5}, "shots": [1, 5, 10]}), main_shots({"verdict": {}, "shots": [1, 5, 10]})
    (5, 10)
    """
    chosen = results["verdict"].get("shots")
    return chosen if chosen in results["shots"] else max(results["shots"])


def seeds(results: Results) -> int:
    """How many seeds each number is a mean of."""
    return int(results["protocol"]["seeds"])


def is_regression(results: Results) -> bool:
    """Whether the target is a number rather than a class."""
    return not results["target"].get("classes")


def labels_noun(results: Results, number: int | None = None) -> str:
    """What `shots` counts, in the plural unless `number` is one.

    >>> labels_noun({"target": {"classes": ["a", "b"]}}), labels_noun({"target": {}}, 1)
    ('labels per class', 'labelled example')
    """
    one = number == 1
    if is_regression(results):
        return "labelled example" if one else "labelled examples"
    return "label per class" if one else "labels per class"


def at_main_shots(results: Results) -> str:
    """`10 labels per class`, for the number that the verdict is about.

    >>> at_main_shots({"verdict": {"shots": "all"}, "shots": ["all"], "target": {"classes": ["a", "b"]}})
    'all labels'
    """
    shots = main_shots(results)
    return "all labels" if shots == "all" else f"{count(shots)} {labels_noun(results, shots)}"


def summary(results: Results, method: str, shots: int) -> Mapping[str, Any]:
    """The summary of `method` at `shots`; `{"metrics": {}, "gain": None}` where there is none."""
    for entry in results["summary"]:
        if entry["method"] == method and entry["shots"] == shots:
            return entry
    return {"metrics": {}, "gain": None}


def mean(results: Results, method: str, shots: int, key: str) -> tuple[float | None, float | None]:
    """`(mean, half-width)` of metric `key`; None for what there is not."""
    found = summary(results, method, shots)["metrics"].get(key) or {}
    return found.get("mean"), found.get("half_width")


def scale_of(results: Results, key: str) -> Scale:
    """How the values of metric `key` are written in this report."""
    found = (entry["metrics"].get(key) for entry in results["summary"])
    return scale(metric(key), [value["mean"] for value in found if value])


def main_scale(results: Results) -> Scale:
    """How the metric of the verdict is written."""
    return scale_of(results, results["verdict"]["metric"])


def is_finite(number: float | None) -> TypeGuard[float]:
    """Whether `number` is there and can be drawn.

    >>> is_finite(0.5), is_finite(None), is_finite(float("nan"))
    (True, False, False)
    """
    return number is not None and math.isfinite(number)


def cells(results: Results, method: str, shots: int) -> list[Mapping[str, Any]]:
    """The runs of `method` at `shots`, one a seed."""
    return [cell for cell in results["cells"] if cell["method"] == method and cell["shots"] == shots]


def confusion(results: Results, method: str) -> np.ndarray | None:
    """Counts `[C, C]` (rows: true classes) at the main shots, summed over seeds; None without any."""
    found = [cell["confusion"] for cell in cells(results, method, main_shots(results)) if cell.get("confusion")]
    return np.sum([np.asarray(matrix, np.int64) for matrix in found], axis=0) if found else None


def recalls(results: Results, method: str) -> list[float | None] | None:
    """Each class's recall at the main shots, as the mean over seeds; None for a class without test examples."""
    found = [cell["confusion"] for cell in cells(results, method, main_shots(results)) if cell.get("confusion")]
    if not found:
        return None
    matrices = np.asarray(found, np.float64)
    totals = matrices.sum(axis=2)
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    shares = np.divide(hits, totals, out=np.full_like(totals, np.nan), where=totals > 0)
    return [float(np.mean(c[~np.isnan(c)])) if not np.isnan(c).all() else None for c in shares.T]


class Curve(NamedTuple):
    """One quantity against the step, for every seed of one method."""

    method: str
    steps: np.ndarray
    """`[T]`."""
    values: np.ndarray
    """`[S, T]`; a run that stopped early keeps its last value."""
    stopped: int
    """How many of the runs stopped early."""


def curves(results: Results, key: str) -> list[Curve]:
    """The learning curves of `key` at the main shots, in the order of the methods; those without values left out."""
    found = []
    for method in results["methods"]:
        for entry in results.get("curves") or ():
            if entry["method"] == method and entry["shots"] == main_shots(results) and entry.get(key):
                values, stopped = carry_forward(entry[key])
                if values.size:
                    found.append(Curve(method, np.asarray(entry["steps"]), values, stopped))
    return found


def carry_forward(rows: Sequence[Sequence[float | None]]) -> tuple[np.ndarray, int]:
    """`([S, T] float, how many rows stopped early)`: a null takes the value before it; rows of nulls only go.

    What comes before the first value is NaN, so that nothing is drawn there.

    >>> values, stopped = carry_forward([[0.5, 0.75, None], [None, 0.5, 1.0]])
    >>> values.tolist(), stopped
    ([[0.5, 0.75, 0.75], [nan, 0.5, 1.0]], 1)
    """
    filled, stopped = [], 0
    for row in rows:
        if not any(map(is_finite, row)):
            continue
        stopped += not is_finite(row[-1])
        line = [math.nan]
        for value in row:
            line.append(value if is_finite(value) else line[-1])
        filled.append(line[1:])
    return np.asarray(filled, np.float64), stopped
