"""Which architecture a file holds: from config.json, else from names and shapes."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tljax.checkpoints import WeightFile
from tljax.models.family import FAMILIES, Family, Found, family
from tljax.models.wrapping import ModelError
from tljax.types import Model


class Recognised(NamedTuple):
    """An architecture, ready to be built."""

    build: Callable[[int], Model]
    """Takes the number of classes."""
    example: Any
    num_classes: int | None
    resize: Callable[[Any], Mapping[Any, Any]]
    """The architecture's rules, for an example of our inputs."""
    how: str
    """What it was told by, in words."""
    notes: tuple[str, ...] = ()
    """What else the files beside the weights say."""


def recognise(file: WeightFile, options: Mapping[str, Any]) -> Recognised:
    """The architecture of `file`, with further `options` of its constructor.

    Raises `ModelError` when no family or more than one recognises it, listing those there are.
    """
    config, where = file.config, file.report.path
    shapes = {name: tuple(spec.shape) for name, spec in file.specs.items()}
    families = [family(name) for name in FAMILIES]
    found = [(f, f.from_config(config)) for f in families] if config else []
    hits = [(f, hit, "config.json") for f, hit in found if hit is not None]
    if not hits and not (config and {"model_type", "architecture"} & set(config)):
        hits = [(f, hit, "names and shapes") for f in families if (hit := f.recognise(shapes)) is not None]
    if len(hits) > 1:
        names = ", ".join(f.name for f, _, _ in hits)
        raise ModelError(f"{where}: looks like {names}; say which with load_pretrained(path, model=...)")
    if not hits:
        raise ModelError(_unknown(where, config, shapes))
    return _recognised(*hits[0], options, file)


def _recognised(family: Family, found: Found, told_by: str, options: Mapping[str, Any], file: WeightFile) -> Recognised:
    known = [name for name in inspect.signature(family.build).parameters if name != "num_classes"]
    for option in options:
        if option not in known:
            raise ModelError(f"{family.name} has no option {option!r}; it has {', '.join(known)}")
    beside = family.beside(file.folder, options)
    arguments = {**found.options, **beside.options, **options}

    def build(num_classes: int) -> Model:
        return family.build(num_classes=num_classes, **arguments)

    words = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    how = f"{family.name}({words}), recognised by {' and '.join([told_by, *beside.files])}"

    def resize(example: Any) -> Mapping[Any, Any]:
        return {**family.resize, **family.regrid(arguments, found.example, example)}

    return Recognised(build, found.example, found.num_classes, resize, how, beside.notes)


def _unknown(where: str, config: Mapping[str, Any] | None, shapes: Mapping[str, tuple[int, ...]]) -> str:
    said = [config[key] for key in ("model_type", "architecture", "architectures") if config and key in config]
    names = ", ".join(f"{name} {list(shape)}" for name, shape in list(shapes.items())[:4])
    return (
        f"{where}: no known architecture{f'; config.json says {said[0]!r}' if said else ''}; the file begins with "
        f"{names}. Known are {', '.join(FAMILIES)}. For any other write load_pretrained(path, model=..., "
        "example=...) with a model that has keymaps: model._replace(keymaps={'mine': Keymap(...)})"
    )
