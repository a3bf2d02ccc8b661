"""Candidates in any form, as features of one set of labels; and as models, where they are more than features."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from tljax.data import Dataset
from tljax.data.text import TextData
from tljax.features import extract
from tljax.models import Pretrained, load_pretrained
from tljax.selection import Candidate, SelectionError
from tljax.tree import count
from tljax.types import Model, Params


class Labels(NamedTuple):
    """Labels without inputs, where candidates are features."""

    y: Any
    """`[N]`."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One candidate."""

    candidate: Candidate
    data: Any
    """Its labelled examples."""
    model: Model | None = None
    params: Params | None = None


def entry(
    name: str,
    value: Any,
    data: Any,
    known: Mapping[str, Any],
    *,
    cache: str | os.PathLike[str] | None,
    show: bool,
) -> Entry:
    """The candidate called `name`: features as they are, models through `extract`, paths through `load_pretrained`.

    Raises `SelectionError`, which names it, where it is none of these or `data` lack inputs.

    >>> entry("a", np.zeros((2, 3)), Labels([0, 1]), {"prior": 0.5}, cache=None, show=False).candidate.prior
    0.5
    """
    if not isinstance(value, (Candidate, tuple, str, pathlib.Path)):
        value = Candidate(value)
    if isinstance(value, Candidate):
        return Entry(_informed(name, value, known), data)
    if isinstance(data, Labels):
        raise SelectionError(f"candidate {name!r} is a model, and the data are labels without inputs; give (x, y)")
    if not isinstance(value, tuple):
        example = jax.tree.map(lambda leaf: np.asarray(leaf[:1]), data.x)
        value = load_pretrained(value, num_classes=len(data.classes), example=example)
    if not isinstance(value, Pretrained) and len(value) != 2:
        raise SelectionError(f"candidate {name!r} is a tuple of {len(value)}; expected (model, params)")
    model, params = value[:2]
    found = extract(model, params, data, cache=cache, progress=f"features of {name}" if show else False)
    made = Candidate(found.features, parameters=count(params.get("backbone", params)))
    return Entry(_informed(name, made, known), data, model, params)


def labelled(data: Any) -> Any:
    """`data` with `x`, `y` and the names of its `classes`; of bare labels, `Labels`.

    >>> labelled((np.zeros((2, 3)), ["cat", "dog"])).classes, labelled([0, 1])
    (('cat', 'dog'), Labels(y=[0, 1]))
    """
    if hasattr(data, "y"):
        return data
    if not isinstance(data, tuple):
        return Labels(data)
    x, y = data
    names, numbers = np.unique(np.asarray(y), return_inverse=True)
    classes, numbers = tuple(map(str, names.tolist())), numbers.reshape(-1).astype(np.int32)
    return TextData(dict(x), numbers, classes) if isinstance(x, Mapping) else Dataset(np.asarray(x), numbers, classes)


def common_labels(entries: Mapping[str, Entry]) -> Any:
    """The labels of all entries; raises `SelectionError` where those of two differ.

    >>> one = Entry(Candidate(np.zeros((2, 1))), Labels([0, 1]))
    >>> common_labels({"a": one, "b": one})
    [0, 1]
    """
    (first, reference), *others = entries.items()
    for name, other in others:
        if not np.array_equal(np.asarray(reference.data.y), np.asarray(other.data.y)):
            raise SelectionError(f"the labels that come with candidate {name!r} are not those of {first!r}")
    return reference.data.y


def _informed(name: str, candidate: Candidate, known: Mapping[str, Any]) -> Candidate:
    fields = {field.name for field in dataclasses.fields(Candidate)} - {"features"}
    unknown = sorted(set(known) - fields)
    if unknown:
        raise SelectionError(f"{unknown[0]!r} is nothing that is known of a candidate ({name!r}): {sorted(fields)}")
    return dataclasses.replace(candidate, **known)
