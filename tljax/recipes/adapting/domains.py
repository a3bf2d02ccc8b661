"""The two domains of an adaptation: read, brought to the same classes and the same form, and split.

Labels of the target are never looked at here but to name its classes: its parts are cut at random, not by class.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from tljax.data import Source, fit_standardiser, match_images, standardise
from tljax.data.classes import class_indices
from tljax.recipes.options import SettingsError
from tljax.recipes.tasks import VALIDATION_MOST, VALIDATION_SHARE, Examples, Task, with_validation

SHARED = "shared"
_MOST_NAMED = 8


class Domains(NamedTuple):
    """What is adapted from, and what to; both have the same classes and the same form of inputs."""

    source: Task
    """Labelled; its validation part is held out of training."""
    target: Task
    """Trained on without labels. `valid` is what label-free validators look at; only `test` is read with labels."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.source.train.classes

    @property
    def example(self) -> Any:
        """One example with a leading axis of 1."""
        return jax.tree.map(lambda a: a[:1], self.source.train.x)


def as_domains(source: Any, target: Any, classes: str | None, seed: int) -> Domains:
    """The domains that two data sets, a `Source` or `TextSource` each, make with some or all of their classes.

    Raises `SettingsError` where classes are on one side only, unless `classes` chooses among the shared ones, or where
    labels are no classes.
    """
    for found in (source, target):
        if found.train.task != "classes":
            raise SettingsError(f"{found.name!r} has not one class per example; tljax adapt needs that")
    names = chosen_classes((source.name, source.train.classes), (target.name, target.train.classes), classes)
    source, target = (_mapped(found, lambda part: _relabelled(part, names)) for found in (source, target))
    train, valid = with_validation(source.train, source.valid, seed)
    unlabelled, held, note = _target_parts(target, seed)
    return Domains(
        Task(source.name, train, valid, source.test, source.notes),
        Task(target.name, unlabelled, held, target.test, (*target.notes, note)),
    )


def chosen_classes(
    source: tuple[str, tuple[str, ...]], target: tuple[str, tuple[str, ...]], classes: str | None
) -> tuple[str, ...]:
    """The names of the classes to adapt with, in the source's order; each domain is given as its name and classes.

    >>> chosen_classes(("photo", ("cat", "dog", "owl")), ("sketch", ("dog", "cat", "pig")), "shared")
    ('cat', 'dog')
    >>> chosen_classes(("photo", ("cat", "dog")), ("sketch", ("cat", "pig")), None)
    Traceback (most recent call last):
    tljax.recipes.options.SettingsError: the domains have other classes: 'sketch' lacks 'dog', and 'photo' lacks ...
    """
    shared = tuple(name for name in source[1] if name in target[1])
    if classes not in (None, SHARED):
        chosen = [tuple(names[i] for i in class_indices(str(classes), names)) for _, names in (source, target)]
        if set(chosen[0]) != set(chosen[1]):
            raise SettingsError(f"classes={classes!r} are {_listed(chosen[0])} in {source[0]!r} and "
                                f"{_listed(chosen[1])} in {target[0]!r}; they must be the same")  # fmt: skip
        shared = chosen[0]
    elif classes is None and set(source[1]) != set(target[1]):
        missing = [
            f"{side[0]!r} lacks {_listed([name for name in other[1] if name not in side[1]])}"
            for side, other in ((target, source), (source, target))
            if set(other[1]) - set(side[1])
        ]
        hint = f"; --classes {SHARED} adapts with those that both have: {_listed(shared)}" if len(shared) > 1 else ""
        raise SettingsError(
            f"the domains have other classes: {', and '.join(missing)}. All methods here are for equal ones{hint}"
        )
    if len(shared) < 2:
        raise SettingsError(
            f"{source[0]!r} and {target[0]!r} share {len(shared)} of their classes "
            f"({_listed(source[1])}; {_listed(target[1])}); two or more are needed"
        )
    return shared


def in_one_form(source: Source, target: Source, shape: tuple[int, ...] | None) -> tuple[Source, Source]:
    """Both data sets with inputs of `shape`, or of the source's.

    Raises `SettingsError` for inputs other than images that differ.
    """
    wanted = tuple(source.train.x.shape[1:]) if shape is None else shape
    both = []
    for found in (source, target):
        have = tuple(found.train.x.shape[1:])
        if have != wanted:
            if len(have) != 3 or len(wanted) != 3:
                raise SettingsError(
                    f"{found.name!r} has examples of shape {list(have)}; expected {list(wanted)}: only images can be "
                    "brought to one shape"
                )
            found = found.map(lambda part: match_images(part, *wanted))
            note = f"images were brought to {'x'.join(map(str, wanted))}"
            found = dataclasses.replace(found, notes=(*found.notes, note))
        both.append(found)
    return both[0], both[1]


def standardised(domains: Domains) -> Domains:
    """Both domains, standardised by what the source is trained on."""
    statistics = fit_standardiser(domains.source.train.x)

    def scaled(task: Task) -> Task:
        parts = {
            name: dataclasses.replace(part, x=standardise(part.x, statistics))
            for name in ("train", "valid", "test")
            if (part := getattr(task, name)) is not None
        }
        return dataclasses.replace(task, statistics=statistics, **parts)

    return Domains(scaled(domains.source), scaled(domains.target))


def noted(domains: Domains, batch_size: int) -> Domains:
    """The domains, with a note on each that has fewer examples to train on than a batch takes."""

    def one(task: Task) -> Task:
        size = len(task.train)
        if size >= batch_size:
            return task
        note = f"{size} examples to train on, smaller than a batch of {batch_size}, in which some come several times"
        return dataclasses.replace(task, notes=(*task.notes, note))

    return Domains(*map(one, domains))


def _target_parts(target: Any, seed: int) -> tuple[Examples, Examples, str]:
    """What is trained on, what validators look at, and how it came about."""
    train = target.train
    if target.valid is not None:
        return train, target.valid, f"label-free validation on its validation part ({len(target.valid)} examples)"
    held = int(min(VALIDATION_SHARE * len(train), VALIDATION_MOST))
    if held < 10:
        return train, train, f"too few examples to hold some out: label-free validation on the {len(train)} trained on"
    order = np.random.default_rng(seed).permutation(len(train))
    told = f"label-free validation on {held} of its training examples, held out at random"
    return train.take(np.sort(order[held:])), train.take(np.sort(order[:held])), told


def _relabelled(part: Any, names: tuple[str, ...]) -> Any:
    """The examples of the classes `names`, which become 0, 1 ... in this order."""
    new = np.array([names.index(name) if name in names else -1 for name in part.classes], np.int32)[part.y]
    kept = np.flatnonzero(new >= 0)
    if not kept.size:
        raise SettingsError(f"{part.name!r} has no example of {_listed(names)}")
    return dataclasses.replace(part.take(kept), y=new[kept], classes=names)


def _mapped(found: Any, change: Callable[[Any], Any]) -> Any:
    valid = None if found.valid is None else change(found.valid)
    return dataclasses.replace(found, train=change(found.train), test=change(found.test), valid=valid)


def _listed(names: Any) -> str:
    names = list(names)
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(map(repr, names[:_MOST_NAMED])) + more if names else "none"
