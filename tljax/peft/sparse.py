"""TIES and DARE on what adapters add to the weights, one leaf at a time, and back to factors.

Both look at single elements of the delta, so the delta of a leaf is formed, and what comes of it has full rank: the
singular value decomposition keeps the best `rank` of it. Trimming counts within each leaf.
"""

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from tljax.peft.adapter import Adapters, PeftError
from tljax.peft.algebra import Terms, checked_rank, terms
from tljax.peft.full import Full
from tljax.peft.layout import Layout
from tljax.peft.lora import LoRA
from tljax.tree.updates import drop, elect, trim
from tljax.types import Array, Key, Params


def ties(
    sets: Sequence[Adapters],
    weights: Sequence[float] | None = None,
    *,
    rank: int,
    density: float = 0.2,
    params: Params | None = None,
) -> Adapters:
    """TIES: the largest elements of each delta, times its weight; of these the ones whose sign wins, and their mean.

    Args:
        sets: adapters of one base: LoRA, rsLoRA, PiSSA, OLoRA; VeRA and `Full` leaves with `params`.
        weights: one for each set, by default 1.
        rank: of the result, at most.
        density: the share of each delta that is kept, in (0, 1].
        params: the base, where a kind needs it.

    Raises `PeftError` as `concat` does, and for a density or rank out of range.

    Reference: Yadav et al. 2023, arXiv:2306.01708.

    >>> diagonals, one = jnp.array([[4.0, 1.0], [2.0, 3.0]]), {"scale": jnp.float32(1.0)}
    >>> found = ties([{"w": LoRA(jnp.eye(2), jnp.diag(d), one)} for d in diagonals], rank=2, density=0.25)
    >>> jnp.round(found["w"].merge(jnp.zeros((2, 2)), {}), 4).tolist()
    [[4.0, 0.0], [0.0, 3.0]]
    """
    if not 0 < density <= 1:
        raise PeftError(f"density={density}; expected a share in (0, 1], as 0.2 for the largest 20 %")

    def elected(name: str, leaf: Terms) -> Array:
        kept = [trim({name: delta}, density)[name] for delta in leaf.deltas()]
        return elect([{name: weight * delta} for weight, delta in zip(leaf.weights, kept)])[name]

    return _combined(terms(sets, weights, params), elected, rank)


def dare(
    sets: Sequence[Adapters],
    weights: Sequence[float] | None = None,
    *,
    rank: int,
    key: Key,
    rate: float = 0.9,
    params: Params | None = None,
) -> Adapters:
    """DARE: the sum of the deltas times their weights, of each the share `rate` dropped, the rest over ``1 - rate``.

    What is left is far from low rank: at a high rate a small `rank` keeps little of it, and `concat` is the better sum.
    Arguments and errors as of `ties`; `key` draws what is dropped.

    Reference: Yu et al. 2024, arXiv:2311.03099.

    >>> one = LoRA(jnp.ones((4, 1)), jnp.ones((1, 3)), {"scale": jnp.float32(1.0)})
    >>> found = dare([{"w": one}], [0.5], rank=3, key=jax.random.key(0), rate=0.5)["w"].merge(jnp.zeros((4, 3)), {})
    >>> sorted({abs(round(x, 4)) for x in found.ravel().tolist()})
    [0.0, 1.0]
    """
    if not 0 <= rate < 1:
        raise PeftError(f"rate={rate}; expected the share to drop, in [0, 1)")

    def dropped(name: str, leaf: Terms) -> Array:
        own = jax.random.fold_in(key, zlib.crc32(name.encode()))
        keys = [jax.random.fold_in(own, i) for i in range(len(leaf.weights))]
        return sum(w * drop(k, {"": d}, rate)[""] for w, d, k in zip(leaf.weights, leaf.deltas(), keys))  # type: ignore[return-value]

    return _combined(terms(sets, weights, params), dropped, rank)


def _combined(found: dict[str, Terms], f: Callable[[str, Terms], Array], rank: int) -> Adapters:
    new: dict[str, Any] = {}
    for name, leaf in found.items():
        delta = f(name, leaf)
        new[name] = Full(leaf.base + delta) if leaf.whole else _factored(delta, leaf.layout, checked_rank(rank, name))
    return new


def _factored(delta: Array, layout: Layout, rank: int) -> LoRA:
    """The best product of `rank` for a dense delta."""
    stack, ins, outs = layout.parts(delta.shape)
    matrix = layout.forward(delta).reshape(*stack, math.prod(ins), math.prod(outs))
    u, s, vt = jnp.linalg.svd(matrix, full_matrices=False)
    half = jnp.sqrt(s[..., :rank])
    a, b = u[..., :rank] * half[..., None, :], half[..., None] * vt[..., :rank, :]
    r = a.shape[-1]
    scale = {"scale": jnp.float32(1.0)}
    return LoRA(a.reshape(*stack, *ins, r), b.reshape(*stack, r, *outs), scale, layout)
