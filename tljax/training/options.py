"""How a run goes: the keywords of `fit`."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jax.sharding import Mesh

from tljax.evaluation import Metric, Validator
from tljax.models.remat import POLICIES
from tljax.training.inputs import FitError
from tljax.training.layout import Layout
from tljax.training.log import Row
from tljax.training.mesh import checked_mesh
from tljax.training.precision import PRECISIONS
from tljax.tree import nearest
from tljax.types import Batch


@dataclasses.dataclass(frozen=True)
class Options:
    """How a run goes. `fit` takes each as a keyword.

    Raises `FitError` for values outside their range.

    >>> Options(steps=100, patience=3).batch_size
    32
    """

    steps: int
    batch_size: int | Mapping[str, int] = 32
    """Examples per step; a dict gives each stream its own."""
    eval_every: int | None = None
    """Steps between evaluations; default: 20 evaluations in the run."""
    log_every: int | None = None
    """Steps between log lines; default: as `eval_every`."""
    save_every: int | None = None
    """Steps between checkpoints; default: every half a minute, and half-way. One is always made at the end."""
    keep: int = 2
    """How many checkpoints are kept."""
    metric: Metric | Validator | None = None
    """What is evaluated on the validation data; default by the labels: classes, several labels, or numbers. With
    streams of validation data, a validator: ``tl.validator("im")``."""
    monitor: str | None = None
    """The metric's number that chooses the best parameters; default: accuracy or rmse, whichever it has."""
    minimize: bool | None = None
    """Whether less of `monitor` is better; needed for names that tljax does not know."""
    patience: int | None = None
    """Evaluations without improvement after which the run ends; None: never."""
    clip_norm: float | None = None
    """Clips the global norm of the gradient."""
    accumulate: int | Literal["auto"] = 1
    """Microbatches that each batch is cut into, to save memory; "auto": the fewest with which a step fits."""
    memory_limit: int | None = None
    """With ``accumulate="auto"``, the bytes of a device that a step may take, parameters, optimiser and data included;
    default: what is free."""
    precision: str = "float32"
    """The type in which the model computes: "float32" (as its parameters are), "bfloat16", or "float16" with a scaled
    loss. Evaluations in the run are in that type too; what learns is float32."""
    remat: str | None = None
    """What the backward pass computes again, to save memory: "blocks" or "dots"; see `make_step`."""
    ema: float | None = None
    """Decay of an average of the parameters, which is then what is evaluated and returned."""
    augment: Callable[..., Batch] | Mapping[str, Callable[..., Batch]] | None = None
    """`augment(key, batch) -> batch`, compiled into the step; a dict gives streams and views their own."""
    views: Mapping[str, str] | None = None
    """Streams that show the examples of another, at the same time, by its name: ``{"weak": "unlabelled"}``."""
    mesh: Mesh | None = None
    """The devices that the run is spread over, as `tljax.mesh` gives them; None: the default device, or wherever
    `params` are. The result is the same but for rounding, and a run may be continued on another mesh."""
    layout: Layout | None = None
    """Which arrays are divided over the mesh, as `tljax.layout` gives it; default: the large ones over its `fsdp`."""
    run_dir: str | pathlib.Path | None = None
    """Where checkpoints and the log go. If a run of the same configuration stands there, it is continued."""
    config: Mapping[str, Any] | None = None
    """JSON values that describe the run; kept in `run_dir` and compared when a run is continued."""
    on_log: Sequence[Callable[[Row], None]] = ()
    """Called with every row of the log."""
    progress: bool | str = True
    """Whether to show a progress bar; a string is its title."""

    def __post_init__(self) -> None:
        for name in ("steps", "keep", "accumulate", *_OPTIONAL):
            value = getattr(self, name)
            left_open = (value is None and name in _OPTIONAL) or (name, value) == ("accumulate", "auto")
            if not left_open and not is_count(value):
                raise FitError(f"{name} must be a whole number, 1 or more; found {value!r}")
        if self.precision not in PRECISIONS:
            raise FitError(f"precision is one of {', '.join(map(repr, PRECISIONS))}; found {self.precision!r}")
        if self.remat not in (None, *POLICIES):
            raise FitError(f"remat is one of {', '.join(map(repr, POLICIES))}, or None; found {self.remat!r}")
        if self.memory_limit is not None and self.accumulate != "auto":
            raise FitError(f'memory_limit is what accumulate="auto" keeps to; found accumulate={self.accumulate!r}')
        if not isinstance(self.on_log, Sequence) or not all(map(callable, self.on_log)):
            raise FitError(f"on_log is a list of functions of a row, as on_log=[print]; found {self.on_log!r}")
        if self.mesh is not None:
            checked_mesh(self.mesh)
        if not isinstance(self.layout, Layout | None):
            raise FitError(f"layout is what tl.layout gives; found {self.layout!r}")
        if self.layout is not None and self.mesh is None:
            raise FitError("a layout says what lies where on a mesh: give it too, as mesh=tl.mesh(fsdp=2)")


_OPTIONAL = ("eval_every", "log_every", "save_every", "patience", "memory_limit")


def is_count(value: Any) -> bool:
    """Whether `value` is a whole number, 1 or more.

    >>> is_count(3), is_count(0), is_count(True)
    (True, False, False)
    """
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)


def options_from(given: Mapping[str, Any]) -> Options:
    """`Options` from keywords; raises `FitError` with the nearest names for one that does not exist.

    >>> options_from({"steps": 10, "batchsize": 8})
    Traceback (most recent call last):
    tljax.training.inputs.FitError: fit has no option 'batchsize'; the nearest are 'batch_size', 'patience', 'minimize'
    """
    known = [field.name for field in dataclasses.fields(Options)]
    for name in given:
        if name not in known:
            close = nearest(name, known) or known
            raise FitError(f"fit has no option {name!r}; the nearest are {', '.join(map(repr, close))}")
    if "steps" not in given:
        raise FitError("fit needs the number of updates to make: steps=1000")
    return Options(**given)
