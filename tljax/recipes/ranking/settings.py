"""The settings of `tljax rank`: every option with its default, checked in one place."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

from tljax.recipes.finetune.settings import FinetuneSettings
from tljax.recipes.options import SettingsError, described, read_settings, require, run_folder


@dataclasses.dataclass(frozen=True)
class RankSettings:
    """What `tljax rank` is asked to do. Each field is an option of the same name."""

    NUMBERS: ClassVar = {
        "candidates": str,
        "priors": str,
        "labels_per_class": int,
        "max_length": int,
        "image_size": int,
        "learning_rates": float,
    }

    candidates: tuple[str, ...] = ()
    """Folders or files of pretrained weights; ``NAME=PATH`` gives one a name."""
    data: str = ""
    """A table of sentences, or images in any form that is read."""
    label: str | None = None
    text: str | None = None
    priors: tuple[str, ...] = ()
    """``NAME=0.8``: the accuracy that is expected of a candidate before the data."""
    labels_per_class: int | None = None
    """None: all of the training part."""
    max_length: int | None = None
    image_size: int | None = None
    subsets: int = 50
    racing: bool = True
    finetune: int = 0
    """How many are fine-tuned."""
    seeds: int = 1
    """Of fine-tuning."""
    seed: int = 0
    steps: int = 100
    batch_size: int = 16
    learning_rates: tuple[float, ...] = ()
    cache: str | None = None
    """A folder for features."""
    run_dir: str | None = None
    resume: bool = True

    def __post_init__(self) -> None:
        require(bool(self.data), "data", self.data, "given: --data ...")
        require(bool(self.candidates), "candidates", self.candidates, "given: --candidates PATH PATH ...")
        for name in ("seeds", "steps", "batch_size", "labels_per_class", "max_length", "image_size"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "1 or more")
        require(self.subsets >= 2, "subsets", self.subsets, "2 or more")
        require(self.finetune >= 0, "finetune", self.finetune, "0 or more")
        require(self.seed >= 0 and self.seed + self.seeds < 2**31, "seed", self.seed, "0 or more, and below 2^31")
        require(all(0 < r < 1e3 for r in self.learning_rates), "learning_rates", self.learning_rates, "positive")
        strangers = set(self.known) - set(self.paths)
        require(not strangers, "priors", self.priors, f"of candidates: {', '.join(self.paths)}")

    @property
    def paths(self) -> dict[str, str]:
        """The candidates by name; raises `SettingsError` for a name that occurs twice.

        >>> RankSettings(("a/resnet.pt", "small=b/resnet.pt"), "digits").paths
        {'resnet': 'a/resnet.pt', 'small': 'b/resnet.pt'}
        """
        found: dict[str, str] = {}
        for spec in self.candidates:
            name, _, path = spec.rpartition("=")
            name = name or _stem(path)
            if name in found:
                raise SettingsError(f"two candidates are called {name!r}; write NAME={path} to give one another name")
            found[name] = path
        return found

    @property
    def known(self) -> dict[str, dict[str, float]]:
        """What is known before the data, by candidate."""
        found = {}
        for text in self.priors:
            name, _, number = text.rpartition("=")
            try:
                found[name] = {"prior": float(number)}
            except ValueError:
                found[name] = {"prior": -1.0}
            require(bool(name) and 0 <= found[name]["prior"] <= 1, "priors", text, "NAME=ACCURACY, as resnet=0.8")
        return found

    def finetuning(self, path: str) -> FinetuneSettings:
        """The settings under which `tljax finetune` reads the data for the model at `path`."""
        shared = {name: getattr(self, name) for name in ("data", "label", "text", "max_length", "image_size", "seed")}
        return FinetuneSettings(model=path, **shared)

    @property
    def title(self) -> str:
        """Candidates and data in a few words."""
        return f"{len(self.candidates)} candidates for {_stem(self.data)}"

    def described(self) -> dict[str, Any]:
        """What decides the result, as JSON values."""
        return {name: value for name, value in described(self).items() if name != "cache"}

    @property
    def folder(self) -> pathlib.Path:
        """The run folder: the one given, or one named after the settings."""
        return run_folder(self.run_dir, self.described(), "rank", self.title)


def _stem(path: str) -> str:
    name = pathlib.PurePath(path).name.split(".gz")[0]
    return name.rsplit(".", 1)[0] if "." in name else name


def rank_settings(values: Mapping[str, Any]) -> RankSettings:
    """`RankSettings` from option names and values.

    Raises `SettingsError` as `read_settings` does.

    >>> rank_settings({"candidates": ["a", "b"], "data": "sst2.tsv"}).title
    '2 candidates for sst2'
    """
    return read_settings(RankSettings, values)
