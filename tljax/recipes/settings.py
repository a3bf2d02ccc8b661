"""The settings of `tljax transfer`: every option with its default, checked in one place."""

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from tljax.models import CATALOG
from tljax.tree import nearest
from tljax.types import TljaxError

METHODS = ("full", "linear-probe", "lp-ft")


class SettingsError(TljaxError):
    """An option that does not exist, or a value that makes no sense."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `tljax transfer` is asked to do. Each field is an option of the same name."""

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
        for name in ("labels_per_class", "seeds", "steps", "pretrain_steps", "batch_size"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        _require(self.image_size is None or self.image_size >= 1, "image_size", self.image_size, "1 or more")
        _require(all(k >= 1 for k in self.shots), "shots", self.shots, "numbers of labels per class, 1 or more each")
        rates = self.learning_rates
        _require(bool(rates) and all(0 < r < 1e3 for r in rates), "learning_rates", rates, "positive numbers")
        _require(self.seed >= 0 and self.seed + self.seeds < 2**31, "seed", self.seed, "0 or more, and below 2^31")
        for name, known in (("model", tuple(CATALOG)), ("method", METHODS)):
            value = getattr(self, name)
            _require(value in known, name, value, f"one of {', '.join(known)}{_did_you_mean(value, known)}")

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
        skipped = ("run_dir", "resume")
        values = {k: v for k, v in dataclasses.asdict(self).items() if k not in skipped}
        return json.loads(json.dumps(values | {"shots": self.all_shots}))

    @property
    def folder(self) -> pathlib.Path:
        """The run folder: the one given, or one named after the settings."""
        if self.run_dir is not None:
            return pathlib.Path(self.run_dir)
        text = json.dumps(self.described(), sort_keys=True)
        words = re.sub(r"[^a-z0-9]+", "-", f"{self.title} {self.model} {self.method}".lower()).strip("-")
        return pathlib.Path("runs") / f"{words}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def settings_from(values: Mapping[str, Any]) -> Settings:
    """`Settings` from option names and values, as they come from a command line or a file.

    Raises `SettingsError` for an unknown name (with the nearest) or a value of the wrong type.

    >>> settings_from({"model": "lenet", "shots": [1, 5]}).all_shots
    (1, 5, 10)
    >>> settings_from({"stpes": 10})
    Traceback (most recent call last):
    tljax.recipes.settings.SettingsError: unknown option 'stpes'; did you mean 'steps', ...
    """
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    for name in values:
        if name not in fields:
            raise SettingsError(f"unknown option {name!r}{_did_you_mean(name, fields)}")
    return Settings(**{name: _typed(name, value, fields[name].default) for name, value in values.items()})


def _typed(name: str, value: Any, default: Any) -> Any:
    """`value` for the option whose default is `default`; raises `SettingsError` where it is of another type."""
    expected: tuple[type, ...]
    if isinstance(default, tuple):
        listed = value if isinstance(value, list | tuple) else [value]
        example = 0.0 if name == "learning_rates" else 0
        return tuple(_typed(name, item, example) for item in listed)
    if isinstance(default, bool):
        expected = (bool,)
    elif isinstance(default, float):
        expected = (int, float)
    elif isinstance(default, int) or name == "image_size":
        expected = (int,)
    else:
        expected = (str,)
    if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
        wanted = " or ".join(t.__name__ for t in expected)
        raise SettingsError(f"option {name!r} should be {wanted}; found {value!r}")
    return float(value) if float in expected else value


def _require(condition: bool, name: str, found: Any, expected: str) -> None:
    if not condition:
        raise SettingsError(f"option {name!r} is {found!r}; it should be {expected}")


def _did_you_mean(name: str, known: Any) -> str:
    near = nearest(str(name), known)
    return f"; did you mean {', '.join(map(repr, near))}?" if near else ""
