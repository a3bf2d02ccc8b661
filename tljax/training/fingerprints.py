"""What a run is known by: when it is continued, and by the processes that make it together."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tljax.checkpoints.checksum import checksum
from tljax.checkpoints.run import differences
from tljax.processes import from_first, together
from tljax.training.choosing import Chooser
from tljax.training.feeding import known_by
from tljax.training.inputs import FitError
from tljax.training.prepared import Prepared
from tljax.training.state import Run


def description(prepared: Prepared, given: tuple[Any, ...], run: Run) -> dict[str, Any]:
    """The run in JSON values, the same on every mesh. `given`: parameters, seed and rate that it began with.

    Raises:
      FitError: this process was given another run than the first; ProcessError: another was.
    """
    start = {"seed": np.asarray(run.state.seed).tolist(), "rate": np.asarray(run.state.rate).tolist()}
    own = prepared.description | start | _fingerprints(prepared.alone or prepared, given, run)
    first = from_first(lambda: own)
    together(lambda: _refuse_other(first, own))
    return own


def _refuse_other(first: Any, own: Any) -> None:
    lines = differences(first, own)
    if lines:
        raise FitError(f"process {jax.process_index()} was given another run than process 0:\n  " + "\n  ".join(lines))


def _fingerprints(prepared: Prepared, start: tuple[Any, ...], run: Run) -> dict[str, str]:
    """What tells two runs apart beyond their stated settings: the text of the programs, the start, and the data.

    `prepared`: on one device, so that they are the same on every mesh. `start`: what the run began with.
    """
    program, streams, valid = prepared.program, prepared.streams, prepared.valid
    examples = valid.data if isinstance(valid, Chooser) else valid
    # Shapes alone: arrays that were placed on devices, as restored ones are, leave traces in the text.
    shapes, held_out = jax.tree.map(_shape, (run, streams)), jax.tree.map(_shape, examples)
    begin = program.start.lower(*jax.tree.map(_shape, (*start, streams))).as_text()
    train = program.advance.lower(*shapes, jax.ShapeDtypeStruct((), jnp.int32)).as_text()
    if isinstance(valid, Chooser):
        evaluation = valid.text(shapes[0])
    else:
        evaluation = "" if valid is None else program.validate.lower(shapes[0], held_out).as_text()
    fed, exam = prepared.fed, prepared.exam
    return {
        "training program (optimiser, schedule, loss, model)": _digest(train.encode()),
        "evaluation program": _digest(evaluation.encode()),
        "starting parameters": _digest(checksum(start).tobytes() + begin.encode()),
        "training data": _digest(b"".join([checksum(streams).tobytes(), *(known_by(fed[n]) for n in sorted(fed))])),
        "validation data": _digest(checksum(examples).tobytes() if exam is None else known_by(exam)),
    }


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
