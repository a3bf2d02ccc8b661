"""A run that can start: its program, its data, and what it is known by."""

import dataclasses
from collections.abc import Callable
from typing import Any

from tljax.data import ExampleStream
from tljax.objectives import Term
from tljax.plans import Resolved
from tljax.training.choosing import Chooser
from tljax.training.inputs import FitError
from tljax.training.mesh import mesh_text
from tljax.training.options import Options
from tljax.training.placement import Placement
from tljax.training.program import Choices, Fed, Program
from tljax.training.rhythm import Rhythm
from tljax.types import Batch, Model


@dataclasses.dataclass
class Prepared:
    """A run that can start."""

    program_of: Callable[[int], Program]
    """The program for a number of microbatches."""
    program: Program
    streams: dict[str, Any]
    """A `Stream` of each of the training data; in the place of those that are streamed, a `Fed` of zeros."""
    fed: dict[str, ExampleStream]
    """Those that are streamed."""
    valid: Batch | Chooser | None
    """The validation data, of streamed ones a sample; or what chooses by a validator, with its data."""
    exam: ExampleStream | None
    """The validation data if they are streamed."""
    options: Options
    rhythm: Rhythm
    resolved: Resolved
    choices: Choices
    description: dict[str, Any]
    accumulate: int
    """Microbatches that each batch is cut into; 1 as long as they are to be chosen."""
    objective: Term
    alone: "Prepared | None" = None
    """Of a run on a mesh, the same run on one device: what it is known by, wherever it goes on."""
    tolerant: bool = False
    """Whether a loss that is not finite is an outcome, as in a stack, and ends nothing."""

    @property
    def placement(self) -> Placement | None:
        """Where the run lies on a mesh."""
        return self.choices.placement

    def on_mesh(self, program_of: Callable[[int], Program], model: Model, choices: Choices) -> "Prepared":
        """The same run with programs made for the placement in `choices`, and the data where they want them.

        Raises `FitError` for batches that do not divide.
        """
        placement = choices.placement
        assert placement is not None
        _check_batches(choices, placement, self.accumulate)
        valid = self.valid
        if isinstance(valid, Chooser):
            valid = valid.placed(model, placement, choices.patience)
        elif valid is not None:
            valid = placement.everywhere(placement.filled(valid))
        streams = {name: placement.divided(s) if isinstance(s, Fed) else placement.everywhere(s)
                   for name, s in self.streams.items()}  # fmt: skip
        program = program_of(self.accumulate)
        return dataclasses.replace(
            self, program_of=program_of, program=program, streams=streams, valid=valid, choices=choices, alone=self
        )


def _check_batches(choices: Choices, placement: Placement, accumulate: int) -> None:
    parts = placement.examples
    for name, size in choices.batch_sizes:
        if size % (accumulate * parts):
            cut = f", cut into accumulate={accumulate} microbatches," if accumulate > 1 else ""
            raise FitError(
                f"batch_size of {name!r}{cut} is divided into {parts} parts on {mesh_text(placement.mesh)}, so it must "
                f"be a multiple of {accumulate * parts}; found {size}"
            )
