"""The model that `--model` names: of the catalogue with options, or a Flax module of the user's own."""

import functools
import importlib
import importlib.util
import inspect
import pathlib
import sys
from typing import Any

import flax.linen as nn
from flax import nnx

from tljax.models import build, from_flax, from_nnx
from tljax.recipes.adapting.expression import Call, read_call
from tljax.recipes.options import SettingsError, did_you_mean
from tljax.types import Model, TljaxError


def model_of(spec: str, num_classes: int) -> Model:
    """The model called `spec`, for so many classes.

    ``name`` or ``name(option=value)`` of the catalogue; ``file.py:name`` or ``package.module:name`` of the user: a
    function or class that is called with ``num_classes`` and the options, and gives a Linen or NNX module or a
    `Model`. One that has an argument ``rngs``, as NNX modules do, gets that too, anew for each seed.

    Raises `SettingsError` or `ModelError` for what is none.

    >>> model_of("lenet(kernel=5, hidden=100)", 10).name
    'lenet'
    """
    call = read_call(spec)
    if call.name.endswith(".py"):
        raise SettingsError(f"model {spec!r} is a file; say which of its models is meant, as {call.name}:NAME")
    if ":" not in call.name:
        return build(call.name, num_classes, **call.options)
    return _made(call, spec, num_classes)


def _made(call: Call, spec: str, num_classes: int) -> Model:
    where, _, name = call.name.rpartition(":")
    module = _module(where, spec)
    if not hasattr(module, name):
        raise SettingsError(f"model {spec!r}: {where} defines no {name!r}")
    own = getattr(module, name)
    if not callable(own):
        raise SettingsError(f"model {spec!r}: {name} is {own!r:.60}; expected a class or function that makes a model")
    takes = inspect.signature(_init_of(own)).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        for option in call.options:
            if option not in takes:
                raise SettingsError(f"model {spec!r}: {name} takes no {option!r}{did_you_mean(option, takes)}")
    maker = functools.partial(own, num_classes=num_classes, **call.options)
    try:
        if "rngs" in takes:
            maker(rngs=nnx.Rngs(0))  # a call that fails is told as one of the user's function
            return from_nnx(lambda rngs: maker(rngs=rngs), name=name)
        return _as_model(maker(), spec)
    except TljaxError:
        raise
    except Exception as error:  # whatever the user's own code raises
        raise SettingsError(
            f"model {spec!r}: it is called with num_classes={num_classes}; {type(error).__name__}: {error}"
        ) from error


def _init_of(own: Any) -> Any:
    """What says which arguments `own` takes; the class of an NNX module does not."""
    return next(vars(c)["__init__"] for c in own.__mro__ if "__init__" in vars(c)) if isinstance(own, type) else own


def _module(where: str, spec: str) -> Any:
    file = pathlib.Path(where)
    try:
        if file.suffix != ".py":
            return importlib.import_module(where)
        found = importlib.util.spec_from_file_location(file.stem, file)
        assert found is not None
        assert found.loader is not None
        module = sys.modules[file.stem] = importlib.util.module_from_spec(found)  # dataclasses look it up there
        found.loader.exec_module(module)
        return module
    except (Exception, SystemExit) as error:  # whatever the user's own code raises
        raise SettingsError(f"model {spec!r}: {where} cannot be imported: {type(error).__name__}: {error}") from error


def _as_model(made: Any, spec: str) -> Model:
    if isinstance(made, Model):
        return made
    if isinstance(made, nn.Module):
        return from_flax(made)
    if isinstance(made, nnx.Module):
        return from_nnx(made)
    raise SettingsError(f"model {spec!r} gives {type(made).__name__}; expected a Linen or NNX module, or a tl.Model")
