"""The turns of a step: one update of all that learns, or one for each time that a phase of the objective runs.

What learns in the same phases is a *part* of the trainable tree, with one state of the optimiser. A turn takes
gradients of the parts that learn in it, and of nothing else.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from tljax.objectives import Phase, Term
from tljax.tree import map_named, merge, select
from tljax.tree.select import NoMatchError


class Turn(NamedTuple):
    """One update within a step."""

    number: int
    phase: Phase | None
    """None where the objective has no phases."""
    parts: tuple[int, ...]
    """The parts of the trainable tree that learn, as their numbers in `parted`."""
    earlier: int = 0
    """In how many turns before, of this step, terms without phases had a part."""


class Parts(NamedTuple):
    """How a trainable tree is divided."""

    marks: Any
    """A tree like the trainable one: in which phases each leaf learns, as the bits of an int."""
    kinds: tuple[int, ...]
    """The marks that occur, in order."""

    def take(self, tree: Any, part: int) -> Any:
        """The leaves of `tree` that belong to a part, None elsewhere."""
        return jax.tree.map(lambda mark, leaf: leaf if mark == self.kinds[part] else None, self.marks, tree)

    def divide(self, tree: Any, parts: tuple[int, ...]) -> tuple[Any, Any]:
        """The leaves of `tree` in `parts`, and all others; None in the holes of each."""
        inside = {self.kinds[part] for part in parts}
        moving = jax.tree.map(lambda mark, leaf: leaf if mark in inside else None, self.marks, tree)
        return moving, jax.tree.map(lambda mark, leaf: None if mark in inside else leaf, self.marks, tree)

    def replace(self, tree: Any, part: int, new: Any) -> Any:
        """`tree` with the leaves of a part out of `new`."""
        return merge(self.divide(tree, (part,))[1], new)


def parted(objective: Term, trainable: dict[str, Any]) -> Parts:
    """How the phases of `objective` divide ``{"model": ..., "terms": ...}``; a single part where it has none.

    Raises `NoMatchError` for a phase whose selector matches nothing that learns.

    >>> from tljax.objectives import cross_entropy
    >>> parted(cross_entropy(), {"model": {"a": 1.0, "b": None}, "terms": ()})
    Parts(marks={'model': {'a': 0, 'b': None}, 'terms': ()}, kinds=(0,))
    """
    phases = objective.phases
    marks = {
        "model": map_named(lambda name, leaf: _mark(phases, name, leaf), trainable["model"]),
        "terms": jax.tree.map(lambda _: 0, trainable["terms"]),
    }
    for i, phase in enumerate(phases):
        if phase.learns is not None and not any(mark >> i & 1 for mark in jax.tree.leaves(marks["model"])):
            raise NoMatchError(
                f"{objective}: in the phase {phase.name!r} {select(phase.learns)} should learn, and does not"
            )
        learning = objective.learns(phase, trainable["terms"])
        marks["terms"] = jax.tree.map(lambda mark, yes, i=i: mark | yes << i, marks["terms"], learning)
    return Parts(marks, tuple(sorted(set(jax.tree.leaves(marks)))))


def turns(objective: Term, parts: Parts) -> Iterator[Turn]:
    """The updates of a step, in order.

    >>> from tljax.objectives import cross_entropy
    >>> list(turns(cross_entropy(), parted(cross_entropy(), {"model": {"a": 1.0}, "terms": ()})))
    [Turn(number=0, phase=None, parts=(0,), earlier=0)]
    """
    if not objective.phases:
        yield Turn(0, None, tuple(range(len(parts.kinds))))
        return
    number = earlier = 0
    for i, phase in enumerate(objective.phases):
        learning = tuple(part for part, mark in enumerate(parts.kinds) if mark >> i & 1)
        for _ in range(phase.repeat):
            yield Turn(number, phase, learning, earlier)
            number, earlier = number + 1, earlier + phase.others


def logged(metric: str, number: int, phase: Phase | None) -> str:
    """What the loss or the norm of the gradient of a turn is called: that of the first turn is the step's.

    >>> logged("loss", 0, Phase("lead")), logged("loss", 1, Phase("follow"))
    ('loss', 'loss_follow')
    """
    return metric if number == 0 or phase is None else f"{metric}_{phase.name}"


def losses(objective: Term) -> tuple[str, ...]:
    """What the losses of the turns are called, each name once.

    >>> from tljax.objectives import cross_entropy
    >>> losses(cross_entropy())
    ('loss',)
    """
    each: list[Phase | None] = [phase for phase in objective.phases for _ in range(phase.repeat)]
    return tuple(dict.fromkeys(logged("loss", number, phase) for number, phase in enumerate(each or [None])))


def _mark(phases: tuple[Phase, ...], name: str, leaf: Any) -> int:
    learns = [phase.learns is not None and select(phase.learns).matches(name, leaf) for phase in phases]
    return sum(yes << i for i, yes in enumerate(learns))
