"""Runs a traced function with some of its inputs as weights in parts.

The equations are evaluated one by one, as JAX itself would, but for those that read a weight: `rules` says what becomes
of it; loops, branches and checkpoints are built anew around their rewritten bodies; and where neither knows what to do,
that one weight is formed and the equation runs as it is.
"""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from jax import lax
from jax.extend.core import DropVar, Literal

from tljax.peft.rules import MOVES, PRODUCTS
from tljax.peft.weight import Unfit, Weight, row, rows


@dataclasses.dataclass
class Notes:
    """What became of each weight, by its name: primitives that took it in parts, and those that had it formed."""

    used: dict[str, dict[str, None]] = dataclasses.field(default_factory=dict)
    formed: dict[str, dict[str, Unfit]] = dataclasses.field(default_factory=dict)
    whole: set[str] = dataclasses.field(default_factory=set)
    """Leaves that were merged from the first, since their kind has no factors."""

    def use(self, weight: Weight, primitive: str) -> None:
        self.used.setdefault(weight.name, {})[primitive] = None

    def form(self, value: Any, primitive: str, why: Unfit) -> Any:
        """`value` as an array."""
        if not isinstance(value, Weight):
            return value
        self.formed.setdefault(value.name, {})[primitive] = why
        return value.dense()


def evaluate(program: Any, values: Sequence[Any], notes: Notes) -> list[Any]:
    """The outputs of the jaxpr `program`, as arrays, for `values`, arrays or weights in parts."""
    jaxpr, consts = _opened(program)
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *values]))
    last = _last_uses(jaxpr)
    for i, eqn in enumerate(jaxpr.eqns):
        operands = [_read(known, v) for v in eqn.invars]
        with _context(eqn):
            outs = _step(eqn, operands, notes)
        known.update((v, out) for v, out in zip(eqn.outvars, outs) if not isinstance(v, DropVar))
        for v in last.get(i, ()):
            known.pop(v, None)
    whole = Unfit("the function returns it")
    return [notes.form(_read(known, v), "output", whole) for v in jaxpr.outvars]


def _step(eqn: Any, operands: list[Any], notes: Notes) -> list[Any]:
    name = eqn.primitive.name
    weights = [value for value in operands if isinstance(value, Weight)]
    if not weights:
        return _bound(eqn, operands)
    try:
        if name in _CALLS:
            return _CALLS[name](eqn, operands, notes)
        if name in PRODUCTS:
            outs = PRODUCTS[name](eqn, operands)
            notes.use(weights[0], name)
            return outs
        if name in MOVES:
            outs = MOVES[name](eqn, operands)
            if not isinstance(outs[0], Weight):
                notes.use(weights[0], name)
            return outs
        why = Unfit(_OWN_RULE if name.startswith("custom_") else "it is no product with activations")
    except Unfit as unfit:
        why = unfit
    return _bound(eqn, [notes.form(value, name, why) for value in operands])


_OWN_RULE = "the function has a derivative of its own, of the whole weight"


def _bound(eqn: Any, operands: list[Any]) -> list[Any]:
    params = eqn.primitive.get_bind_params(eqn.params)
    functions, params = ((), params) if isinstance(params, dict) else params
    outs = eqn.primitive.bind(*functions, *operands, **params)
    return list(outs) if eqn.primitive.multiple_results else [outs]


def _read(known: dict[Any, Any], v: Any) -> Any:
    return v.val if isinstance(v, Literal) else known[v]


def _last_uses(jaxpr: Any) -> dict[int, list[Any]]:
    """The variables that no later equation reads, so that nothing is kept longer than needed."""
    at: dict[Any, int] = {}
    for i, eqn in enumerate(jaxpr.eqns):
        at.update((v, i) for v in (*eqn.invars, *eqn.outvars) if not isinstance(v, Literal))
    for v in jaxpr.outvars:
        if not isinstance(v, Literal):
            at.pop(v, None)
    uses: dict[int, list[Any]] = {}
    for v, i in at.items():
        uses.setdefault(i, []).append(v)
    return uses


def _context(eqn: Any) -> Any:
    """The settings under which the equation was traced."""
    return getattr(getattr(eqn, "ctx", None), "manager", None) or contextlib.nullcontext()


def _opened(program: Any) -> tuple[Any, Sequence[Any]]:
    """A jaxpr and its constants, closed or not."""
    return getattr(program, "jaxpr", program), getattr(program, "consts", ())


def _inlined(eqn: Any, operands: list[Any], notes: Notes) -> list[Any]:
    program = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    if program is None:
        raise Unfit("a call of an unknown form")
    return evaluate(program, operands, notes)


def _checkpoint(eqn: Any, operands: list[Any], notes: Notes) -> list[Any]:
    def body(values: list[Any]) -> list[Any]:
        return evaluate(eqn.params["jaxpr"], values, notes)

    options = {key: eqn.params[key] for key in ("policy", "prevent_cse") if key in eqn.params}
    return jax.checkpoint(body, **options)(operands)


def _scan(eqn: Any, operands: list[Any], notes: Notes) -> list[Any]:
    """Constants and stacked weights stay in parts; what is carried on is formed.

    Which operand is what shows in the shapes: slices have an axis less inside. (The parameters that say it have other
    names in every version of JAX.)
    """
    jaxpr, _ = _opened(eqn.params.get("jaxpr"))
    if jaxpr is None or len(jaxpr.invars) != len(operands) or len(jaxpr.outvars) != len(eqn.outvars):
        raise Unfit("a loop of an unknown form")
    fixed = sum(v.aval.ndim == inner.aval.ndim for v, inner in zip(eqn.invars, jaxpr.invars))
    carried = sum(v.aval.ndim == inner.aval.ndim for v, inner in zip(eqn.outvars, jaxpr.outvars))
    consts, xs = operands[: fixed - carried], operands[fixed:]
    carry = [notes.form(value, "scan", Unfit("a loop carries it on")) for value in operands[fixed - carried : fixed]]
    split = [rows(x) if isinstance(x, Weight) else (x, None) for x in xs]

    def body(carry: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
        own = [x if held is None else row(x, held) for x, (_, held) in zip(slices, split)]
        outs = evaluate(eqn.params["jaxpr"], [*consts, *carry, *own], notes)
        return outs[:carried], outs[carried:]

    options = {key: eqn.params[key] for key in ("length", "reverse", "unroll") if key in eqn.params}
    carry, ys = lax.scan(body, carry, [x for x, _ in split], **options)
    return [*carry, *ys]


def _while(eqn: Any, operands: list[Any], notes: Notes) -> list[Any]:
    params = eqn.params
    if not {"cond_nconsts", "body_nconsts", "cond_jaxpr", "body_jaxpr"} <= set(params):
        raise Unfit("a loop of an unknown form")
    m, n = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    carry = [notes.form(value, "while", Unfit("a loop carries it on")) for value in operands[n:]]
    return lax.while_loop(
        lambda carry: evaluate(params["cond_jaxpr"], [*operands[:m], *carry], notes)[0],
        lambda carry: evaluate(params["body_jaxpr"], [*operands[m:n], *carry], notes),
        carry,
    )


def _cond(eqn: Any, operands: list[Any], notes: Notes) -> list[Any]:
    index, *rest = operands
    if "branches" not in eqn.params or isinstance(index, Weight):
        raise Unfit("a branch of an unknown form")
    branches = [lambda program=program: evaluate(program, rest, notes) for program in eqn.params["branches"]]
    return lax.switch(index, branches)


_CALLS = {
    "checkpoint": _checkpoint, "closed_call": _inlined, "cond": _cond, "core_call": _inlined, "jit": _inlined,
    "pjit": _inlined, "remat": _checkpoint, "remat2": _checkpoint, "scan": _scan, "while": _while,
}  # fmt: skip
