"""What the settings of every recipe share: checked values, option names, and a folder named after them."""

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from tljax.tree import nearest
from tljax.types import TljaxError

NOT_DESCRIBED = ("run_dir", "resume", "mesh")
"""Options that say where a run stands and is made, not what it computes."""

_S = TypeVar("_S")


class SettingsError(TljaxError):
    """An option that does not exist, or a value that makes no sense."""


def read_settings(kind: type[_S], values: Mapping[str, Any]) -> _S:
    """Settings of `kind`, a dataclass, from option names and values, as they come from a command line or a file.

    The type of an option is that of its default; one whose default is None is text, unless the class lists it in
    `NUMBERS`, by name with its type.

    Raises `SettingsError` for an unknown name (with the nearest) or a value of the wrong type.

    >>> @dataclasses.dataclass
    ... class Few:
    ...     steps: int = 10
    >>> read_settings(Few, {"stpes": 10})
    Traceback (most recent call last):
    tljax.recipes.options.SettingsError: unknown option 'stpes'; did you mean 'steps'?
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            raise SettingsError(f"unknown option {name!r}{did_you_mean(name, fields)}")
    types = getattr(kind, "NUMBERS", {})
    return kind(**{name: _typed(name, value, fields[name].default, types) for name, value in values.items()})


def _typed(name: str, value: Any, default: Any, types: Mapping[str, Any]) -> Any:
    """`value` for the option whose default is `default`; raises `SettingsError` where it is of another type."""
    wanted: Any = types.get(name) or (str if default is None else type(default))
    if isinstance(default, tuple):
        listed = value if isinstance(value, list | tuple) else [value]
        return tuple(_typed(name, item, types.get(name, int)(), {}) for item in listed)
    expected = (int, float) if wanted is float else (wanted,)
    if not isinstance(value, expected) or (isinstance(value, bool) and wanted is not bool):
        said = " or ".join(t.__name__ for t in expected)
        raise SettingsError(f"option {name!r} should be {said}; found {value!r}")
    return float(value) if wanted is float else value


def require(condition: bool, name: str, found: Any, expected: str) -> None:
    """Raise `SettingsError` unless `condition` holds of the option called `name`.

    >>> require(0 >= 1, "steps", 0, "1 or more")
    Traceback (most recent call last):
    tljax.recipes.options.SettingsError: option 'steps' is 0; it should be 1 or more
    """
    if not condition:
        raise SettingsError(f"option {name!r} is {found!r}; it should be {expected}")


def require_known(name: str, value: str, known: Iterable[str]) -> None:
    """Raise `SettingsError`, with the nearest names, unless `value` is among the `known`.

    >>> require_known("method", "lorra", ["full", "lora"])
    Traceback (most recent call last):
    tljax.recipes.options.SettingsError: option 'method' is 'lorra'; it should be ...; did you mean 'lora'?
    """
    known = tuple(known)
    require(value in known, name, value, f"one of {', '.join(known)}{did_you_mean(value, known)}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The names nearest to `name` as the end of a message; "" where none is near.

    >>> did_you_mean("stpes", ["steps", "model"])
    "; did you mean 'steps'?"
    """
    near = nearest(str(name), known)
    return f"; did you mean {', '.join(map(repr, near))}?" if near else ""


def described(settings: Any) -> dict[str, Any]:
    """The settings that decide the result, as JSON values; those that earlier runs lack where they are not as there."""
    usual = {
        "precision": "float32",
        "remat": "none",
        "microbatch": None,
        "clip_norm": None,
        "unlabelled": False,
        "test": None,
        "flip": False,
    }
    values = {
        k: v for k, v in dataclasses.asdict(settings).items() if k not in NOT_DESCRIBED and (k, v) not in usual.items()
    }
    return json.loads(json.dumps(values))


def run_folder(run_dir: str | None, description: Mapping[str, Any], *words: str) -> pathlib.Path:
    """The run folder: the one given, or one named by some words and a hash of the description.

    >>> run_folder("here", {}), run_folder(None, {"steps": 3}, "a -> b", "full")
    (PosixPath('here'), PosixPath('runs/a-b-full-6f3597'))
    """
    if run_dir is not None:
        return pathlib.Path(run_dir)
    text = json.dumps(description, sort_keys=True)
    name = re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")
    return pathlib.Path("runs") / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
