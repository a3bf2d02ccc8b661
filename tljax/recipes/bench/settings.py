"""The settings of `tljax bench`: every option with its default, and the configurations that they name."""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from typing import Any, ClassVar

from tljax.recipes.adapting.methods import METHODS as ADAPTING
from tljax.recipes.adapting.methods import approach
from tljax.recipes.finetune.methods import METHODS
from tljax.recipes.options import SettingsError, did_you_mean, read_settings, require, require_known
from tljax.training.mesh import AXES
from tljax.training.precision import PRECISIONS

HEAD_ONLY = "head-only"
"""The frozen backbone runs in every step, the head learns."""
CACHED = "linear-probe"
"""The head learns on features that were computed before."""
LEAST_REPEATS = 5
"""Fewer tell no quartiles."""
SWEPT: Mapping[str, tuple[Any, ...]] = {
    "method": ("full", HEAD_ONLY, "lora", CACHED),
    "batch": (8, 32),
    "dtype": ("float32", "bfloat16"),
}
"""What `--sweep` takes where nothing is said."""


@dataclasses.dataclass(frozen=True)
class Configuration:
    """One training step that is timed: one row of the result."""

    model: str
    method: str
    batch: int
    """Examples of each stream per step."""
    dtype: str = "float32"
    """What is computed in."""
    classes: int = 10
    image_size: int | None = None
    seq_len: int | None = None
    features: int | None = None
    rank: int = 8
    alpha: float = 16.0
    target: tuple[str, ...] = ()
    mesh: str = ""

    def described(self) -> dict[str, Any]:
        """As JSON values, without what was left out or has no meaning for the method.

        >>> Configuration("mlp", "full", 8).described()
        {'model': 'mlp', 'method': 'full', 'batch': 8, 'dtype': 'float32', 'classes': 10}
        """
        values = {k: v for k, v in dataclasses.asdict(self).items() if v not in (None, (), "")}
        if self.method not in METHODS or METHODS[self.method].adapt is None:
            values = {k: v for k, v in values.items() if k not in ("rank", "alpha", "target")}
        return json.loads(json.dumps(values))

    def __str__(self) -> str:
        return f"{self.model} {self.method} batch {self.batch} {self.dtype}"


@dataclasses.dataclass(frozen=True)
class BenchSettings:
    """What `tljax bench` is asked to do. Each field is an option of the same name.

    >>> few = BenchSettings(model=("mlp",), method=("full", "lora"), batch=(8, 32))
    >>> [str(each) for each in few.configurations][:2]
    ['mlp full batch 8 float32', 'mlp full batch 32 float32']
    """

    NUMBERS: ClassVar = {
        "model": str,
        "method": str,
        "dtype": str,
        "target": str,
        "image_size": int,
        "seq_len": int,
        "features": int,
        "steps": int,
    }

    model: tuple[str, ...] = ()
    """Names of the catalogue, with options as ``mlp(hidden=(64,))``; or folders of pretrained weights."""
    method: tuple[str, ...] = ("full",)
    batch: tuple[int, ...] = (32,)
    dtype: tuple[str, ...] = ("float32",)
    classes: int = 10
    image_size: int | None = None
    seq_len: int | None = None
    features: int | None = None
    """Numbers in an example of a model that reads rows of them."""
    rank: int = 8
    alpha: float = 16.0
    target: tuple[str, ...] = ()
    mesh: str = ""
    """As ``data=4,fsdp=2``; empty: one device."""
    sweep: bool = False
    """Whether what is not given takes several values, those of `SWEPT`."""
    repeats: int = 15
    """How often each configuration is timed."""
    seconds: float = 0.3
    """How long one of these times should be at least."""
    steps: int | None = None
    """Steps in each of them; None: as many as last `seconds`."""
    seed: int = 0
    json: str | None = None
    """The file to write."""
    trace: str | None = None
    """The folder for a profile."""

    def __post_init__(self) -> None:
        require(bool(self.model), "model", self.model, "a name of the catalogue, or a folder: --model vit-s16")
        for name in ("model", "method", "batch", "dtype"):
            values = getattr(self, name)
            require(len(set(values)) == len(values) > 0, name, values, "a list without repetitions, of one or more")
            require(all(values), name, values, "a list without empty or zero parts")
        require(all(batch >= 1 for batch in self.batch), "batch", self.batch, "1 or more")
        for dtype in self.dtype:
            require_known("dtype", dtype, PRECISIONS)
        for name in ("image_size", "seq_len", "features", "steps", "rank"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "1 or more")
        require(self.classes >= 2, "classes", self.classes, "2 or more, or there is nothing to learn")
        require(0 <= self.seed < 2**31, "seed", self.seed, "0 or more, and below 2^31")
        require(self.alpha > 0, "alpha", self.alpha, "above 0")
        require(self.repeats >= LEAST_REPEATS, "repeats", self.repeats, f"{LEAST_REPEATS} or more, to tell a spread")
        require(0 < self.seconds <= 60, "seconds", self.seconds, "above 0, and 60 at most")
        for method in self.method:
            check_method(method)
        read_mesh(self.mesh)

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        """Every combination of the models, methods, batches and dtypes."""
        shared = {f.name: getattr(self, f.name) for f in dataclasses.fields(Configuration)}
        several = ("model", "method", "batch", "dtype")
        product = itertools.product(*(getattr(self, name) for name in several))
        return tuple(Configuration(**shared | dict(zip(several, values))) for values in product)


def bench_settings(values: Mapping[str, Any]) -> BenchSettings:
    """`BenchSettings` from option names and values, as a command line gives them.

    Raises `SettingsError` for an unknown name, or a value that makes no sense.

    >>> len(bench_settings({"model": ["mlp"], "sweep": True}).configurations)
    16
    """
    usual = SWEPT if values.get("sweep") else {}
    return read_settings(BenchSettings, {**usual, **values})


def check_method(name: str) -> None:
    """Raise `SettingsError` unless `name` is a method of `tljax finetune`, of `tljax adapt`, or `HEAD_ONLY`.

    >>> check_method("lorra")
    Traceback (most recent call last):
    tljax.recipes.options.SettingsError: no method is called 'lorra'; did you mean 'lora', 'olora'...
    """
    if name in (*METHODS, HEAD_ONLY):
        return
    try:
        approach(name)
    except SettingsError:
        if not name.replace("-", "_").isidentifier():
            raise
        known = (HEAD_ONLY, *METHODS)
        near = did_you_mean(name, [*known, *(other.replace("_", "-") for other in ADAPTING)])
        where = f"{near} There are" if near else "; there are"
        raise SettingsError(
            f"no method is called {name!r}{where} {', '.join(known)}, and those of tljax adapt, as dann or cdan+mcc"
        ) from None


def read_mesh(text: str) -> dict[str, int]:
    """The sizes of a mesh by axis; empty for one device.

    Raises `SettingsError` for what is none.

    >>> read_mesh("data=4,fsdp=2")
    {'data': 4, 'fsdp': 2}
    """
    found: dict[str, int] = {}
    for part in text.split(",") if text else ():
        name, _, size = part.partition("=")
        require_known("mesh", name.strip(), AXES)
        known = size.strip().isdecimal() and int(size) >= 1 and name.strip() not in found
        require(known, "mesh", text, "sizes by axis, as data=4,fsdp=2")
        found[name.strip()] = int(size)
    return found
