"""The settings of `tljax finetune`: every option with its default, checked in one place."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

from tljax.recipes.finetune.methods import BASELINE, METHODS, REGULARIZERS
from tljax.recipes.numerics import Numerics
from tljax.recipes.options import SettingsError, described, read_settings, require, require_known, run_folder

TUNE = ("every", "first")


@dataclasses.dataclass(frozen=True)
class FinetuneSettings(Numerics):
    """What `tljax finetune` is asked to do. Each field is an option of the same name."""

    NUMBERS: ClassVar = Numerics.NUMBERS | {
        "labels_per_class": int,
        "max_length": int,
        "image_size": int,
        "mean": float,
        "std": float,
        "methods": str,
        "learning_rates": str,
        "target": str,
        "regularizer": str,
    }

    model: str = ""
    """A folder or a file of pretrained weights."""
    data: str = ""
    """A table of sentences, or images in any form that is read."""
    valid: str | None = None
    test: str | None = None
    label: str | None = None
    text: str | None = None
    labels_per_class: int | None = None
    """None: all of the training part."""
    max_length: int | None = None
    image_size: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    methods: tuple[str, ...] = ("full",)
    learning_rates: tuple[str, ...] = ()
    """``"1e-4,3e-4"`` for every method, or ``"lora=1e-3,3e-3"`` for one; empty: each method's own."""
    tune: str = "every"
    """Which seeds choose a rate on validation: ``"every"`` its own, or the ``"first"`` for all."""
    rank: int = 8
    alpha: float = 16.0
    target: tuple[str, ...] = ()
    """Selectors of the leaves that get adapters; empty: each method's own."""
    regularizer: tuple[str, ...] = ()
    """``"l2-sp"`` or ``"l2-sp:0.01"``, with the weight; several add up. They count in every method but the probe."""
    keep_head: bool = False
    """Whether a head of as many classes in the file is kept, rather than initialised afresh."""
    seeds: int = 1
    seed: int = 0
    steps: int = 200
    batch_size: int = 16
    run_dir: str | None = None
    resume: bool = True

    def __post_init__(self) -> None:
        self.of_fit(max(self.batch_size, 1))
        for name in ("model", "data"):
            require(bool(getattr(self, name)), name, getattr(self, name), f"given: --{name} ...")
        for name in ("seeds", "steps", "batch_size", "rank", "labels_per_class", "max_length", "image_size"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "1 or more")
        require(self.alpha > 0, "alpha", self.alpha, "above 0")
        require(self.seed >= 0 and self.seed + self.seeds < 2**31, "seed", self.seed, "0 or more, and below 2^31")
        require(bool(self.methods), "methods", self.methods, f"some of {', '.join(METHODS)}")
        require(len(set(self.methods)) == len(self.methods), "methods", self.methods, "each method once")
        for method in self.methods:
            require_known("method", method, METHODS)
        require_known("tune", self.tune, TUNE)
        require(len(self.mean) == len(self.std), "std", self.std, f"as many numbers as mean, {len(self.mean)}")
        require(all(s > 0 for s in self.std), "std", self.std, "positive")
        self._rates()
        adapted = [name for name in self.methods if self.regularizers and METHODS[name].adapt is not None]
        require(
            not adapted, "regularizer", self.regularizer, f"left out with {', '.join(adapted)}: no weight moves there"
        )

    @property
    def regularizers(self) -> dict[str, float]:
        """The weight of each regulariser that was asked for.

        >>> FinetuneSettings("a", "b", regularizer=("l2-sp", "lwf:1.5")).regularizers
        {'l2-sp': 0.01, 'lwf': 1.5}
        """
        found: dict[str, float] = {}
        for text in self.regularizer:
            name, colon, number = text.partition(":")
            require_known("regularizer", name, REGULARIZERS)
            require(name not in found, "regularizer", text, f"{name} once")
            try:
                found[name] = float(number) if colon else REGULARIZERS[name]
            except ValueError:
                found[name] = 0.0
            require(0 < found[name] < 1e9, "regularizer", text, "a name, or with a weight above 0 as l2-sp:0.01")
        return found

    @property
    def compared(self) -> tuple[str, ...]:
        """The methods that are run: those asked for, and the frozen probe, to which all are compared."""
        return (*self.methods, *({BASELINE} - set(self.methods)))

    def rates(self, method: str) -> tuple[float, ...]:
        """The learning rates that were asked for `method`; empty where its own are to be used.

        >>> settings = FinetuneSettings("a", "b", methods=("full", "lora"), learning_rates=("lora=1e-3,3e-3",))
        >>> settings.rates("lora"), settings.rates("full")
        ((0.001, 0.003), ())
        """
        given = self._rates()
        return given.get(method, given.get("", ()))

    def _rates(self) -> dict[str, tuple[float, ...]]:
        found = {}
        for text in self.learning_rates:
            method, _, numbers = text.rpartition("=")
            if method:
                require_known("method", method, self.compared)
            try:
                found[method] = tuple(float(number) for number in numbers.split(","))
            except ValueError:
                raise SettingsError(
                    f"option 'learning_rates' is {text!r}; it should be numbers, as 1e-4,3e-4, or lora=1e-3,3e-3"
                ) from None
            require(all(0 < r < 1e3 for r in found[method]), "learning_rates", text, "positive numbers")
        return found

    @property
    def title(self) -> str:
        """Model and data in a few words."""
        names = [pathlib.PurePath(spec).name.split(".gz")[0] for spec in (self.model, self.data)]
        return " -> ".join(name.rsplit(".", 1)[0] if "." in name else name for name in names)

    def described(self) -> dict[str, Any]:
        """What decides the result, as JSON values."""
        return described(self)

    @property
    def folder(self) -> pathlib.Path:
        """The run folder: the one given, or one named after the settings."""
        return run_folder(self.run_dir, self.described(), "finetune", self.title, *self.methods)


def finetune_settings(values: Mapping[str, Any]) -> FinetuneSettings:
    """`FinetuneSettings` from option names and values; ``method`` is another name of ``methods``.

    Raises `SettingsError` as `read_settings` does.

    >>> finetune_settings({"model": "minilm", "data": "sst2.tsv", "method": "lora"}).compared
    ('lora', 'linear-probe')
    """
    named = {("methods" if name == "method" else name): value for name, value in values.items()}
    return read_settings(FinetuneSettings, named)
