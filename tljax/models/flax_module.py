"""Any Flax Linen module as a `Model`."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import meta
from flax.errors import InvalidRngError, ScopeCollectionNotFound, ScopeVariableNotFoundError
from flax.traverse_util import flatten_dict, unflatten_dict

from tljax.models import remat, taps
from tljax.models.linen_modes import CAPTURE, INPUT, OUTPUT, in_mode, router
from tljax.models.wrapping import (
    PARAMS,
    Layout,
    ModelError,
    Path,
    as_output,
    check_frozen,
    find_head,
    fits_as_head,
    is_split,
    jit_init,
    origin,
    place,
    statistics_after,
    wrapped,
)
from tljax.tree import named_leaves
from tljax.types import STATE_KEY, Key, Model, Output, Params

LayoutOf = Callable[[Any], Layout]


def from_flax(
    module: nn.Module,
    *,
    head: str | None = None,
    groups: tuple[str, ...] | None = None,
    name: str | None = None,
) -> Model:
    """A Linen module, anybody's, as a `Model`.

    Args:
      module: a Linen module whose ``__call__`` takes a batch `x` (one argument; a dict will do) and perhaps a mode
        switch: `train`, `training`, `is_training`, `deterministic` or `use_running_average`, as argument or as
        field. It returns logits, ``(logits, features)``, a dict with "logits" and perhaps "features", or
        `tljax.types.Output`.
      head: the path of the submodule that is the head, as ``"decoder/classifier"``. By default the submodule `head`
        of a module that has just `backbone` and `head`, else the last `nn.Dense` called, if its output has the size
        of the logits; else there is no head, and all leaves stand in the backbone.
      groups: selectors from stem to head, which together match every leaf once; by default backbone, head.
      name: what to call the model; by default the class of the module.

    The parameter tree has the head's leaves under ``head/``, all others under ``backbone/`` with their own paths, and
    the variables of `batch_stats` beside their layer: ``backbone/norm/batch_stats/mean``. Other collections that the
    module needs are kept in the same way under their own name; what it merely sows is dropped. Partitioning boxes
    are taken off.

    `Output.features` are what the module returns as such, else the input of its head, flattened to `[B, D]`.

    `apply(train=False)` makes every `nn.BatchNorm` use its running statistics and every `nn.Dropout` do nothing,
    whatever their constructors said; `train=True` leaves alone what constructors fixed. `key` feeds the "dropout"
    stream and, folded, any other.

    Raises `ModelError` for a head that was not called, a result or a frozen name it does not know, a missing key.

    >>> from tljax.tree import leaf_names
    >>> class Net(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x):
    ...         x = nn.relu(nn.Dense(20)(x))
    ...         return nn.Dense(10)(x)
    >>> model = from_flax(Net())
    >>> params = model.init(jax.random.key(0), jnp.ones((1, 8)))
    >>> leaf_names(params)
    ['backbone/Dense_0/bias', 'backbone/Dense_0/kernel', 'head/bias', 'head/kernel']
    >>> model.apply(params, jnp.ones((3, 8))).features.shape
    (3, 20)
    """
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"from_flax takes a flax.linen.Module, as MyModule(...); found {module!r}. For NNX modules write from_nnx"
        )
    layouts: dict[Any, Layout] = {}

    def layout_of(spec: Any) -> Layout:
        if spec not in layouts:
            layouts[spec] = _trace(module, head, spec)
        return layouts[spec]

    return wrap_linen(module, layout_of, groups=groups, name=name)


def wrap_linen(
    module: nn.Module, layout_of: LayoutOf, *, groups: tuple[str, ...] | None = None, name: str | None = None
) -> Model:
    """The `Model` of a Linen module whose layout, for an input of the spec it is given, `layout_of` tells."""

    def initial(key: Key, spec: Any) -> Params:
        layout = layout_of(spec)
        variables = _initialise(module, {PARAMS: key, "dropout": jax.random.fold_in(key, 1)}, _zeros(spec))[1]
        carried = _needed(module, variables, spec)
        return _to_tree({collection: variables[collection] for collection in carried}, layout)

    jitted = jit_init(initial)

    def init(key: Key, x: Any) -> Params:
        return jitted(key, _spec(x))

    def run(params: Params, x: Any, train: bool, key: Key | None, frozen: frozenset[str]) -> Output:
        return _apply(module, layout_of(_spec(x)), params, x, train, key, frozen)

    return wrapped(init, run, name or type(module).__name__, groups)


def _apply(
    module: nn.Module,
    layout: Layout,
    params: Params,
    x: Any,
    train: bool,
    key: Key | None,
    frozen: frozenset[str],
) -> Output:
    variables = _to_variables(params, layout)
    still = _owners(frozen, params, layout) if frozen else set()
    rngs = {} if key is None else {"dropout": key, PARAMS: jax.random.fold_in(key, 1)}
    carried = [collection for collection in variables if collection != PARAMS]
    switched, arguments = in_mode(module, train)
    tap = taps.active()
    sees = None if tap is None else lambda path, output: tap.sees("/".join(place(PARAMS, path, layout)), output)
    again = _computed_again(layout)
    route = router(layout.head, train=train, force=not train, still=still, sees=sees, again=again)
    new: Any
    try:
        with nn.intercept_methods(route):
            result, new = switched.apply(variables, x, rngs=rngs, mutable=[*carried, CAPTURE], **arguments)
    except InvalidRngError as error:
        if key is not None:
            raise
        raise ModelError(
            f"{type(module).__name__} draws random numbers with train={train}: give apply a key, "
            "as in apply(params, x, train=True, key=jax.random.key(0))"
        ) from error
    sown = flatten_dict(new.pop(CAPTURE, {}))
    if tap is not None:
        tap.outputs |= {
            "/".join(place(PARAMS, path[:-1], layout)): values[-1]
            for path, values in sown.items()
            if path[-1] == OUTPUT
        }
    output = as_output(result, _last(sown, INPUT))
    if not (train and carried):
        return output
    return output._replace(stats=statistics_after(params, named_leaves(_to_tree(new, layout)), frozen))


def _computed_again(layout: Layout) -> Callable[[Path], Any] | None:
    """For whoever wants layers computed again: makes a function of a layer at a path into one that does, or None."""
    wanted = remat.active()
    if wanted is None:
        return None

    def lifted(path: Path) -> Any:
        name = "/".join(place(PARAMS, path, layout))
        if name not in wanted.layers:
            return None
        wanted.met.add(name)
        return functools.partial(nn.remat, policy=wanted.policy)

    return lifted


def _owners(frozen: frozenset[str], params: Params, layout: Layout) -> set[Path]:
    """The modules that own the normalisation statistics called `frozen`; what else is frozen just keeps its value."""
    names = {"/".join(path): path for path in flatten_dict(params)}
    check_frozen(frozen, names)
    origins = [origin(names[name], layout) for name in frozen]
    return {path[:-1] for collection, path in origins if collection == STATE_KEY}


def _last(sown: dict[Path, tuple], name: str) -> Any:
    """What was sown last under `name`, None if nothing was."""
    found = [values for path, values in sown.items() if path[-1] == name]
    return found[-1][-1] if found else None


def _trace(module: nn.Module, head: str | None, spec: Any) -> Layout:
    """The layout of `module`, from running it on abstract values."""
    called: dict[Path, Any] = {}
    dense: list[tuple[Path, Any]] = []

    def watch(call: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: Any) -> Any:
        out = call(*args, **kwargs)
        if context.method_name == "__call__" and context.module.scope is not None:
            called[context.module.path] = type(context.module)
            if isinstance(context.module, nn.Dense):
                dense.append((context.module.path, jax.typeof(out)))
        return out

    def run() -> Any:
        with nn.intercept_methods(watch):
            result, variables = _initialise(module, jax.random.key(0), _zeros(spec))
        return as_output(result, None).logits, variables

    logits, variables = jax.eval_shape(run)
    paths = [path[1:] for path in flatten_dict(variables) if path[0] in (PARAMS, STATE_KEY)]
    last = dense[-1][0] if dense and fits_as_head(dense[-1][1], logits) else None
    return find_head(head, called, last, is_split(paths))


def _initialise(module: nn.Module, rngs: Any, x: Any) -> tuple[Any, dict[str, Any]]:
    switched, arguments = in_mode(module, train=False)
    with nn.intercept_methods(router(train=False)):
        result, variables = switched.init_with_output(rngs, x, **arguments)
    return result, meta.unbox(variables)


def _needed(module: nn.Module, variables: dict[str, Any], spec: Any) -> list[str]:
    """The collections that `module` cannot run without; what is merely sown can be left out."""

    def runs_without(collection: str) -> bool:
        rest = {name: value for name, value in variables.items() if name != collection}
        carried = [name for name in rest if name != PARAMS]
        switched, arguments = in_mode(module, train=True)
        rngs = {PARAMS: jax.random.key(0), "dropout": jax.random.key(0)}
        try:
            with nn.intercept_methods(router(train=True)):
                jax.eval_shape(lambda: switched.apply(rest, _zeros(spec), rngs=rngs, mutable=carried, **arguments))
        except (ScopeCollectionNotFound, ScopeVariableNotFoundError):
            return False
        return True

    return [name for name in variables if name in (PARAMS, STATE_KEY) or not runs_without(name)]


def _to_tree(variables: dict[str, Any], layout: Layout) -> Params:
    return unflatten_dict({place(path[0], path[1:], layout): leaf for path, leaf in flatten_dict(variables).items()})


def _to_variables(params: Params, layout: Layout) -> dict[str, Any]:
    flat = {}
    for path, leaf in flatten_dict(params).items():
        collection, original = origin(path, layout)
        flat[(collection, *original)] = leaf
    return unflatten_dict(flat)


def _spec(x: Any) -> tuple[Any, tuple[jax.ShapeDtypeStruct, ...]]:
    """Shape and dtype of `x`, hashable."""
    leaves, treedef = jax.tree.flatten(jax.eval_shape(lambda x: x, x))
    return treedef, tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)


def _zeros(spec: tuple[Any, tuple[jax.ShapeDtypeStruct, ...]]) -> Any:
    treedef, leaves = spec
    return jax.tree.unflatten(treedef, [jnp.zeros(leaf.shape, leaf.dtype) for leaf in leaves])
