"""Training or inference, layer by layer, in Linen modules: interceptors that hold layers to a mode."""

import dataclasses
import inspect
from collections.abc import Callable, Collection
from typing import Any

import flax.linen as nn
import jax

from tljax.models.wrapping import MODE, Path, mode_arguments, no_switch

CAPTURE = "tljax_capture"
"""The collection in which the input of the head is sown, and the output of a layer that is asked for."""
INPUT, OUTPUT = "tljax_input", "tljax_output"
_SWITCHED = (nn.BatchNorm, nn.Dropout)


def router(
    head: Path | None = None,
    *,
    train: bool,
    force: bool = False,
    still: Collection[Path] = (),
    sees: Callable[[Path, Any], bool] | None = None,
    again: Callable[[Path], Callable[..., Any] | None] | None = None,
) -> Callable[..., Any]:
    """The interceptor that records what `head` reads and runs layers in the mode they must be in.

    The modules at `still` infer. Normalisation and dropout follow `train` where nobody decided, and with `force`
    against whoever did. `sees` is told the path and the output of each module, and whether to keep the output. `again`
    gives for some paths a transformation of what the module there does, such as `nn.remat`.
    """
    entered: set[Path] = set()

    def route(call: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: Any) -> Any:
        module = context.module
        if context.method_name != "__call__" or module.scope is None:
            return call(*args, **kwargs)
        if module.path == head:
            module.sow(CAPTURE, INPUT, next(iter((*args, *kwargs.values()))))
        transform = None if again is None or module.path in entered else again(module.path)
        if transform is not None:
            return _transformed(transform, module, args, kwargs, entered)
        output = in_its_mode(call, args, kwargs, module)
        if sees is not None and module.path and sees(module.path, output):
            module.sow(CAPTURE, OUTPUT, output)
        return output

    def in_its_mode(call: Callable[..., Any], args: tuple, kwargs: dict[str, Any], module: nn.Module) -> Any:
        if module.path in still:
            if not _switches(module):
                raise no_switch(module.path, type(module).__name__)
            return _call_in_mode(call, module, args, kwargs, train=False)
        if isinstance(module, _SWITCHED) and (force or _undecided(module, args, kwargs)):
            return _call_in_mode(call, module, args, kwargs, train)
        return call(*args, **kwargs)

    return route


def _transformed(
    transform: Callable[..., Any], module: nn.Module, args: tuple, kwargs: dict[str, Any], entered: set[Path]
) -> Any:
    """What the call gives under a lifted transformation of Flax, of its arrays alone."""
    leaves, treedef = jax.tree.flatten((args, kwargs))
    arrays = [leaf for leaf in leaves if hasattr(leaf, "dtype")]

    def call(module: nn.Module, *arrays: Any) -> Any:
        rest = iter(arrays)
        args, kwargs = jax.tree.unflatten(treedef, [next(rest) if hasattr(a, "dtype") else a for a in leaves])
        entered.add(module.path)  # the interceptor meets this call too
        try:
            return module(*args, **kwargs)
        finally:
            entered.remove(module.path)

    return transform(call)(module, *arrays)


def _call_in_mode(call: Callable[..., Any], module: nn.Module, args: tuple, kwargs: dict[str, Any], train: bool) -> Any:
    """Calls the layer with its mode set, where need be against its constructor.

    A field cannot be changed in a bound module, so then a detached copy computes the layer; it has the layer's
    variables and no right to write them, which inference does not need.
    """
    switched, arguments = in_mode(module, train)
    bound = inspect.signature(module.__call__).bind_partial(*args, **kwargs)
    bound.arguments.update(arguments)
    if switched is module:
        return call(*bound.args, **bound.kwargs)
    return switched.apply(module.variables, *bound.args, **bound.kwargs)


def in_mode(module: nn.Module, train: bool) -> tuple[nn.Module, dict[str, Any]]:
    """The module with the switches among its fields set, and the call arguments that set the others."""
    arguments: dict[str, Any] = mode_arguments(module.__call__, train)
    updates = {}
    for flag in _switches(module):
        decided = getattr(module, flag, None)
        if decided is None and flag in arguments:
            continue
        arguments.pop(flag, None)
        if decided is not (MODE[flag] is train):
            updates[flag] = MODE[flag] is train
    return (module.clone(parent=None, **updates) if updates else module), arguments


def _switches(module: nn.Module) -> set[str]:
    fields = {field.name for field in dataclasses.fields(module)}
    return {flag for flag in MODE if flag in fields} | mode_arguments(module.__call__, True).keys()


def _undecided(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> bool:
    given = inspect.signature(module.__call__).bind_partial(*args, **kwargs).arguments
    return all(getattr(module, flag, None) is None and given.get(flag) is None for flag in _switches(module))
