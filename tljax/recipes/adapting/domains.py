"""The two domains of an adaptation: brought to the same classes and the same form, and split.

Labels of the target are never looked at here but to name its classes: its parts are cut at random, not by class.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tljax.data import Source, Unlabelled, fit_standardiser, match_images, standardise
from tljax.data.classes import class_indices
from tljax.recipes.adapting.settings import SHARED
from tljax.recipes.options import SettingsError
from tljax.recipes.tasks import VALIDATION_MOST, VALIDATION_SHARE, Examples, Task, of_classes, with_validation

SCALES = 8.0
"""The spread of values in one domain over that in the other from which on one of them is taken to be wrong."""
_MOST_NAMED = 8


class Domains(NamedTuple):
    """What is adapted from, and what to; both have the same classes and the same form of inputs."""

    source: Task
    """Labelled; its validation part is held out of training."""
    target: Task
    """Trained on without labels. `valid` is what label-free validators look at; only `test` is read with labels. Where
    none are read, `test` is the whole target, `Unlabelled` as the other parts."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.source.train.classes

    @property
    def example(self) -> Any:
        """One example with a leading axis of 1."""
        return jax.tree.map(lambda a: a[:1], self.source.train.x)


def as_domains(source: Any, target: Any, classes: str | None, seed: int) -> Domains:
    """The domains that two data sets make with some or all of their classes.

    `source` is a `Source` or a `TextSource`, `target` one too, or `Unlabelled`: then it is taken to have the classes of
    the source.

    Raises `SettingsError` where classes are on one side only, unless `classes` chooses among the shared ones, or where
    labels are no classes.
    """
    if isinstance(target, Unlabelled):
        target = dataclasses.replace(target, classes=source.train.classes)
        known = (target.name, target.classes)
    else:
        _require_classes(target.train)
        known = (target.name, target.train.classes)
    _require_classes(source.train)
    names = chosen_classes((source.name, source.train.classes), known, classes)
    source, target = (_noting_left_out(side, names) for side in (source, target))
    source = _mapped(source, lambda part: of_classes(part, names))
    train, valid = with_validation(source.train, source.valid, seed)
    features = getattr(source, "features", ())  # sentences have none
    ours = Task(source.name, train, valid, source.test, source.notes, features=features)
    return Domains(ours, _target(target, names, seed))


def tested_on(domains: Domains, test: Examples | None) -> Domains:
    """The domains of an unlabelled target, with labelled examples of it to test on, or where there are none a note."""
    target = domains.target
    if test is None:
        return domains._replace(target=_noting(target, f"all {len(target.test)} examples are predicted"))
    target = dataclasses.replace(target, test=test)
    return domains._replace(target=_noting(target, f"tested on {len(test)} labelled examples, of {test.name!r}"))


def _noting_left_out(found: Any, names: tuple[str, ...]) -> Any:
    """A note of the classes whose examples are left out, if there are any."""
    own = found.classes if isinstance(found, Unlabelled) else found.train.classes
    left = [name for name in own if name not in names]
    note = f"without the examples of {len(left)} of its {len(own)} classes, {_listed(left)}"
    return _noting(found, note) if left else found


def _noting(found: Any, note: str) -> Any:
    """A `Task`, a data set or `Unlabelled` with one more note."""
    return dataclasses.replace(found, notes=(*found.notes, note))


def _require_classes(part: Any) -> None:
    if part.task != "classes":
        shown = ", ".join(str(value) for value in np.asarray(part.y[:3]).tolist())
        raise SettingsError(f"{part.name!r} has not one class per example, which tljax adapt needs; y begins {shown}")


def _target(target: Any, names: tuple[str, ...], seed: int) -> Task:
    """The target in its parts: what is trained on, what validators look at, and what is tested on."""
    if isinstance(target, Unlabelled):
        whole = dataclasses.replace(target, classes=names)
        train, held, note = _held_out(whole, seed)
        return Task(whole.name, train, held, whole, (*whole.notes, note))
    target = _mapped(target, lambda part: of_classes(part, names))
    if target.valid is None:
        train, held, note = _held_out(target.train, seed)
    else:
        train, held = target.train, target.valid
        note = f"label-free validation on its validation part ({len(held)} examples)"
    return Task(target.name, train, held, target.test, (*target.notes, note))


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
            f"the domains have other classes: {', and '.join(missing)}. All methods here are for equal ones"
            f"{_spelling(source[1], target[1]) or hint}"
        )
    if len(shared) < 2:
        which = "" if classes in (None, SHARED) else f" that classes={classes!r} chooses"
        raise SettingsError(
            f"{source[0]!r} and {target[0]!r} have {'one class' if shared else 'no class'} in common{which} "
            f"({_listed(source[1])}; {_listed(target[1])}); two or more are needed"
        )
    return shared


def _spelling(ours: Sequence[str], theirs: Sequence[str]) -> str:
    """What may be the same classes by other names, as ", or ..."; nothing where nothing looks like it.

    >>> _spelling(("0", "1", "2"), ("1", "2", "3"))
    '; do the labels of one begin at 1 and of the other at 0? Then they are shifted, and need the same beginning'
    >>> _spelling(("Ant", "bee"), ("ant", "bee")), _spelling(("ant",), ("bee",))
    ('; some differ in capitals or leading zeros alone: give them the same names', '')
    """
    if len(ours) == len(theirs) and all(name.isdecimal() for name in (*ours, *theirs)):
        pairs = zip(sorted(map(int, ours)), sorted(map(int, theirs)), strict=True)
        if {b - a for a, b in pairs} in ({1}, {-1}):
            return (
                "; do the labels of one begin at 1 and of the other at 0? Then they are shifted, and need the same "
                "beginning"
            )
    alike = {name.lower().lstrip("0") for name in ours if name not in theirs}
    if alike & {name.lower().lstrip("0") for name in theirs if name not in ours}:
        return "; some differ in capitals or leading zeros alone: give them the same names"
    return ""


def in_one_form(source: Source, target: Any, shape: tuple[int, ...] | None) -> tuple[Source, Any]:
    """Both data sets with inputs of `shape`, or of the source's; `target` is a `Source` or `Unlabelled`.

    Raises `SettingsError` for inputs other than images that differ.
    """
    wanted = tuple(source.train.x.shape[1:]) if shape is None else shape
    return _noted_form(source, wanted), _noted_form(target, wanted)


def in_form(data: Any, shape: tuple[int, ...]) -> Any:
    """A `Dataset` or `Unlabelled` with examples of `shape`; raises `SettingsError` for others than images."""
    have = tuple(data.x.shape[1:])
    if have == shape:
        return data
    if len(have) != 3 or len(shape) != 3:
        said = f"{data.name!r} has examples of shape {list(have)}; expected {list(shape)}"
        hint = "; a table needs as many columns as the source's, or their names" if len(have) == 1 else ""
        raise SettingsError(f"{said}: only images can be brought to one shape{hint}")
    return match_images(data, *shape)


def _noted_form(found: Any, wanted: tuple[int, ...]) -> Any:
    if tuple((found if isinstance(found, Unlabelled) else found.train).x.shape[1:]) == wanted:
        return found
    note = f"images were brought to {'x'.join(map(str, wanted))}"
    return _noting(_each(found, lambda part: in_form(part, wanted)), note)


def _each(found: Any, change: Callable[[Any], Any]) -> Any:
    return change(found) if isinstance(found, Unlabelled) else _mapped(found, change)


def standardised(domains: Domains) -> Domains:
    """Both domains, standardised by what the source is trained on.

    Raises `SettingsError` for images whose values are on two scales.
    """
    _require_one_scale(domains)
    statistics = fit_standardiser(domains.source.train.x)

    def scaled(task: Task) -> Task:
        parts = {
            name: dataclasses.replace(part, x=standardise(part.x, statistics))
            for name in ("train", "valid", "test")
            if (part := getattr(task, name)) is not None
        }
        return dataclasses.replace(task, statistics=statistics, **parts)

    return Domains(scaled(domains.source), _noting_columns(scaled(domains.target), domains))


def _noting_columns(target: Task, domains: Domains) -> Task:
    """A note of the columns of a table that spread `SCALES` times as wide in one domain as in the other.

    A column that is the same everywhere in a domain is left on its scale, and counts as of spread 1.
    """
    parts = domains.source.train.x, domains.target.train.x
    if parts[0].ndim != 2 or not all(map(len, parts)):
        return target
    spreads = [np.std(x, axis=0) for x in parts]
    narrow, wide = np.sort([np.where(spread == 0, 1, spread) for spread in spreads], axis=0)
    names = domains.source.features or [f"column {i}" for i in range(len(wide))]
    found = [names[i] for i in np.flatnonzero(wide >= SCALES * narrow)]
    note = (
        f"{len(found)} of {len(wide)} columns spread {SCALES:g} times as wide or more in one domain as in the other, "
    )
    note += f"{_listed(found)}: are they in the same units?"
    return _noting(target, note) if found else target


def _require_one_scale(domains: Domains) -> None:
    """Raises for images whose values spread `SCALES` times as wide in one domain as in the other."""
    parts = domains.source.train, domains.target.train
    if parts[0].x.ndim != 4:
        return
    for part in parts:
        if np.min(part.x) == np.max(part.x):
            raise SettingsError(
                f"all pixels of {part.name!r} are {np.min(part.x):g}: there is nothing to tell its images by, or it "
                "stands in an alpha channel, which is not read"
            )
    narrow, wide = sorted(float(np.std(part.x)) for part in parts)
    if wide >= SCALES * narrow:
        spans = (f"{part.name!r} go from {np.min(part.x):g} to {np.max(part.x):g}" for part in parts)
        raise SettingsError(
            f"the values of the images of {' and those of '.join(spans)}: bring both to one scale, as 0 to 1, or give "
            "bytes (uint8), which are divided by 255"
        )


def noted(domains: Domains, batch_size: int) -> Domains:
    """The domains, with a note on each that has fewer examples to train on than a batch takes."""

    def one(task: Task) -> Task:
        size = len(task.train)
        if size >= batch_size:
            return task
        return _noting(
            task, f"{size} examples to train on, smaller than a batch of {batch_size}, in which some come several times"
        )

    return Domains(*map(one, domains))


def _held_out(train: Examples, seed: int) -> tuple[Examples, Examples, str]:
    """What is left to train on, what validators look at, and how it came about."""
    held = int(min(VALIDATION_SHARE * len(train), VALIDATION_MOST))
    if held < 10:
        return train, train, f"too few examples to hold some out: label-free validation on the {len(train)} trained on"
    order = np.random.default_rng(seed).permutation(len(train))
    told = f"label-free validation on {held} of its training examples, held out at random"
    return train.take(np.sort(order[held:])), train.take(np.sort(order[:held])), told


def _mapped(found: Any, change: Callable[[Any], Any]) -> Any:
    valid = None if found.valid is None else change(found.valid)
    return dataclasses.replace(found, train=change(found.train), test=change(found.test), valid=valid)


def _listed(names: Any) -> str:
    names = list(names)
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(map(repr, names[:_MOST_NAMED])) + more if names else "none"
