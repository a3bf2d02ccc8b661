"""Reversible keymaps: how a model's leaves are named and laid out elsewhere, said once, used in both directions.

    Keymap((
        *conv("backbone/stem/conv", "conv1"),
        *batch_norm("backbone/stage_{s}/block_{b:02}/norm_{n}", "layer{s}.{b}.bn{n}"),
        *dense("head", "fc"),
    ))

A pattern of ours captures whole numbers, which their pattern writes again (`tljax.checkpoints.pattern`).  A rule that
matches no leaf of a model does nothing, so one keymap serves all depths, with and without biases.

Binding a keymap to the leaves of a model gives a table of pairs.  Import reads the table from right to left, export
from left to right: there is no second table that could disagree.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tljax.checkpoints.layouts import SAME, Layout, LayoutError
from tljax.checkpoints.pattern import KeymapError, fill, match
from tljax.tree import named_leaves, natural_key, nearest


class Rule(NamedTuple):
    """Leaves of ours, and what they are elsewhere. Mostly one and one; several where theirs are fused."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    layout: Layout = SAME


class Extra(NamedTuple):
    """A leaf that only they have, such as a counter: ignored on import, written with `value` on export."""

    theirs: str
    value: Any
    """An array, or what NumPy makes one of."""
    beside: str
    """The pattern of the leaf of ours it goes with; once for each that matches."""


class Link(NamedTuple):
    """A rule for the leaves of one model."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    layout: Layout


@dataclasses.dataclass(frozen=True)
class Imported:
    """What a keymap made of a file."""

    leaves: dict[str, np.ndarray]
    """The arrays by our names."""
    missing: tuple[str, ...]
    """Their names that the model needs and the file lacks."""
    unexpected: tuple[str, ...]
    """Their names in the file that no rule knows."""
    ignored: tuple[str, ...]
    """Their names in the file that the keymap knows and the model has no use for."""
    unmapped: tuple[str, ...]
    """Our names that the keymap does not know."""


@dataclasses.dataclass(frozen=True)
class Keymap:
    """The names and layouts of one convention for one model.

    Raises `KeymapError` for a rule whose layout takes other numbers of leaves.
    """

    rules: tuple[Rule, ...]
    extras: tuple[Extra, ...] = ()
    ignored: tuple[str, ...] = ()
    """Regular expressions for whole names of theirs that the model has no use for: a pre-training head, old buffers."""
    config: Mapping[str, Any] | None = None
    """What config.json says of the model under this convention. A value that is a function is called with the exported
    leaves and the further entries that `export` was given: see `size`."""
    beside: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Further JSON files of a folder under this convention, by their names in it."""

    def __post_init__(self) -> None:
        for rule in self.rules:
            found, wanted = (len(rule.ours), len(rule.theirs)), (rule.layout.ours, rule.layout.theirs)
            if found != wanted:
                raise KeymapError(
                    f"the rule {rule.ours} -> {rule.theirs} has {found[0]} leaves of ours and {found[1]} of theirs; "
                    f"the layout {rule.layout.name} takes {wanted[0]} and {wanted[1]}"
                )

    def bind(self, names: Iterable[str]) -> "Binding":
        """The table of pairs for the leaves `names` of a model.

        Raises `KeymapError` when two rules claim a leaf, or two leaves one name of theirs.

        >>> binding = Keymap((Rule(("head/bias",), ("fc.bias",)),)).bind(["head/bias", "head/kernel"])
        >>> binding.expected, binding.unmapped
        (('fc.bias',), ('head/kernel',))
        """
        return _bind(self, tuple(names))

    def import_(self, flat: Mapping[str, Any], names: Iterable[str]) -> Imported:
        """Their leaves `flat` under our names, for a model whose leaves are called `names`."""
        return self.bind(names).import_(flat)

    def export(self, params: Any) -> dict[str, np.ndarray]:
        """The leaves of the tree `params` under their names; the inverse of `import_`.

        Raises `KeymapError` when the keymap does not know a leaf.

        >>> Keymap((Rule(("head/bias",), ("fc.bias",)),)).export({"head": {"bias": np.ones(2)}})
        {'fc.bias': array([1., 1.])}
        """
        return self.bind(named_leaves(params)).export(named_leaves(params))

    def without_prefix(self, prefix: str, *, config: Mapping[str, Any] | None = None) -> "Keymap":
        """This keymap for a file of just what stands under `prefix`, such as a model saved without its head.

        Rules for anything else fall away.

        >>> keymap = Keymap((Rule(("backbone/w",), ("bert.w",)), Rule(("head/w",), ("classifier.w",))))
        >>> keymap.without_prefix("bert.").rules[0].theirs, len(keymap.without_prefix("bert.").rules)
        (('w',), 1)
        """

        def short(theirs: str) -> str:
            return theirs.removeprefix(prefix)

        rules = [r._replace(theirs=tuple(map(short, r.theirs))) for r in self.rules if r.theirs[0].startswith(prefix)]
        extras = [e._replace(theirs=short(e.theirs)) for e in self.extras if e.theirs.startswith(prefix)]
        escaped = re.escape(prefix)
        ignored = tuple(pattern.removeprefix(escaped) for pattern in self.ignored)
        return Keymap(tuple(rules), tuple(extras), ignored, config)


@dataclasses.dataclass(frozen=True)
class Binding:
    """A keymap for the leaves of one model."""

    links: tuple[Link, ...]
    extras: Mapping[str, Any]
    ignored: tuple[str, ...]
    unmapped: tuple[str, ...]
    """Our names that the keymap does not know."""

    @property
    def expected(self) -> tuple[str, ...]:
        """Their names of all leaves."""
        return tuple(name for link in self.links for name in link.theirs)

    def missing(self, given: Iterable[str]) -> tuple[str, ...]:
        """Their names that are not among `given`."""
        there = set(given)
        return tuple(name for name in self.expected if name not in there)

    def useless(self, given: Iterable[str]) -> tuple[str, ...]:
        """Names among `given` that the keymap knows and the model has no use for."""
        wanted = {*self.expected, *self.extras}
        return tuple(n for n in given if n not in wanted and any(re.fullmatch(p, n) for p in self.ignored))

    def unexpected(self, given: Iterable[str]) -> tuple[str, ...]:
        """Names among `given` that the keymap does not know."""
        given = tuple(given)
        known = {*self.expected, *self.extras, *self.useless(given)}
        return tuple(name for name in given if name not in known)

    def ours_of(self, theirs: Iterable[str]) -> tuple[str, ...]:
        """Our names of the leaves that need any of these names of theirs."""
        wanted = set(theirs)
        return tuple(name for link in self.links if wanted & set(link.theirs) for name in link.ours)

    def import_(self, flat: Mapping[str, Any]) -> Imported:
        """Their leaves `flat` under our names.

        Raises `KeymapError` naming a leaf that its layout cannot take.
        """
        leaves: dict[str, np.ndarray] = {}
        for link in self.links:
            if all(name in flat for name in link.theirs):
                arrays = [np.asarray(flat[name]) for name in link.theirs]
                leaves |= zip(link.ours, _laid_out(link, link.layout.load, arrays, link.theirs), strict=True)
        return Imported(leaves, self.missing(flat), self.unexpected(flat), self.useless(flat), self.unmapped)

    def export(self, leaves: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Our `leaves` by name under their names, in their layout, with what only they have.

        Raises `KeymapError` when the keymap does not know a leaf.
        """
        if self.unmapped:
            raise KeymapError(f"the keymap has no rule for {listed(self.unmapped)}")
        flat: dict[str, np.ndarray] = {}
        for link in self.links:
            arrays = [np.asarray(leaves[name]) for name in link.ours]
            flat |= zip(link.theirs, _laid_out(link, link.layout.save, arrays, link.ours), strict=True)
        flat |= {name: np.asarray(value) for name, value in self.extras.items()}
        return {name: flat[name] for name in sorted(flat, key=lambda name: natural_key(name.replace(".", "/")))}


def size(ending: str, axis: int = 0) -> Callable[[Mapping[str, Any], Mapping[str, Any]], int]:
    """For `Keymap.config`: the length of an axis of the leaf of theirs whose name ends like this.

    >>> size("embeddings.weight", 1)({"bert.embeddings.weight": np.zeros((100, 8))}, {})
    8
    """
    return lambda flat, given: next(int(leaf.shape[axis]) for name, leaf in flat.items() if name.endswith(ending))


def listed(names: Sequence[str], most: int = 12) -> str:
    """`names` for a message, the first `most` of them.

    >>> listed(["a", "b", "c"], most=2)
    "'a', 'b' and 1 more"
    """
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + rest


def _bind(keymap: Keymap, names: tuple[str, ...]) -> Binding:
    known = set(names)
    links: list[Link] = []
    owner: dict[str, Rule] = {}
    for name in names:
        for rule in keymap.rules:
            numbers = match(rule.ours[0], name)
            if numbers is None:
                continue
            link = Link(
                tuple(fill(p, numbers) for p in rule.ours), tuple(fill(p, numbers) for p in rule.theirs), rule[2]
            )
            for leaf in link.ours:
                _claim(leaf, rule, owner, known)
            links.append(link)
    theirs = [name for link in links for name in link.theirs]
    if len(set(theirs)) < len(theirs):
        twice = sorted({name for name in theirs if theirs.count(name) > 1})
        raise KeymapError(f"the keymap gives two leaves the same name: {listed(twice)}")
    extras = {
        fill(extra.theirs, numbers): extra.value
        for extra in keymap.extras
        for name in names
        if (numbers := match(extra.beside, name)) is not None
    }
    return Binding(tuple(links), extras, keymap.ignored, tuple(name for name in names if name not in owner))


def _claim(leaf: str, rule: Rule, owner: dict[str, Rule], known: set[str]) -> None:
    if leaf not in known:
        raise KeymapError(
            f"the rule {rule.ours} -> {rule.theirs} needs the leaf {leaf!r}, which the model does not have; "
            f"the nearest are {listed(nearest(leaf, known)) or 'none'}"
        )
    if leaf in owner:
        raise KeymapError(f"two rules claim the leaf {leaf!r}: {owner[leaf].theirs} and {rule.theirs}")
    owner[leaf] = rule


def _laid_out(link: Link, turn: Any, arrays: list[np.ndarray], names: tuple[str, ...]) -> list[np.ndarray]:
    try:
        return turn(arrays)
    except (LayoutError, ValueError) as error:
        shapes = ", ".join(f"{name!r} {list(array.shape)}" for name, array in zip(names, arrays))
        raise KeymapError(f"{shapes} cannot be laid out as {link.layout.name}: {error}") from error
