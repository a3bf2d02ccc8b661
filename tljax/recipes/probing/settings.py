"""The settings of `tljax probe`: every option with its default, checked in one place."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

from tljax.recipes.finetune.settings import FinetuneSettings
from tljax.recipes.options import described, read_settings, require, require_known, run_folder
from tljax.recipes.probing.heads import HEADS

_SHARED = ("model", "data", "valid", "test", "label", "text", "max_length", "image_size", "mean", "std", "seed")


@dataclasses.dataclass(frozen=True)
class ProbeSettings:
    """What `tljax probe` is asked to do. Each field is an option of the same name."""

    NUMBERS: ClassVar = {"heads": str, "max_length": int, "image_size": int, "mean": float, "std": float}

    model: str | None = None
    """A folder or a file of pretrained weights."""
    data: str | None = None
    """A table of sentences, or images in any form that is read."""
    features: str | None = None
    """Features and labels, in place of a model and data."""
    valid: str | None = None
    test: str | None = None
    label: str | None = None
    text: str | None = None
    max_length: int | None = None
    image_size: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    heads: tuple[str, ...] = ("ridge", "knn")
    shots: tuple[int, ...] = ()
    """Labels per class; empty: 1, 5, 10, 25 as far as the classes have them."""
    seeds: int = 20
    """How many draws of labelled examples."""
    seed: int = 0
    cache: str | None = None
    """A folder for features."""
    run_dir: str | None = None
    resume: bool = True

    def __post_init__(self) -> None:
        if self.features is None:
            for name in ("model", "data"):
                found = getattr(self, name)
                require(bool(found), name, found, f"given: --{name} ..., or --features FILE in place of both")
        else:
            for name in ("model", "data"):
                require(getattr(self, name) is None, name, getattr(self, name), "left out where features are given")
        require(bool(self.heads), "heads", self.heads, f"some of {', '.join(HEADS)}")
        for head in self.heads:
            require_known("head", head, HEADS)
        require(all(k >= 1 for k in self.shots), "shots", self.shots, "numbers of labels per class, 1 or more each")
        require(self.seeds >= 1, "seeds", self.seeds, "1 or more")
        require(self.seed >= 0 and self.seed + self.seeds < 2**31, "seed", self.seed, "0 or more, and below 2^31")
        if self.features is None:
            self.reading()

    def reading(self) -> FinetuneSettings:
        """The settings under which `tljax finetune` reads the model and its data."""
        return FinetuneSettings(**{name: getattr(self, name) for name in _SHARED})

    @property
    def title(self) -> str:
        """Model and data in a few words."""
        return self.reading().title if self.features is None else pathlib.PurePath(self.features).stem

    def described(self) -> dict[str, Any]:
        """What decides the result, as JSON values."""
        return {name: value for name, value in described(self).items() if name != "cache"}

    @property
    def folder(self) -> pathlib.Path:
        """The run folder: the one given, or one named after the settings."""
        return run_folder(self.run_dir, self.described(), "probe", self.title, *self.heads)


def probe_settings(values: Mapping[str, Any]) -> ProbeSettings:
    """`ProbeSettings` from option names and values; ``head`` is another name of ``heads``.

    Raises `SettingsError` as `read_settings` does.

    >>> probe_settings({"features": "a.npz", "head": "lda"}).heads
    ('lda',)
    """
    named = {("heads" if name == "head" else name): value for name, value in values.items()}
    return read_settings(ProbeSettings, named)
