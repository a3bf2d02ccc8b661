"""`tl.probe`: the accuracy of heads on frozen features by labels per class, as a table with intervals."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tljax.data import k_shot
from tljax.evaluation import interval
from tljax.evaluation.report.results import label
from tljax.probes.inputs import class_labels, finite_features, known_labels
from tljax.recipes.options import SettingsError, require_known
from tljax.recipes.probing.heads import CHOICES, HEADS, Draws
from tljax.recipes.results import or_none

SHOTS = (1, 5, 10, 25)


@dataclasses.dataclass(frozen=True)
class ProbeTable:
    """Test accuracies of draws of labelled examples."""

    shots: tuple[int, ...]
    """Labelled examples of each class."""
    accuracies: Mapping[str, np.ndarray]
    """By head, `[len(shots), S]` in 0..1; NaN where the head needs more labels."""
    majority: float
    """The test accuracy of the class that is most frequent among the labelled examples, all of them."""
    tested: int
    """How many test examples there are."""
    classes: tuple[Any, ...]

    def as_dict(self) -> dict[str, Any]:
        """The table as JSON values.

        >>> table = ProbeTable((1,), {"ridge": np.array([[0.5, 0.75]])}, 0.5, 8, ("a", "b"))
        >>> row = table.as_dict()["summary"][0]
        >>> row["head"], row["shots"], row["accuracy"]["mean"]
        ('ridge', 1, 0.625)
        """
        return {
            "metric": "accuracy",
            "classes": [str(name) for name in self.classes],
            "test": self.tested,
            "majority": self.majority,
            "shots": list(self.shots),
            "heads": list(self.accuracies),
            "summary": [
                {"head": head, "shots": k, "accuracy": _described(values), "values": [or_none(v) for v in values]}
                for head, rows in self.accuracies.items()
                for k, values in zip(self.shots, rows.tolist())
            ],
            "chosen": [CHOICES[head] for head in self.accuracies],
        }

    def __str__(self) -> str:
        draws = next(iter(self.accuracies.values())).shape[1]
        heads = [label(head) for head in self.accuracies]
        cells = [[_cell(rows[i]) for rows in self.accuracies.values()] for i in range(len(self.shots))]
        widths = [max(map(len, column)) for column in zip(heads, *cells)]
        names = ["labels per class", *map(str, self.shots), "majority class"]
        left = max(map(len, names))

        def line(name: str, row: Sequence[str]) -> str:
            return "  ".join([f"{name:<{left}}", *(f"{cell:>{width}}" for cell, width in zip(row, widths))]).rstrip()

        table = [line(names[0], heads), *(line(str(k), row) for k, row in zip(self.shots, cells))]
        table.append(f"{names[-1]:<{left}}  {100 * self.majority:.1f}")
        said = f"Accuracy in % on {self.tested:,} test examples: mean over {draws} draws of labels"
        table += ["", f"{said} ± half-width of its 95 % interval." if draws > 1 else f"{said}."]
        table += ["Chosen on the labelled examples alone:"]
        return "\n".join([*table, *(f"  {CHOICES[head]}" for head in self.accuracies)])


def probe(
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    *,
    shots: Sequence[int] = (),
    seeds: int = 20,
    seed: int = 0,
    heads: Sequence[str] = ("ridge", "knn"),
) -> ProbeTable:
    """What a few labels per class are worth on frozen features: test accuracies of heads over draws of the labels.

    Draws are stratified and nested: the examples of fewer labels are among those of more. All that a head has to choose
    is chosen on its labelled examples, never on the test examples.

    Args:
      train: features `[N, D]` and labels `[N]`, integers or names, from which labelled examples are drawn; of a model,
        those of `tl.extract`.
      test: features `[M, D]` and labels `[M]`.
      shots: labels per class; by default 1, 5, 10, 25 as far as the classes have them.
      seeds: how many draws.
      seed: the first of their seeds.
      heads: some of "ridge", "logistic", "knn", "centroid", "lda".

    Raises `ProbeError` for features and labels that do not fit, `DataError` for a class with fewer examples than the
    labels asked for, `SettingsError` for an unknown head and numbers below 1.

    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(60) % 2
    >>> x = rng.normal(size=(60, 5)) + 2 * y[:, None]
    >>> found = probe((x[:30], y[:30]), (x[30:], y[30:]), shots=(2,), seeds=3, heads=("centroid",))
    >>> found.accuracies["centroid"].shape, found.majority
    ((1, 3), 0.5)
    """
    y, classes = class_labels(train[1], len(train[0]))
    known = known_labels(test[1], len(test[0]), classes)
    for head in heads:
        require_known("head", head, HEADS)
    names = tuple(map(str, classes))
    drawn = draw(y, shots or usual_shots(y), seeds, seed, names)
    return probe_draws((train[0], y), (test[0], known), drawn, heads, names, int(np.argmax(np.bincount(y))))


def usual_shots(y: np.ndarray) -> tuple[int, ...]:
    """Those of `SHOTS` that every class has examples for, and 1.

    >>> usual_shots(np.array([0] * 7 + [1] * 9))
    (1, 5)
    """
    least = int(np.bincount(y).min())
    return tuple(k for k in SHOTS if k == 1 or k <= least)


def draw(y: np.ndarray, shots: Sequence[int], seeds: int, seed: int, classes: Sequence[str]) -> dict[int, np.ndarray]:
    """By labels per class the row numbers `[seeds, k C]` of every draw.

    >>> {k: rows.shape for k, rows in draw(np.arange(20) % 2, (1, 5), 3, 0, ("a", "b")).items()}
    {1: (3, 2), 5: (3, 10)}
    """
    if seeds < 1 or not shots or min(shots) < 1:
        raise SettingsError(f"shots and seeds should be 1 or more; found {tuple(shots)} and {seeds}")
    largest = np.stack([k_shot(y, max(shots), seed=seed + i, classes=classes) for i in range(seeds)])
    return {k: largest[:, : k * len(classes)] for k in sorted(set(shots))}


def probe_draws(
    train: tuple[Any, np.ndarray],
    test: tuple[Any, np.ndarray],
    drawn: Mapping[int, np.ndarray],
    heads: Sequence[str],
    classes: Sequence[str],
    usual: int,
) -> ProbeTable:
    """The table for row numbers that were drawn; labels are 0..C-1, and `usual` the most frequent of them.

    >>> x, y = np.array([[0.0], [1.0], [0.1], [0.9]]), np.array([0, 1, 0, 1])
    >>> found = probe_draws((x, y), (x, y), {1: np.array([[0, 1]])}, ("ridge",), "ab", 0)
    >>> float(found.accuracies["ridge"][0, 0]), found.majority
    (1.0, 0.5)
    """
    x, queries = finite_features(train[0]), finite_features(test[0], "the test features")
    if x.shape[1] != queries.shape[1]:
        raise SettingsError(f"the features are {x.shape[1]} numbers, those of the test examples {queries.shape[1]}")
    each = [Draws(x, train[1], rows, queries, test[1], len(classes)) for rows in drawn.values()]
    found = {head: np.stack([HEADS[head](draws) for draws in each]) for head in dict.fromkeys(heads)}
    return ProbeTable(tuple(drawn), found, float(np.mean(test[1] == usual)), len(queries), tuple(classes))


def _described(values: Sequence[float]) -> dict[str, float | None]:
    found = interval(values)
    return {"mean": or_none(found.mean), "low": or_none(found.low), "high": or_none(found.high)}


def _cell(values: np.ndarray) -> str:
    found = interval(values.tolist())
    if np.isnan(found.mean):
        return "–"
    return f"{100 * found.mean:.1f}" + ("" if np.isnan(found.half_width) else f" ± {100 * found.half_width:.1f}")
