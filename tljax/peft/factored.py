"""`factored`: the function of the merged parameters, without merging them."""

from collections.abc import Callable
from typing import Any

import jax

from tljax.models import taps
from tljax.peft.adapter import Adapter, Adapters, PeftError
from tljax.peft.explain import Explanation, Row
from tljax.peft.interpret import Notes, evaluate
from tljax.peft.merge import check, merged, misfit, shared_of
from tljax.peft.weight import Weight, in_parts
from tljax.tree import named_leaves, natural_key
from tljax.tree.paths import flatten_named
from tljax.types import Params


def factored(apply: Callable[..., Any], strict: bool = False) -> Callable[..., Any]:
    """A function of (params, adapters, ...) that equals ``apply(merge(params, adapters), ...)`` and forms no W + a b.

    `apply` may be any pure function whose first argument is a tree of parameters: it is traced, and every matrix
    product, convolution or lookup that reads an adapted leaf is split, ``x W + (x a) b``. So the gradient of the
    adapters needs no gradient of W, which is a third of a training step. Transposed, reshaped, sliced, cast, stacked
    and scanned leaves are followed, and calls, loops, branches and checkpoints entered. What cannot be split is merged,
    that leaf alone; `explain` lists it. With `strict` it raises `PeftError` instead.

    The result can be jitted, differentiated, and vmapped: over adapters ``in_axes=(None, 0, None)`` for many on one
    base that is never copied, or ``in_axes=(None, 0, 0)`` for another adapter with each example. Put it under
    `jax.jit`: outside it is traced at every call and its operations run one by one.

    >>> import jax.numpy as jnp
    >>> from tljax.peft import LoRA, merge
    >>> params = {"kernel": jnp.ones((4, 3))}
    >>> adapters = {"kernel": LoRA(jnp.ones((4, 1)), jnp.ones((1, 3)), {"scale": jnp.float32(0.5)})}
    >>> jax.jit(factored(lambda params, x: x @ params["kernel"]))(params, adapters, jnp.ones((1, 4)))
    Array([[6., 6., 6.]], dtype=float32)
    """

    def apply_factored(params: Params, adapters: Adapters, *args: Any, **kwargs: Any) -> Any:
        notes = Notes()
        out = _apply(apply, params, adapters, args, kwargs, notes)
        if strict:
            _refuse(_explained(adapters, notes))
        return out

    return apply_factored


def explain(apply: Callable[..., Any], params: Params, adapters: Adapters, *args: Any, **kwargs: Any) -> Explanation:
    """What `factored` does with each adapted leaf: in which primitives it is split, or what has it merged, and why.

    Nothing is computed; arrays may be `jax.ShapeDtypeStruct`.

    >>> import jax.numpy as jnp
    >>> from tljax.peft import LoRA
    >>> adapter = LoRA(jnp.ones((4, 1)), jnp.ones((1, 3)), {"scale": jnp.float32(0.5)})
    >>> params, adapters = {"a": jnp.ones((4, 3)), "b": jnp.ones((4, 3))}, {"a": adapter, "b": adapter}
    >>> print(explain(lambda p, x: x @ p["a"] + jnp.sum(jnp.abs(p["b"])), params, adapters, jnp.ones((1, 4))))
    leaf  kind  rank  in the program
    a     lora     1  factored in dot_general
    b     lora     1  merged for abs: it is no product with activations
    """
    notes = Notes()
    arrays, rebuild = _arrays((params, adapters, args, kwargs))

    def run(arrays: list[Any]) -> None:
        params, adapters, args, kwargs = rebuild(arrays)
        _apply(apply, params, adapters, args, kwargs, notes)

    jax.eval_shape(run, arrays)
    return _explained(adapters, notes)


def _apply(apply: Callable[..., Any], params: Params, adapters: Adapters, args: Any, kwargs: Any, notes: Notes) -> Any:
    check(named_leaves(params), adapters)
    shared = shared_of(adapters)
    names, leaves, treedef = flatten_named(params)
    values = [
        _effective(name, adapters[name], leaf, shared, notes) if name in adapters else leaf
        for name, leaf in zip(names, leaves)
    ]
    if not any(isinstance(value, Weight) for value in values):
        return apply(jax.tree.unflatten(treedef, values), *args, **kwargs)
    bases = [value.base if isinstance(value, Weight) else value for value in values]
    arrays, rebuild = _arrays((jax.tree.unflatten(treedef, bases), args, kwargs))
    finish: list[Callable[..., Any]] = []
    shapes: dict[str, Any] = {}
    outer = taps.active()

    def traced(arrays: list[Any]) -> list[Any]:
        params, args, kwargs = rebuild(arrays)
        with taps.tapped(*(outer.layers if outer else ())) as tap:  # what it finds are outputs of this program
            out = apply(params, *args, **kwargs)
        outs, end = _arrays((out, tap.outputs))
        finish.append(end)
        shapes.update(tap.shapes)
        return outs

    program = jax.make_jaxpr(traced)(arrays)
    given = [value for value in values if isinstance(value, Weight) or _is_traced(value)]
    out, outputs = finish[-1](evaluate(program, [*given, *arrays[len(given) :]], notes))
    if outer:
        outer.take(shapes, outputs)
    return out


def _effective(name: str, adapter: Adapter, leaf: Any, shared: Any, notes: Notes) -> Any:
    """The leaf in parts, or merged where it has none."""
    try:
        found = adapter.factor(leaf, shared)
        if found is not None and not found.plain:
            return in_parts(name, found)
    except (KeyError, TypeError, ValueError) as error:
        merged(name, adapter, leaf, shared)  # raises the better message
        raise PeftError(misfit(name, adapter, leaf)) from error
    notes.whole.add(name)
    return merged(name, adapter, leaf, shared)


def _explained(adapters: Adapters, notes: Notes) -> Explanation:
    def row(name: str, adapter: Adapter) -> Row:
        formed = notes.formed.get(name, {})
        return Row(
            name, adapter.kind, _rank(adapter), tuple(notes.used.get(name, ())),
            tuple((primitive, str(why), why.cheaper) for primitive, why in formed.items()), name in notes.whole,
        )  # fmt: skip

    own = {name: adapter for name, adapter in adapters.items() if isinstance(adapter, Adapter)}
    return Explanation(tuple(row(name, own[name]) for name in sorted(own, key=natural_key)))


def _rank(adapter: Adapter) -> int | None:
    a = getattr(adapter, "a", getattr(adapter, "d", None))
    return None if a is None else a.shape[-1]


def _refuse(explanation: Explanation) -> None:
    dear = [row for row in explanation.rows if row.dear]
    if dear:
        listed = "\n".join(f"  {row.leaf!r}, {row}: {row.advice()}" for row in dear[:10])
        more = f"\n  and {len(dear) - 10} more" if len(dear) > 10 else ""
        raise PeftError(
            f"factored(strict=True): {len(dear)} adapted leaves would be merged, and pay for a full gradient:\n"
            f"{listed}{more}\nOr leave them out of the adapters, or give strict=False."
        )


def _is_traced(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct)


def _arrays(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The JAX arrays of `tree`, and a function that puts others in their places: all else is static."""
    leaves, treedef = jax.tree.flatten(tree)

    def rebuild(arrays: list[Any]) -> Any:
        rest = iter(arrays)
        return jax.tree.unflatten(treedef, [next(rest) if _is_traced(leaf) else leaf for leaf in leaves])

    return [leaf for leaf in leaves if _is_traced(leaf)], rebuild
