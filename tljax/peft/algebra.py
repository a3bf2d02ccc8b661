"""Adapters added, scaled, and cut to a rank, by what they add to the weights and not by their factors.

What an adapter adds, its delta, is ``s a b``. Deltas can be added; factors cannot: ``(a_1 + a_2)(b_1 + b_2)`` has cross
terms that nobody trained. So a sum is the factors side by side, exact and of the sum of the ranks, and a smaller rank
is the best that a singular value decomposition of that product gives, found from the factors alone. Scales (of LoRA and
rsLoRA alike) are in the factors, and so in every result.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tljax.peft.adapter import Adapter, Adapters, PeftError
from tljax.peft.choose import by_selector
from tljax.peft.factors import wide
from tljax.peft.full import Full
from tljax.peft.layout import Layout
from tljax.peft.lora import LoRA, factors_of
from tljax.peft.merge import check, shared_of
from tljax.peft.vera import VeRA
from tljax.tree import named_leaves
from tljax.types import Array, Params


def as_lora(adapters: Adapters, params: Params | None = None) -> Adapters:
    """The same adapters as plain LoRA of scale 1: PiSSA and OLoRA at twice their rank, VeRA if `params` are given.

    `Full` leaves stay. What the base becomes under ``merge`` is the same.

    Raises `PeftError` for kinds that are not ``W + a b``: DoRA, IA3, LoHa, LoKr.

    >>> kept = {"scale": jnp.float32(2.0), "a0": jnp.ones((4, 2)), "b0": jnp.ones((2, 3))}
    >>> as_lora({"w": LoRA(jnp.ones((4, 2)), jnp.ones((2, 3)), kept)})["w"].a.shape
    (4, 4)
    """
    shared = shared_of(adapters)
    leaves = base_leaves(params, adapters)
    plain: Adapters = {}
    for name, adapter in adapters.items():
        if isinstance(adapter, LoRA):
            plain[name] = _lora(*factors_of(adapter.a, adapter.b, adapter.constants, adapter.layout), adapter.layout)
        elif isinstance(adapter, VeRA):
            found = adapter.factor(base_leaf(leaves, name, "VeRA takes its number of inputs from it"), shared)
            assert found.a is not None
            assert found.b is not None
            plain[name] = _lora(found.a, found.b, adapter.layout)
        elif isinstance(adapter, Full):
            plain[name] = adapter
        elif isinstance(adapter, Adapter):
            raise PeftError(not_additive(name, adapter))
    return plain


def concat(sets: Sequence[Adapters], weights: Sequence[Any] | None = None, *, params: Params | None = None) -> Adapters:
    """``sum_i w_i delta_i``, exact: the factors side by side, so that ranks add; each weight is in its `b`.

    A leaf that only some sets adapt has a delta of 0 in the others. For a `Full` leaf the delta is what was added to
    the base, so it needs `params`: the result is ``W + sum_i w_i (V_i - W)``.

    Args:
        sets: adapters of one base.
        weights: one for each set, by default 1; may be traced.
        params: the base, for `Full` leaves and VeRA.

    Raises:
        PeftError: kinds whose deltas depend on the base (DoRA, IA3) or are no product of low rank (LoHa, LoKr); sets
            that do not fit each other or the weights.

    >>> x, y = (LoRA(jnp.ones((4, r)), jnp.ones((r, 3)), {"scale": jnp.float32(1.0)}) for r in (1, 2))
    >>> both = concat([{"w": x}, {"w": y}], [1.0, -0.5])["w"]
    >>> both.a.shape, float(both.merge(jnp.zeros((4, 3)), {})[0, 0])
    ((4, 3), 0.0)
    """
    combined: Adapters = {}
    for name, leaf in terms(sets, weights, params).items():
        if leaf.whole:
            combined[name] = Full(leaf.base + sum(w * delta for w, delta in zip(leaf.weights, leaf.deltas())))
            continue
        a = jnp.concatenate([adapter.a for adapter in leaf.adapters], axis=-1)
        b = [w * adapter.b for w, adapter in zip(leaf.weights, leaf.adapters)]
        combined[name] = _lora(a, jnp.concatenate(b, axis=leaf.layout.stack), leaf.layout)
    return combined


def truncate(adapters: Adapters, rank: Any) -> Adapters:
    """Every product at the rank nearest to it: the truncated singular value decomposition of its delta.

    Found from the factors: with ``a = Q_a R_a`` and ``b^T = Q_b R_b`` the decomposition of the small ``R_a R_b^T`` is
    that of ``a b`` between Q_a and Q_b. No matrix of the size of the weight is formed. ``truncate(concat(...), r)`` is
    the best linear combination of rank r. `Full` leaves stay.

    Args:
        adapters: LoRA of any start.
        rank: the rank at most, one for all or by selector; where none matches, a leaf keeps its own.

    Raises:
        PeftError: as `as_lora`, and for a rank below 1.

    >>> doubled = LoRA(jnp.ones((4, 2)), jnp.ones((2, 3)), {"scale": jnp.float32(1.0)})  # really of rank 1
    >>> found = truncate({"w": doubled}, 1)["w"]
    >>> found.a.shape, jnp.round(found.merge(jnp.zeros((4, 3)), {})[0], 4).tolist()
    ((4, 1), [2.0, 2.0, 2.0])
    """
    plain = as_lora(adapters)
    products = {name: adapter for name, adapter in plain.items() if isinstance(adapter, LoRA)}
    chosen = by_selector(rank, products, None)
    for name, adapter in products.items():
        if chosen[name] is not None:
            plain[name] = _truncated(adapter, checked_rank(chosen[name], name))
    return plain


class Terms(NamedTuple):
    """What several sets add to one leaf."""

    weights: list[Array]
    adapters: list[Any]
    """Plain LoRA or `Full`, one for each weight."""
    base: Any
    """The leaf, in float32; None where nothing needs it."""

    @property
    def whole(self) -> bool:
        """Whether the sum must be a `Full` leaf."""
        return any(isinstance(adapter, Full) for adapter in self.adapters)

    @property
    def layout(self) -> Layout:
        """The layout of the leaf, where all are LoRA."""
        return self.adapters[0].layout

    def deltas(self) -> list[Array]:
        """What each set adds, dense, in the layout of the leaf itself, without its weight."""
        return [self._delta(adapter) for adapter in self.adapters]

    def _delta(self, adapter: Any) -> Array:
        if isinstance(adapter, Full):
            return wide(adapter.value) - self.base
        stack, (ins, outs) = adapter.layout.stack, (adapter.a.shape, adapter.b.shape)
        shape = (*ins[:-1], *outs[stack + 1 :])
        return adapter.merge(jnp.zeros(_back(adapter.layout, shape), jnp.float32), {})


def terms(sets: Sequence[Adapters], weights: Sequence[Any] | None, params: Params | None) -> dict[str, Terms]:
    """What there is to add, leaf by leaf, in the order in which the leaves first appear.

    Raises `PeftError` where sets do not fit each other or the weights.

    >>> both = terms([{"b": Full(jnp.ones(2))}, {"b": Full(jnp.ones(2))}], [0.5, 0.25], {"b": jnp.zeros(2)})
    >>> both["b"].whole, [float(w) for w in both["b"].weights]
    (True, [0.5, 0.25])
    """
    weights = [1.0] * len(sets) if weights is None else list(weights)
    if not sets or len(weights) != len(sets):
        raise PeftError(f"{len(weights)} weights for {len(sets)} sets of adapters; expected one for each, and a set")
    found: dict[str, Terms] = {}
    for number, (adapters, weight) in enumerate(zip(sets, weights)):
        leaves = base_leaves(params, adapters)
        for name, adapter in as_lora(adapters, params).items():
            base = leaves.get(name)
            if isinstance(adapter, Full):
                base = base_leaf(leaves, name, "its delta is what was added to it")
            leaf = found.setdefault(name, Terms([], [], None if base is None else wide(jnp.asarray(base))))
            _check_fit(name, leaf, adapter, number)
            leaf.weights.append(jnp.asarray(weight, jnp.float32))
            leaf.adapters.append(adapter)
    return found


def checked_rank(rank: Any, name: str) -> int:
    """`rank`, if it is a whole number above 0.

    >>> checked_rank(0, "w")
    Traceback (most recent call last):
    tljax.peft.adapter.PeftError: rank=0 for 'w'; expected a whole number, 1 or more
    """
    if not isinstance(rank, int) or rank < 1:
        raise PeftError(f"rank={rank!r} for {name!r}; expected a whole number, 1 or more")
    return rank


def _lora(a: Array, b: Array, layout: Layout) -> LoRA:
    return LoRA(a, b, {"scale": jnp.float32(1.0)}, layout)


def _truncated(adapter: LoRA, rank: int) -> LoRA:
    stack = adapter.layout.stack
    ahead, ins, outs = adapter.a.shape[:stack], adapter.a.shape[stack:-1], adapter.b.shape[stack + 1 :]
    a = adapter.a.reshape(*ahead, math.prod(ins), -1)
    b = jnp.swapaxes(adapter.b.reshape(*ahead, adapter.b.shape[stack], -1), -1, -2)
    (q_a, r_a), (q_b, r_b) = jnp.linalg.qr(a), jnp.linalg.qr(b)
    exact = jax.lax.Precision.HIGHEST
    u, s, vt = jnp.linalg.svd(jnp.matmul(r_a, jnp.swapaxes(r_b, -1, -2), precision=exact), full_matrices=False)
    half = jnp.sqrt(s[..., :rank])
    left = jnp.matmul(q_a, u[..., :rank] * half[..., None, :], precision=exact)
    right = jnp.matmul(half[..., None] * vt[..., :rank, :], jnp.swapaxes(q_b, -1, -2), precision=exact)
    r = left.shape[-1]
    return _lora(left.reshape(*ahead, *ins, r), right.reshape(*ahead, r, *outs), adapter.layout)


def _back(layout: Layout, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a leaf whose forward layout has `shape`."""
    return jax.eval_shape(layout.backward, jax.ShapeDtypeStruct(shape, jnp.float32)).shape


def _check_fit(name: str, leaf: Terms, adapter: Any, number: int) -> None:
    if not leaf.adapters or leaf.whole or isinstance(adapter, Full):
        return
    first, stack = leaf.adapters[0], leaf.layout.stack
    shapes = [(x.layout, x.a.shape[:-1], x.b.shape[stack + 1 :]) for x in (first, adapter)]
    if shapes[0] != shapes[1]:
        raise PeftError(f"{name!r} is {shapes[1]} in set {number} and {shapes[0]} before; all must adapt one base")


def base_leaves(params: Params | None, adapters: Adapters) -> Mapping[str, Any]:
    """The leaves of the base by name; none without `params`. Raises `PeftError` for an adapter of none of them."""
    if params is None:
        return {}
    leaves = named_leaves(params)
    check(leaves, adapters)
    return leaves


def base_leaf(leaves: Mapping[str, Any], name: str, why: str) -> Any:
    """The leaf called `name`; raises `PeftError` with the reason `why` it is needed where there is none."""
    if name not in leaves:
        raise PeftError(f"the adapter of {name!r} needs the base, as {why}; pass params=")
    return leaves[name]


def not_additive(name: str, adapter: Adapter) -> str:
    """Why an adapter has no part in a linear combination, and what to do instead."""
    reasons = {
        "dora": "its weight m V / |V| is not the base plus something of its own, so a sum would drop the magnitudes",
        "ia3": "it multiplies the base, and adds nothing of its own",
    }
    why = reasons.get(adapter.kind, "what it adds is no product of low rank")
    return (
        f"the {adapter.kind} adapter of {name!r} cannot be part of a linear combination: {why}. Merge each set into "
        "the base with merge(params, adapters), and combine the models: tl.merging.average, task_arithmetic, ties"
    )
