"""Phases: what an objective does when a step is not one update, as in methods that play against themselves."""

from typing import NamedTuple

from tljax.tree import Spec
from tljax.types import TljaxError


class PhaseError(TljaxError):
    """A phase that cannot be run."""


class Phase(NamedTuple):
    """One part of a training step, with a forward pass and an update of its own.

    The phases of a term run one after the other in every step; its `apply` finds the name in `scene.phase`. What learns
    in the same phases has one copy of the optimiser, which sees one update each time: a schedule inside the optimiser
    counts those, and a norm that is clipped is that of such a part.

    >>> Phase("features", learns="backbone/**", owned=False, repeat=4, others=False).repeat
    4
    """

    name: str
    learns: Spec | None = "**"
    """Which of the model's trainable parameters learn, as a selector; None for none of them."""
    owned: bool = True
    """Whether the parameters that the term owns learn."""
    repeat: int = 1
    """How often the phase runs in a step."""
    others: bool = True
    """Whether the other terms of the sum count, and what they own learns."""


def check_phases(phases: tuple[Phase, ...], term: str) -> None:
    """Raise `PhaseError`, which names `term`, for a phase that is not run a whole number of times.

    >>> check_phases((Phase("heads", repeat=0),), "mcd(repeat=0)")
    Traceback (most recent call last):
    tljax.objectives.phase.PhaseError: mcd(repeat=0): its phase 'heads' runs 1 time or more in a step; found repeat=0
    """
    for phase in phases:
        if type(phase.repeat) is not int or phase.repeat < 1:
            raise PhaseError(
                f"{term}: its phase {phase.name!r} runs 1 time or more in a step; found repeat={phase.repeat!r}"
            )
