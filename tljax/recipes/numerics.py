"""In which type a recipe trains, what it clips, how it saves memory, and on which devices."""

import dataclasses
from typing import Any, ClassVar

from tljax.models.remat import POLICIES
from tljax.recipes.devices import mesh_of
from tljax.recipes.options import require, require_known
from tljax.training.precision import PRECISIONS


@dataclasses.dataclass(frozen=True, kw_only=True)  # before the fields of a recipe, which keep their places
class Numerics:
    """Settings of the training steps. Each field is an option of the same name.

    >>> Numerics(precision="bfloat16", microbatch="8").of_fit(32)
    {'precision': 'bfloat16', 'remat': None, 'accumulate': 4}
    """

    NUMBERS: ClassVar[dict[str, type]] = {"clip_norm": float}

    precision: str = "float32"
    remat: str = "none"
    microbatch: str | None = None
    """Examples that go through the model at once, a number, or "auto": as many as fit into memory; None: the batch."""

    clip_norm: float | None = None
    """The largest norm of a step's gradient, to which longer ones are scaled down; None: as they are."""

    mesh: str | None = None
    """Over which devices training is spread, as "data=4,fsdp=2"; None: one, or of several processes all."""

    def of_fit(self, batch_size: int) -> dict[str, Any]:
        """The keywords of `fit` for such batches; raises `SettingsError` for what is none of the choices."""
        require_known("precision", self.precision, PRECISIONS)
        require_known("remat", self.remat, ("none", *POLICIES))
        pieces: int | str = 1 if self.microbatch is None else "auto"
        if self.microbatch not in (None, "auto"):
            size = int(self.microbatch) if str(self.microbatch).isdigit() else 0
            fits = size >= 1 and batch_size % size == 0
            require(fits, "microbatch", self.microbatch, f"auto, or a divisor of the batch size, {batch_size}")
            pieces = batch_size // size
        remat = None if self.remat == "none" else self.remat
        found: dict[str, Any] = {"precision": self.precision, "remat": remat, "accumulate": pieces}
        if self.clip_norm is not None:
            require(self.clip_norm > 0, "clip_norm", self.clip_norm, "above 0")
            found["clip_norm"] = self.clip_norm
        return found if self.mesh is None else found | {"mesh": mesh_of(self.mesh)}

    @property
    def clipping(self) -> str:
        """What is said of it behind the optimiser's name; "" where nothing is clipped."""
        return "" if self.clip_norm is None else f", gradients clipped to norm {self.clip_norm:g}"
