"""What `from_flax` and `from_nnx` share: where a leaf stands, the mode switch, what a module returns.

A leaf of the head called ``decoder/classifier/kernel`` stands at ``head/kernel``, every other ``a/b/kernel``
at ``backbone/a/b/kernel``.  A carried variable has one marker just above it: ``a/norm/mean`` of the collection
``batch_stats`` stands at ``backbone/a/norm/batch_stats/mean``, ``a/cache/index`` of a collection ``cache`` at
``backbone/a/cache/batch_stats/cache/index``.  `place` and `origin` are each other's inverse.
"""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tljax.tree import map_named, nearest
from tljax.types import STATE_KEY, Key, Model, Output, Params, TljaxError, is_state

Path = tuple[str, ...]

PARAMS = "params"
MODE = {
    "train": True,
    "training": True,
    "is_training": True,
    "update_stats": True,
    "deterministic": False,
    "use_running_average": False,
}
"""The names that switch between training and inference in Flax code, with the value that means training."""


class ModelError(TljaxError):
    """A module that cannot be wrapped, or a model called with what it does not have."""


class Layout(NamedTuple):
    """Where the leaves of a module stand in the parameter tree."""

    head: Path | None = None
    """The path of the head in the module; None when it has none."""
    split: bool = False
    """The module's own top level is ``backbone`` and ``head``, so every leaf keeps its path."""


def place(collection: str, path: Path, layout: Layout) -> Path:
    """Where the variable `path` of `collection` stands in the parameter tree.

    Raises `ModelError` when a module has the marker's name: names alone must tell statistics from parameters.

    >>> place("batch_stats", ("norm", "mean"), Layout(head=("fc",)))
    ('backbone', 'norm', 'batch_stats', 'mean')
    >>> place("params", ("fc", "kernel"), Layout(head=("fc",)))
    ('head', 'kernel')
    """
    if STATE_KEY in path:
        raise ModelError(
            f"{'/'.join(path)!r} has a part called {STATE_KEY!r}, which marks statistics; rename that module"
        )
    if not layout.split:
        n = len(layout.head or ())
        in_head = layout.head is not None and path[:n] == layout.head
        path = ("head", *path[n:]) if in_head else ("backbone", *path)
    if collection == PARAMS:
        return path
    marker = (STATE_KEY,) if collection == STATE_KEY else (STATE_KEY, collection)
    return (*path[:-1], *marker, path[-1])


def origin(path: Path, layout: Layout) -> tuple[str, Path]:
    """The collection and the path of the variable that stands at `path`: the inverse of `place`.

    >>> origin(("backbone", "norm", "batch_stats", "mean"), Layout(head=("fc",)))
    ('batch_stats', ('norm', 'mean'))
    """
    collection = PARAMS
    if STATE_KEY in path:
        at = path.index(STATE_KEY)
        collection = STATE_KEY if at == len(path) - 2 else path[at + 1]
        path = (*path[:at], path[-1])
    if not layout.split:
        above = (layout.head or ()) if path[0] == "head" else ()
        path = (*above, *path[1:])
    return collection, path


def is_split(paths: Iterable[Path]) -> bool:
    """Whether the variables at `paths` stand under ``backbone`` and ``head`` already.

    >>> is_split([("backbone", "stem", "kernel"), ("head", "kernel")]), is_split([("fc", "kernel")])
    (True, False)
    """
    return {path[0] for path in paths} == {"backbone", "head"}


def find_head(wanted: str | None, called: Mapping[Path, Any], dense: Path | None, split: bool) -> Layout:
    """The layout of a module that called the submodules `called`; `dense` is the last that can be the head.

    Raises `ModelError` when the head that is `wanted` was not called.
    """
    if split and wanted in (None, "head"):
        return Layout(("head",), split=True)
    if wanted is None:
        return Layout(dense)
    path = tuple(wanted.split("/"))
    if path not in called:
        names = ["/".join(p) for p in called if p]
        raise ModelError(
            f"head={wanted!r}: no submodule of that name was called; the nearest are "
            f"{', '.join(map(repr, nearest(wanted, names) or names[-3:])) or 'none: there are no submodules'}"
        )
    return Layout(path)


def fits_as_head(out: Any, logits: Any) -> bool:
    """Whether a layer that returned `out` can make `logits`, and is not, say, a gate inside a block.

    >>> fits_as_head(jnp.zeros((2, 16)), jnp.zeros((2, 5)))
    False
    """
    return out.shape[-1:] == logits.shape[-1:] or out.size == logits.size


def jit_init(initial: Callable[..., Params]) -> Callable[..., Params]:
    """`initial(key, static)` jitted for one run per shape: on CPU with little optimisation.

    There the random draws of many layers take seconds to compile; level 1 takes a third of the time of the default
    for a ResNet-20. A jitted function inside another cannot have options of its own.
    """
    plain = jax.jit(initial, static_argnums=1)
    quick = jax.jit(initial, static_argnums=1, compiler_options={"xla_backend_optimization_level": 1})

    def init(key: Key, static: Any = None) -> Params:
        inside = isinstance(key, jax.core.Tracer)
        return (quick if jax.default_backend() == "cpu" and not inside else plain)(key, static)

    return init


def wrapped(
    init: Callable[[Key, Any], Params],
    run: Callable[[Params, Any, bool, Key | None, frozenset[str]], Output],
    name: str,
    groups: tuple[Any, ...] | None,
) -> Model:
    """The `Model` that begins with `init` and runs as `run(params, x, train, key, frozen)`."""

    def apply(
        params: Params,
        x: Any,
        *,
        train: bool = False,
        key: Key | None = None,
        frozen: Collection[str] = frozenset(),
    ) -> Output:
        return run(params, x, train, key, frozenset(frozen))

    facts: dict[str, Any] = {} if groups is None else {"groups": groups}
    return Model(init, apply, name=name, **facts)


def mode_arguments(call: Callable[..., Any], train: bool) -> dict[str, bool]:
    """The switches that `call` takes, set for training or inference.

    >>> mode_arguments(lambda x, deterministic: x, train=True)
    {'deterministic': False}
    """
    parameters = inspect.signature(call).parameters
    return {flag: on is train for flag, on in MODE.items() if flag in parameters}


def as_output(result: Any, head_input: Any) -> Output:
    """What a module returned as our output: logits, ``(logits, features)``, a dict with "logits", or `Output`.

    Features that it does not return are what its head read, or without a head the logits, flattened to `[B, D]`.
    """
    logits: Any
    features: Any
    if isinstance(result, Mapping) and "logits" in result:
        logits, features = result["logits"], result.get("features")
    elif isinstance(result, Output):
        logits, features = result.logits, result.features
    elif isinstance(result, tuple | list) and len(result) == 2:
        logits, features = result
    else:
        logits, features = result, None
    if not hasattr(logits, "shape"):
        raise ModelError(
            f"the module returned {_described(result)}; expected logits, (logits, features), "
            "a dict with 'logits' and optionally 'features', or tljax.types.Output"
        )
    if features is None:
        features = logits if head_input is None else head_input
    if features.ndim > 2:
        features = jnp.reshape(features, (features.shape[0], -1))
    return Output(logits, features)


def statistics_after(params: Params, fresh: Mapping[str, Any], frozen: Collection[str]) -> Params:
    """The statistics of a pass: those of `params`, as `fresh` has them by name but for the `frozen` ones.

    They keep their types, as a loop over steps needs: flax begins them in float32, and returns float64 where that is
    the type of a batch.

    >>> params = {"head": {"bias": jnp.zeros(2)}, "norm": {"batch_stats": {"mean": jnp.zeros(2, jnp.bfloat16)}}}
    >>> print(statistics_after(params, {"norm/batch_stats/mean": jnp.ones(2)}, ()))
    {'head': {'bias': None}, 'norm': {'batch_stats': {'mean': Array([1, 1], dtype=bfloat16)}}}
    """

    def after(name: str, old: Any) -> Any:
        if not is_state(name):
            return None
        new = old if name in frozen else fresh.get(name, old)
        return new if new.dtype == old.dtype else new.astype(old.dtype)

    return map_named(after, params)


def check_frozen(frozen: Collection[str], names: Iterable[str]) -> None:
    """Raises `ModelError` unless every name in `frozen` is that of a statistic among `names`.

    >>> check_frozen({"backbone/norm/batch_stats/mean"}, ["backbone/norm/batch_stats/mean", "head/kernel"])
    """
    known = {name for name in names if is_state(name)}
    for name in sorted(set(frozen) - known):
        raise ModelError(
            f"frozen={name!r} is not a statistic of this model; the nearest are "
            f"{', '.join(map(repr, nearest(name, known))) or 'none: it carries no statistics'}"
        )


def no_switch(path: Path, kind: str) -> ModelError:
    """The error for a frozen layer that cannot be told to use its running statistics."""
    return ModelError(
        f"the statistics of {'/'.join(path)!r} ({kind}) cannot be frozen: the layer has none of the switches "
        f"{', '.join(MODE)}. Give its __call__ a 'use_running_average' argument"
    )


def _described(result: Any) -> str:
    if isinstance(result, Mapping):
        return f"a dict with {', '.join(map(repr, result)) or 'nothing'}"
    size = f" of {len(result)}" if isinstance(result, tuple | list) else ""
    return f"{type(result).__name__}{size}"
