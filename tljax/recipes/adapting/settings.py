"""The settings of `tljax adapt`: every option with its default, checked in one place."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

from tljax.evaluation.validator import VALIDATORS
from tljax.recipes.adapting.methods import BASELINE, Approach, approach
from tljax.recipes.numerics import Numerics
from tljax.recipes.options import SettingsError, described, read_settings, require, require_known, run_folder

DEMO = ("digits-plain", "digits-turned")
"""The built-in pair: handwritten digits, and others of them turned."""
SHARED = "shared"
"""The classes that both domains have."""
PROJECTIONS = ("auto", "tsne", "pca")


@dataclasses.dataclass(frozen=True)
class AdaptSettings(Numerics):
    """What `tljax adapt` is asked to do. Each field is an option of the same name."""

    NUMBERS: ClassVar = Numerics.NUMBERS | {
        "methods": str, "image_size": int, "max_length": int, "bottleneck": int, "backbone_rate": float,
    }  # fmt: skip

    GROWS: ClassVar = ("seeds",)
    """Each seed is a run of its own, so that a run of more goes on from one of few."""

    source: str = DEMO[0]
    target: str = DEMO[1]
    classes: str | None = None
    """Only these of both; ``"shared"``: those that both have."""
    unlabelled: bool = False
    """Whether nobody knows labels of the target; then none are read, and nothing is measured by them."""
    test: str | None = None
    """Labelled examples of the target domain to test on; then labels in `target` are not read."""
    label: str | None = None
    text: str | None = None
    max_length: int | None = None
    image_size: int | None = None
    model: str | None = None
    """A name of the catalogue with options, or ``file.py:name`` of a Flax module; None: by the inputs."""
    weights: str | None = None
    """Pretrained weights; they say which model it is."""
    bottleneck: int | None = None
    """Its width, 0 for none; None: the methods' own."""
    methods: tuple[str, ...] = ("jan+mcc",)
    flip: bool = False
    """Whether views of the target's images are mirrored, too, by chance; for methods that compare views."""
    validator: str = "im"
    seeds: int = 3
    seed: int = 0
    steps: int = 400
    batch_size: int = 32
    learning_rate: float = 0.01
    weight_decay: float = 1e-3
    backbone_rate: float | None = None
    """What the backbone's rate is multiplied by; None: 0.1 with imported weights, else 1."""
    projection: str = "auto"
    """How the picture of the features is made."""
    run_dir: str | None = None
    resume: bool = True

    def __post_init__(self) -> None:
        self.of_fit(max(self.batch_size, 1))
        for name in ("seeds", "steps", "batch_size", "image_size", "max_length"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "1 or more")
        require(self.batch_size >= 2, "batch_size", self.batch_size, "2 or more of each domain")
        require(self.bottleneck is None or self.bottleneck >= 0, "bottleneck", self.bottleneck, "0 (none) or a width")
        require(0 < self.learning_rate < 1e3, "learning_rate", self.learning_rate, "above 0 and below 1000")
        require(0 <= self.weight_decay < 1e3, "weight_decay", self.weight_decay, "0 or more, and below 1000")
        factor = self.backbone_rate
        require(factor is None or 0 < factor < 1e3, "backbone_rate", factor, "above 0 and below 1000")
        require(self.seed >= 0 and self.seed + self.seeds < 2**31, "seed", self.seed, "0 or more, and below 2^31")
        require_known("validator", self.validator, VALIDATORS)
        require_known("projection", self.projection, PROJECTIONS)
        unknown = "what can be told without labels of the target"
        require(not (self.unlabelled and self.validator == "oracle"), "validator", self.validator, unknown)
        require(not (self.bare and self.classes == SHARED), "classes", self.classes, unknown)
        both = "left out with unlabelled, which is for a target of which nobody knows any label"
        require(not (self.unlabelled and self.test), "test", self.test, both)
        given = "the file of --weights says which model it is; give one of them"
        require(not (self.model and self.weights), "model", self.model, f"left out with weights: {given}")
        require(bool(self.methods), "methods", self.methods, "one or several, as cdan+mcc")
        objectives = [str(found.objective) for found in self.approaches]
        require(len(set(objectives)) == len(objectives), "methods", self.methods, "each method once")
        if self.approaches[0].name == BASELINE:
            raise SettingsError(f"{BASELINE} is what methods are compared to; name one of them first, as --method mcc")

    @property
    def bare(self) -> bool:
        """Whether `target` is read without labels."""
        return self.unlabelled or self.test is not None

    @functools.cached_property
    def approaches(self) -> tuple[Approach, ...]:
        """The methods that were asked for; the verdict is about the first."""
        return tuple(map(approach, self.methods))

    @property
    def compared(self) -> tuple[Approach, ...]:
        """The methods that are run: those asked for, and training on the source alone."""
        rest = () if BASELINE in (found.name for found in self.approaches) else (approach(BASELINE),)
        return (*self.approaches, *rest)

    @property
    def width(self) -> int:
        """Of the bottleneck, which all methods have alike; 0 for none."""
        return max(a.bottleneck for a in self.approaches) if self.bottleneck is None else self.bottleneck

    @property
    def backbone_factor(self) -> float:
        """What the backbone's learning rate is multiplied by."""
        return (0.1 if self.weights else 1.0) if self.backbone_rate is None else self.backbone_rate

    @property
    def title(self) -> str:
        """Source and target in a few words."""
        return " -> ".join(map(_short, (self.source, self.target)))

    def described(self) -> dict[str, Any]:
        """What decides the result, as JSON values."""
        return described(self)

    @property
    def folder(self) -> pathlib.Path:
        """The run folder: the one given, or one named after the settings; more seeds go on in the same."""
        settings = {name: value for name, value in self.described().items() if name not in self.GROWS}
        return run_folder(self.run_dir, settings, "adapt", self.title, *(a.name for a in self.approaches))


def _short(spec: str) -> str:
    """The name of a file without its ending, and what `#` chooses in it."""
    name, sign, group = pathlib.PurePath(spec).name.partition("#")
    return name.split(".")[0] + sign + group


def adapt_settings(values: Mapping[str, Any]) -> AdaptSettings:
    """`AdaptSettings` from option names and values; ``method`` is another name of ``methods``.

    Raises `SettingsError` as `read_settings` does.

    >>> adapt_settings({"source": "photo", "target": "sketch", "method": "source-onyl"})
    Traceback (most recent call last):
    tljax.recipes.options.SettingsError: no method is called 'source-onyl'; did you mean 'source-only'...
    """
    named = {("methods" if name == "method" else name): value for name, value in values.items()}
    return read_settings(AdaptSettings, named)
