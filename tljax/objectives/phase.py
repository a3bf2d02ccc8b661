"""Phases: what an objective does when a step is not one update, as in methods that play against themselves."""

from typing import NamedTuple

from tljax.tree import Spec


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
