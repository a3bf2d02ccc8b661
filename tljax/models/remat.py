"""Computing a layer again in the backward pass, in the place of keeping what it computed.

A training step keeps every intermediate array until its gradient is taken: memory grows with depth. With "blocks" a
step keeps what enters each group of the model (see `Model.groups`), and computes the inside again, one group at a time:
a third more work, since the forward pass is a third of a step. With "dots" it also keeps the results of dense layers
and convolutions, and computes again what is cheap: activations, normalisation, attention.

Values, gradients and parameter names stay the same.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from tljax.models.wrapping import ModelError
from tljax.types import Model, Output, Params

POLICIES = ("blocks", "dots")

CPU_OPTIONS = {"xla_disable_hlo_passes": "cse_barrier_expander"}
"""Options of XLA's compiler for CPU: without them it merges what is computed again with what was computed before."""


class Recomputed(NamedTuple):
    """Which layers are computed again."""

    layers: frozenset[str]
    """The names of the subtrees of parameters that they have."""
    policy: Callable[..., bool] | None
    """What is kept of them, as `jax.checkpoint` takes it."""
    met: set[str]
    """Those that ran."""


_ACTIVE: contextvars.ContextVar[Recomputed | None] = contextvars.ContextVar("tljax_remat", default=None)


def active() -> Recomputed | None:
    """What whoever runs the model wants computed again."""
    return _ACTIVE.get()


def rematerialised(model: Model, policy: str | None) -> Model:
    """`model` with an `apply` whose gradient computes again what `policy` says; None is the model itself.

    Both go group by group in models made of Linen modules, as those of the catalogue are, whose groups are layers. For
    other models there is "dots", of the whole.

    Raises `ModelError` for another policy; from `apply`, for "blocks" where no group of the model is a layer.

    Reference: Chen et al. 2016, Training deep nets with sublinear memory cost, arXiv:1604.06174.

    >>> import jax.numpy as jnp
    >>> from tljax.models.mlp import mlp
    >>> model, x = mlp((4, 4), num_classes=2), jnp.ones((1, 3))
    >>> params = model.init(jax.random.key(0), x)
    >>> def loss(params, policy):
    ...     return rematerialised(model, policy).apply(params, x).logits.sum()
    >>> one, other = jax.grad(loss)(params, None), jax.grad(loss)(params, "blocks")
    >>> all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), one, other)))
    True
    """
    if policy is None:
        return model
    if policy not in POLICIES:
        raise ModelError(f"remat is one of {', '.join(map(repr, POLICIES))}, or None; found {policy!r}")
    layers = frozenset(group.removesuffix("/**") for group in model.groups if isinstance(group, str))
    if layers == {"head"}:
        return model  # nothing lies below it
    return model._replace(apply=_group_by_group(model.apply, layers - {"backbone", "head"}, policy, model.name))


@functools.lru_cache(maxsize=32)  # programs are compiled for an `apply`, so that of a model must stay the same
def _group_by_group(
    apply: Callable[..., Output], layers: frozenset[str], policy: str, name: str
) -> Callable[..., Output]:  # fmt: skip
    kept = _is_product if policy == "dots" else None

    def apply_by_group(params: Params, x: Any, *, train: bool = False, key: Any = None, **options: Any) -> Output:
        with _computing_again(layers, kept) as wanted:
            output = apply(params, x, train=train, key=key, **options)
        if wanted.met:
            return output
        if kept is None:
            raise ModelError(
                f"remat='blocks' computes the groups of a model again one by one, and no group of {name} is a layer "
                "of a Linen module; name them, as in from_flax(module, groups=('backbone/block_0/**', ...)), or take "
                "remat='dots'"
            )
        whole = jax.checkpoint(lambda p, x, key: apply(p, x, train=train, key=key, **options), policy=kept)
        return whole(params, x, key)

    return apply_by_group


@contextlib.contextmanager
def _computing_again(layers: frozenset[str], policy: Callable[..., bool] | None) -> Iterator[Recomputed]:
    wanted = Recomputed(layers, policy, set())
    token = _ACTIVE.set(wanted)
    try:
        yield wanted
    finally:
        _ACTIVE.reset(token)


def _is_product(primitive: Any, *_: Any, **params: Any) -> bool:
    """Dense layers and convolutions; the products of attention, which have batch dimensions, are large and cheap."""
    if primitive.name == "dot_general":
        return not any(params["dimension_numbers"][1])
    return bool(primitive.name == "conv_general_dilated")
