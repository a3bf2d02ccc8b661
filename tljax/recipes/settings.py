"""The settings of `tljax transfer`: every option with its default, checked in one place."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

from tljax.models import CATALOG
from tljax.recipes.numerics import Numerics
from tljax.recipes.options import described, read_settings, require, require_known, run_folder

METHODS = ("full", "linear-probe", "lp-ft")


@dataclasses.dataclass(frozen=True)
class Settings(Numerics):
    """What `tljax transfer` is asked to do. Each field is an option of the same name."""

    NUMBERS: ClassVar = Numerics.NUMBERS | {"image_size": int, "learning_rates": float}

    source: str = "digits"
    target: str = "digits"
    source_classes: str | None = None
    target_classes: str | None = None
    label: str | None = None
    image_size: int | None = None
    labels_per_class: int = 10
    shots: tuple[int, ...] = ()
    """Labels per class of the curve; empty: 1, 2, 5, 10 up to `labels_per_class`."""
    model: str = "resnet8"
    method: str = "full"
    seeds: int = 5
    """Draws of the labelled examples."""
    repeats: int = 1
    """Training seeds on each draw; with 2 or more the spread is told apart by draw and by training."""
    seed: int = 0
    steps: int = 100
    pretrain_steps: int = 400
    augment: bool = True
    """Whether images are shifted by a few pixels while pretraining."""
    batch_size: int = 32
    learning_rates: tuple[float, ...] = (3e-3, 1e-2)
    run_dir: str | None = None
    resume: bool = True

    def __post_init__(self) -> None:
        self.of_fit(max(self.batch_size, 1))
        for name in ("labels_per_class", "seeds", "repeats", "steps", "pretrain_steps", "batch_size"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(self.image_size is None or self.image_size >= 1, "image_size", self.image_size, "1 or more")
        require(all(k >= 1 for k in self.shots), "shots", self.shots, "numbers of labels per class, 1 or more each")
        rates = self.learning_rates
        require(bool(rates) and all(0 < r < 1e3 for r in rates), "learning_rates", rates, "positive numbers")
        require(
            self.seed >= 0 and self.seed + self.seeds * self.repeats < 2**31,
            "seed",
            self.seed,
            "0 or more, and below 2^31",
        )
        require_known("model", self.model, CATALOG)
        require_known("method", self.method, METHODS)

    @property
    def all_shots(self) -> tuple[int, ...]:
        """Labels per class of the curve, ascending; the main comparison's among them."""
        curve = self.shots or tuple(k for k in (1, 2, 5, 10) if k < self.labels_per_class)
        return tuple(sorted({*curve, self.labels_per_class}))

    @property
    def classes(self) -> tuple[str | None, str | None]:
        """The classes of source and target; the digits are cut in two where nothing else is said."""
        if (self.source, self.target, self.source_classes, self.target_classes) == ("digits", "digits", None, None):
            return "0-4", "5-9"
        return self.source_classes, self.target_classes

    @property
    def title(self) -> str:
        """Source and target in a few words."""
        names = [pathlib.PurePath(spec).name for spec in (self.source, self.target)]
        return " -> ".join(f"{n} {c}" if c else n for n, c in zip(names, self.classes))

    def described(self) -> dict[str, Any]:
        """What decides the result, as JSON values."""
        return described(self) | {"shots": list(self.all_shots)}

    @property
    def folder(self) -> pathlib.Path:
        """The run folder: the one given, or one named after the settings."""
        return run_folder(self.run_dir, self.described(), self.title, self.model, self.method)


def settings_from(values: Mapping[str, Any]) -> Settings:
    """`Settings` from option names and values; raises `SettingsError` as `read_settings` does.

    >>> settings_from({"model": "lenet", "shots": [1, 5]}).all_shots
    (1, 5, 10)
    >>> settings_from({"stpes": 10})
    Traceback (most recent call last):
    tljax.recipes.options.SettingsError: unknown option 'stpes'; did you mean 'steps', ...
    """
    return read_settings(Settings, values)
