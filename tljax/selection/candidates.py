"""What is ranked: candidates with their features of the same labelled examples."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tljax.types import TljaxError


class SelectionError(TljaxError):
    """Candidates or labels that cannot be ranked."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A pretrained model as the labelled examples show it, and what is known of it before them."""

    features: Any
    """`[N, D]` of the labelled examples; D may differ between candidates."""
    probabilities: Any = None
    """`[N, S]`: the source model's class probabilities, where it has a head."""
    parameters: int | None = None
    """How many it has."""
    upstream_accuracy: float | None = None
    """On the task it was pretrained on, 0..1; all candidates on the same task."""
    prior: float | None = None
    """What is expected of it before the data, such as its mean accuracy in past runs, 0..1."""


def checked(candidates: Mapping[str, Candidate], labels: Any) -> tuple[dict[str, Candidate], np.ndarray, tuple]:
    """The candidates with finite float arrays, and the labels as `[N]` int32 with the names of their classes.

    Raises `SelectionError`, which names the candidate, where something does not fit.

    >>> found, y, names = checked({"a": Candidate([[0.0], [1.0]])}, ["cat", "dog"])
    >>> y.tolist(), names
    ([0, 1], ('cat', 'dog'))
    """
    if not candidates:
        raise SelectionError("there are no candidates to rank")
    names, y = _classes(labels)
    return {name: _candidate(name, given, len(y)) for name, given in candidates.items()}, y, names


def _classes(labels: Any) -> tuple[tuple, np.ndarray]:
    given = np.asarray(labels)
    if given.ndim != 1 or not len(given):
        raise SelectionError(f"labels are one class an example, [N]; found the shape {given.shape}")
    if given.dtype.kind == "f" and not np.all(given == np.round(given)):
        raise SelectionError("labels are classes, integers or names; found numbers with a fraction")
    names, y = np.unique(given, return_inverse=True)
    if len(names) < 2:
        raise SelectionError(f"a ranking needs two classes or more; all {len(given)} labels are {names.tolist()}")
    return tuple(names.tolist()), y.reshape(-1).astype(np.int32)


def _candidate(name: str, given: Candidate, n: int) -> Candidate:
    if not isinstance(given, Candidate):
        given = Candidate(given)
    features = _matrix(name, "features", given.features, n)
    probabilities = given.probabilities
    if probabilities is not None:
        probabilities = _matrix(name, "probabilities", probabilities, n)
        sums = probabilities.sum(1)
        if probabilities.min() < 0 or np.abs(sums - 1).max() > 1e-3:
            raise SelectionError(
                f"the probabilities of candidate {name!r} must be at least 0 and sum to 1 in every row; found sums "
                f"from {sums.min():g} to {sums.max():g}. Of logits take jax.nn.softmax first"
            )
    _known(name, given)
    return dataclasses.replace(given, features=features, probabilities=probabilities)


def _matrix(name: str, what: str, values: Any, n: int) -> np.ndarray:
    x = np.asarray(values)
    x = x.astype(x.dtype if x.dtype in (np.float32, np.float64) else np.float32)
    if x.ndim != 2 or not x.shape[1] or len(x) != n:
        raise SelectionError(
            f"the {what} of candidate {name!r} should be [{n}, D], a row for each label; found {x.shape}"
        )
    bad = int((~np.isfinite(x).all(1)).sum())
    if bad:
        raise SelectionError(f"the {what} of candidate {name!r} hold NaN or infinity, in {bad} of {n} examples")
    return x


def _known(name: str, given: Candidate) -> None:
    for what in ("upstream_accuracy", "prior"):
        value = getattr(given, what)
        if value is not None and not 0 <= value <= 1:
            raise SelectionError(f"{what} of candidate {name!r} is {value!r}; it should be an accuracy, 0 to 1")
    if given.parameters is not None and given.parameters < 1:
        raise SelectionError(f"parameters of candidate {name!r} is {given.parameters!r}; it should be a count")
