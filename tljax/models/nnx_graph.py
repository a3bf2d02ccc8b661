"""How `from_nnx` takes a module apart and runs it; apart from there because NNX takes time to import."""

import contextlib
import contextvars
import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from tljax.models import taps
from tljax.models.wrapping import (
    MODE,
    PARAMS,
    Layout,
    ModelError,
    Path,
    as_output,
    check_frozen,
    find_head,
    fits_as_head,
    is_split,
    mode_arguments,
    no_switch,
    place,
    statistics_after,
)
from tljax.tree import from_named, named_leaves
from tljax.types import STATE_KEY, Key, Output, Params, is_state

Call = Callable[..., Any]
_PATH, _INPUT, _OUTPUT = "tljax_path", "tljax_input", "tljax_output"
Watch = Callable[[nnx.Module, Path, Call, tuple, dict[str, Any]], Any]


class Graph(NamedTuple):
    """An NNX module without its values."""

    graphdef: Any
    variables: dict[tuple, Any]
    """Every variable by its path in the module; only types and metadata count."""
    places: dict[str, tuple]
    """The path in the module of each leaf of the parameter tree."""
    layout: Layout


def look(module: Any, head: str | None, x: Any) -> Graph:
    """Takes `module`, or what the factory `module` makes, apart, and runs it on abstract values to find its head."""
    made = module if isinstance(module, nnx.Module) else nnx.eval_shape(lambda: _make(module, jax.random.key(0)))
    _check_attributes(made)
    graphdef, state = nnx.split(made)
    variables = dict(nnx.to_flat_state(state))
    collections = {path: name for path, v in variables.items() if (name := _collection(v))}
    graph = Graph(graphdef, variables, {_name(path): path for path in collections}, Layout())
    layout = _trace(graph, head, x)
    places = {_name(place(name, _strings(path), layout)): path for path, name in collections.items()}
    return graph._replace(places=places, layout=layout)


def made(graph: Graph, factory: Call, key: Key) -> Params:
    """The parameter tree of a new module from the factory."""
    return own(graph, _make(factory, key))


def own(graph: Graph, module: nnx.Module) -> Params:
    """The parameter tree of the module itself, copied so that nobody can donate its buffers."""
    values = _values(module)
    return from_named({name: jnp.copy(values[path]) for name, path in graph.places.items()})


def is_module(x: Any) -> bool:
    """Whether `x` is an NNX module rather than a factory of one."""
    return isinstance(x, nnx.Module)


def run(graph: Graph, params: Params, x: Any, train: bool, key: Key | None, frozen: frozenset[str]) -> Output:
    """The output of the module with these parameters."""
    check_frozen(frozen, graph.places)
    module = _merge(graph, named_leaves(params), key)
    (module.train if train else module.eval)()
    norms = {path for path, v in graph.variables.items() if _collection(v) == STATE_KEY}
    still = {_strings(graph.places[name][:-1]) for name in frozen if graph.places[name] in norms}
    _infer(module, still)
    narrow = _narrow_norms(module, params)
    before, tap, head = _counts(module), taps.active(), graph.layout.head
    wanted: dict[str, Path] = {}

    def watch(layer: nnx.Module, path: Path, call: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        given: Any = next(iter((*args, *kwargs.values())), None)
        if path == head:
            setattr(layer, _INPUT, nnx.Intermediate(given))
        output = _call_to_infer(layer, call, args, kwargs) if path in still else call(*args, **kwargs)
        output = output.astype(given.dtype) if path in narrow else output
        name = _name(place(PARAMS, path, graph.layout))
        if tap is not None and tap.sees(name, output):
            wanted[name] = path
            setattr(layer, _OUTPUT, nnx.Intermediate(output))
        return output

    with _watching(module, lambda path: path == head or path in still | narrow or bool(tap and path), watch) as watched:
        result = module(x, **_arguments(module, train, key))
    if train and key is None and any(a is not b for a, b in zip(before, _counts(module))):
        raise ModelError(
            f"{class_name(module)} draws random numbers with train=True: give apply a key, "
            "as in apply(params, x, train=True, key=jax.random.key(0))"
        )
    if tap is not None:
        tap.outputs |= {name: _kept(watched[path], _OUTPUT) for name, path in wanted.items()}
    output = as_output(result, _kept(watched.get(head or ()), _INPUT))
    if not (train and any(map(is_state, graph.places))):
        return output
    values = _values(module)
    fresh = {name: values[path] for name, path in graph.places.items()}
    return output._replace(stats=statistics_after(params, fresh, frozen))


def _narrow_norms(module: nnx.Module, params: Params) -> set[Path]:
    """The layers whose output would take the type of their running statistics, not that of half-precision `params`."""
    floats = {leaf.dtype.itemsize for leaf in jax.tree.leaves(params) if jnp.issubdtype(leaf.dtype, jnp.floating)}
    if min(floats, default=4) > 2:
        return set()
    layers = nnx.iter_modules(module)
    return {_strings(path) for path, layer in layers if isinstance(layer, nnx.BatchNorm) and layer.dtype is None}


def _kept(layer: nnx.Module | None, name: str) -> Any:
    """What a call left at a layer, None if there was none."""
    kept = getattr(layer, name, None)
    return None if kept is None else kept.get_value()


def class_name(module: Any) -> str:
    """The name of the class of a module; "nnx" for a factory, which has none."""
    kind = module if isinstance(module, type) else type(module)
    return kind.__name__ if issubclass(kind, nnx.Module) else "nnx"


def _make(factory: Call, key: Key) -> nnx.Module:
    # The metaclass hides the signature of an NNX class.
    maker = inspect.getattr_static(factory, "__init__") if isinstance(factory, type) else factory
    parameter = inspect.signature(maker).parameters.get("rngs")
    by_name = parameter is not None and parameter.kind is parameter.KEYWORD_ONLY
    module = factory(rngs=nnx.Rngs(key)) if by_name else factory(nnx.Rngs(key))
    if not isinstance(module, nnx.Module):
        raise ModelError(f"the factory returned {type(module).__name__}; from_nnx expected an nnx.Module")
    return module


def _check_attributes(module: nnx.Module) -> None:
    """Raises for arrays that NNX, when it traces the constructor, would keep as static attributes."""
    for path, layer in nnx.iter_modules(module):
        for name, value in vars(layer).items():
            if isinstance(value, jax.core.Tracer):
                raise ModelError(
                    f"{_name((*path, name))!r} is a bare array made while tracing, which NNX takes for no variable; "
                    "make it nnx.Param(...) to learn it, or nnx.Variable(...) or nnx.data(...) to carry it"
                )


def _arguments(module: nnx.Module, train: bool, key: Key | None) -> dict[str, Any]:
    arguments: dict[str, Any] = mode_arguments(module.__call__, train)
    if "rngs" in inspect.signature(module.__call__).parameters:
        arguments["rngs"] = nnx.Rngs(jax.random.key(0) if key is None else key)
    return arguments


def _collection(variable: Any) -> str | None:
    """The collection of Linen that a variable would be in; None for what is no part of the parameter tree."""
    if not isinstance(variable, nnx.Variable):
        return "constants"  # an array as it is: the module does not learn it, and cannot do without it
    if isinstance(variable, nnx.RngState | nnx.Intermediate | nnx.Perturbation):
        return None
    if isinstance(variable, nnx.Param):
        return PARAMS
    return STATE_KEY if isinstance(variable, nnx.BatchStat) else type(variable).__name__


def _trace(graph: Graph, head: str | None, x: Any) -> Layout:
    called: dict[Path, Any] = {}
    dense: list[tuple[Path, Any]] = []

    def watch(layer: nnx.Module, path: Path, call: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        out = call(*args, **kwargs)
        called[path] = type(layer)
        if isinstance(layer, nnx.Linear):
            dense.append((path, jax.typeof(out)))
        return out

    def logits(leaves: dict[str, Any], x: Any) -> Any:
        module = _merge(graph, leaves, None)
        module.eval()
        with _watching(module, lambda path: True, watch):
            return as_output(module(x, **_arguments(module, False, None)), None).logits

    values = {name: _value(graph.variables[path]) for name, path in graph.places.items()}
    out = jax.eval_shape(logits, values, x)
    last = dense[-1][0] if dense and fits_as_head(dense[-1][1], out) else None
    return find_head(head, called, last, is_split(map(_strings, graph.places.values())))


def _merge(graph: Graph, leaves: Mapping[str, Any], key: Key | None) -> Any:
    """The module with these leaves, and random streams from `key`."""
    lost = [name for name in graph.places if name not in leaves]
    if lost:
        raise ModelError(f"the parameters lack {len(lost)} leaves that the module has, first {lost[0]!r}")
    values = {path: leaves[name] for name, path in graph.places.items()}
    root = jax.random.key(0) if key is None else key
    for i, (path, variable) in enumerate(graph.variables.items()):
        if isinstance(variable, nnx.RngCount):
            values[path] = jnp.zeros(variable.shape, jnp.uint32)
        elif isinstance(variable, nnx.RngKey):
            stream = jax.random.fold_in(root, i)
            values[path] = jax.random.split(stream, variable.shape) if variable.shape else stream
    state = {
        path: v.replace(values[path]) if isinstance(v, nnx.Variable) else values[path]
        for path, v in graph.variables.items()
        if path in values
    }
    return nnx.merge(graph.graphdef, nnx.from_flat_state(state))


def _values(module: nnx.Module) -> dict[tuple, Any]:
    return {path: _value(v) for path, v in nnx.to_flat_state(nnx.state(module)) if _collection(v)}


def _value(variable: Any) -> Any:
    return variable.get_value() if isinstance(variable, nnx.Variable) else variable


def _counts(module: nnx.Module) -> list[Any]:
    return [v.get_value() for _, v in nnx.to_flat_state(nnx.state(module, nnx.RngCount))]


def _infer(module: nnx.Module, still: Collection[Path]) -> None:
    """Sets the layers at `still` to inference; `_call_to_infer` does the same to what their callers say."""
    for path, layer in nnx.iter_modules(module):
        if _strings(path) not in still:
            continue
        fields = [flag for flag in MODE if isinstance(getattr(layer, flag, ()), bool | None)]
        if not fields and not mode_arguments(layer.__call__, train=False):
            raise no_switch(_strings(path), class_name(layer))
        for flag in fields:
            setattr(layer, flag, not MODE[flag])


def _call_to_infer(layer: nnx.Module, call: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
    bound = inspect.signature(layer.__call__).bind_partial(*args, **kwargs)
    bound.arguments.update(mode_arguments(layer.__call__, train=False))
    return call(*bound.args, **bound.kwargs)


_WATCH: contextvars.ContextVar[Watch | None] = contextvars.ContextVar("tljax_watch", default=None)


@contextlib.contextmanager
def _watching(module: nnx.Module, which: Callable[[Path], bool], watch: Watch) -> Iterator[dict[Path, nnx.Module]]:
    """Within, the calls of the chosen submodules go through `watch`; NNX has no interceptors, as Linen has.

    They become instances of a subclass, and so remain what they are to the rest of the module: attributes, isinstance
    and NNX's transformations see no difference. The module must be a throwaway copy.
    """
    chosen = {_strings(p): layer for p, layer in nnx.iter_modules(module) if which(_strings(p))}
    for path, layer in chosen.items():
        if callable(layer):
            layer.__class__ = _watched(type(layer))
            setattr(layer, _PATH, path)
    token = _WATCH.set(watch)
    try:
        yield chosen
    finally:
        _WATCH.reset(token)


@functools.cache
def _watched(kind: type) -> type:
    @functools.wraps(kind.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        watch, own = _WATCH.get(), functools.partial(kind.__call__, self)
        return own(*args, **kwargs) if watch is None else watch(self, getattr(self, _PATH), own, args, kwargs)

    return type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


def _strings(path: tuple) -> Path:
    return tuple(map(str, path))


def _name(path: tuple) -> str:
    return "/".join(map(str, path))
