"""VeRA: random projections shared by all layers, of which each layer learns the scales.

    W + (a * d) (b_shared * b),    a [max ins, r] and b_shared [r, max outs] random and constant, cut to each layer

Reference: Kopiczko et al., VeRA: vector-based random matrix adaptation, arXiv 2310.11454.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from tljax.peft.adapter import Adapter, Adapters, PeftError, Shared
from tljax.peft.choose import Site, sites
from tljax.peft.factors import Factored, wide
from tljax.peft.layout import Layout
from tljax.types import Array, Key, Params

A, B = "shared/constants/vera_a", "shared/constants/vera_b"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class VeRA(Adapter):
    """W + (a * d) (b_shared * b).

    >>> shared = {A: jnp.ones((4, 2)), B: jnp.ones((2, 5))}
    >>> VeRA(jnp.full(2, 0.5), jnp.array([1.0, 0.0])).merge(jnp.zeros((3, 2)), shared)[0]
    Array([1., 0.], dtype=float32)
    """

    kind: ClassVar[str] = "vera"
    d: Array
    """`[stack..., r]`."""
    b: Array
    """`[stack..., outs...]`."""
    layout: Layout = dataclasses.field(default=Layout(), metadata={"static": True})

    def factor(self, weight: Array, shared: Shared) -> Factored:
        stack, ins, outs = self.layout.parts(weight.shape)
        d, b = wide(self.d).reshape(*stack, 1, -1), wide(self.b).reshape(*stack, 1, -1)
        left, right = wide(shared[A])[: math.prod(ins)], wide(shared[B])[:, : math.prod(outs)]
        ahead = (1,) * len(stack)
        left, right = left.reshape(*ahead, *left.shape) * d, right.reshape(*ahead, *right.shape) * b
        return Factored(weight, left.reshape(*stack, *ins, -1), right.reshape(*stack, -1, *outs), layout=self.layout)


def vera(
    params: Params, where: Any, *, key: Key, rank: int = 256, d_initial: float = 0.1,
    layouts: Mapping[Any, Layout] | None = None,
) -> Adapters:  # fmt: skip
    """VeRA for the selected leaves, with projections for the largest of them; they stand once, under ``shared/``.

    Args:
        where: a selector of matrices.
        key: of the projections, uniform in ±√(6 / inputs of the projection).
        rank: of the projections. It may exceed that of the matrices, since it costs one number for each layer.
        d_initial: `d` at the start; `b` is zero.
        layouts: as of `lora`.

    Raises as `lora` does.

    >>> adapters = vera({"dense": {"kernel": jnp.ones((4, 6))}}, "**", key=jax.random.key(0), rank=16)
    >>> {name: [x.shape for x in jax.tree.leaves(part)] for name, part in adapters.items()}
    {'dense/kernel': [(16,), (6,)], 'shared/constants/vera_a': [(4, 16)], 'shared/constants/vera_b': [(16, 6)]}
    """
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise PeftError(f"rank must be a whole number, 1 or more, and one for all layers; found {rank!r}")
    found = sites(params, where, layouts)
    first, second = jax.random.split(key)
    widest, longest = (max(site.fan[i] for site in found) for i in (0, 1))
    return {site.name: _start(site, rank, d_initial) for site in found} | {
        A: _projection(first, (widest, rank), widest),
        B: _projection(second, (rank, longest), rank),
    }


def _start(site: Site, rank: int, d_initial: float) -> VeRA:
    stack, _, outs = site.parts
    return VeRA(jnp.full((*stack, rank), d_initial, jnp.float32), jnp.zeros(stack + outs, jnp.float32), site.layout)


def _projection(key: Key, shape: tuple[int, int], inputs: int) -> Array:
    bound = (6 / inputs) ** 0.5
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)
