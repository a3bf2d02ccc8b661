"""Terms that read the parameters themselves."""

import re
from typing import Any

import jax.numpy as jnp

from tljax.objectives.describe import describe
from tljax.objectives.mean import added, widened
from tljax.objectives.term import Metrics, Owned, Scene, Term
from tljax.tree import Selector, Spec, named_leaves, nearest, select
from tljax.types import Array, Key, Params, TljaxError, is_state

ATTACHED = "of a model with adapters give the parameters that `attach` returned, before the first step"


class StartError(TljaxError):
    """A starting point that shares no parameter with the model."""


def l2_sp(start: Params, *, where: Spec = "backbone/**", head_decay: float = 1.0) -> Term:
    """L2-SP: what was transferred stays near the starting point, what is new stays near 0.

    ``1/2 ||w_S - w0_S||^2 + head_decay * 1/2 ||w_N||^2``: S are the parameters under `where` that stand in
    `start` by the same name and with the same shape, N all others; carried statistics are in neither. The
    published weights, alpha = beta = 0.01, are ``0.01 * l2_sp(start)``. Attached adapters go with the leaves that they
    belong to: those under `where` stay near their start. It takes the place of weight decay:
    give the optimiser none. The term owns a copy of its part of `start`, so a resumed run pulls to the same
    point. Logs `l2_sp`.

    Args:
        start: the parameters as transferred, before the first step.
        where: what is anchored, as a selector.
        head_decay: beta / alpha, the pull on the new parameters; 0 for none.

    Raises:
        StartError: at `init`, when no parameter under `where` stands in `start` with its shape, or an adapter does not.

    Reference: Li et al. 2018, arXiv:1802.01483.

    >>> import jax, jax.numpy as jnp
    >>> from tljax.objectives import Scene
    >>> start = {"backbone": {"kernel": jnp.array([1.0, 2.0])}}
    >>> now = {"backbone": {"kernel": jnp.array([1.0, 4.0])}, "head": {"bias": jnp.array([3.0])}}
    >>> term = l2_sp(start, head_decay=0.1)
    >>> scene = Scene({}, {}, now, None, jnp.int32(0), jax.random.key(0))
    >>> print(term, term.apply(term.init(jax.random.key(0), scene), scene)[0])
    l2_sp(start, head_decay=0.1) 2.45
    """
    inside = with_adapters(where)
    text = describe(l2_sp, "start", where=where, head_decay=head_decay)

    def init(key: Key, scene: Scene) -> Owned:
        del key
        return Owned(state=_anchors(named_leaves(start), scene.params, inside, text))

    def apply(owned: Owned, scene: Scene) -> tuple[Array, Any, Metrics]:
        anchors = owned.state
        parts = [jnp.zeros((), jnp.float32)]
        for name, leaf in learnable(scene.params).items():
            wide = widened(leaf)
            if name in anchors:
                parts.append(half_square(wide - anchors[name].astype(wide.dtype)))
            elif head_decay:
                parts.append(head_decay * half_square(wide))
        value = added(*parts)
        return value, anchors, {"l2_sp": value}

    return Term(apply, init, text, streams=())


def half_square(x: Array) -> Array:
    """``1/2 ||x||^2``, a scalar, whose gradient at 0 is 0.

    >>> print(half_square(jnp.array([3.0, 1.0])))
    5.0
    """
    return 0.5 * jnp.sum(jnp.square(x))


def bare(name: str) -> str:
    """The name of the leaf that an attached adapter belongs to; of any other its own.

    >>> bare("adapters/head/kernel/a"), bare("adapters/shared/ia3/backbone/dense"), bare("head/kernel")
    ('head/kernel/a', 'backbone/dense', 'head/kernel')
    """
    return re.sub(r"^adapters/(shared/[^/]+/)?", "", name)


def with_adapters(spec: Spec) -> Selector:
    """What `spec` selects, and the attached adapters that belong to that.

    >>> print(with_adapters("head/**").matches("adapters/head/kernel/a", jnp.ones((2, 1))))
    True
    """
    inside = select(spec)

    def belongs(name: str, leaf: Any) -> bool:
        return inside.matches(bare(name), leaf)

    belongs.__name__ = str(inside)
    return select(belongs)


def learnable(params: Params) -> dict[str, Any]:
    """The parameters by name, without the carried statistics and what is no number to be learned.

    >>> list(learnable({"norm": {"scale": jnp.ones(2), "batch_stats": {"mean": jnp.ones(2)}}}))
    ['norm/scale']
    """
    return {
        name: leaf
        for name, leaf in named_leaves(params).items()
        if not is_state(name) and jnp.issubdtype(leaf.dtype, jnp.floating)
    }


def _anchors(start: dict[str, Any], params: Params, inside: Selector, text: str) -> dict[str, Array]:
    wanted = {name: leaf for name, leaf in learnable(params).items() if inside.matches(name, leaf)}
    lacking = [name for name in wanted if bare(name) != name and name not in start]
    if lacking:
        raise StartError(f"{text}: the starting point has no {lacking[0]!r}: {ATTACHED}")
    shared = [name for name in wanted if name in start and jnp.shape(start[name]) == wanted[name].shape]
    if not shared:
        example = next(iter(wanted), "backbone/...")
        close = nearest(example, start) or "none"
        raise StartError(
            f"{text}: none of the {len(wanted)} parameters under where={inside} stands in the starting point "
            f"with the same shape; for {example!r} the nearest names there are {close}."
            " Give the grafted parameters, l2_sp(params), which bear the model's own names"
        )
    # Copies: a training step that donates its state must not delete the caller's arrays.
    return {name: jnp.array(start[name]) for name in shared}
