"""What becomes of a gradient: clipping, the optimiser at the rate of each group, and which leaves move."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import optax

from tljax.plans import Resolved
from tljax.plans.relative import relative_rates
from tljax.plans.unfreezing import clip_open
from tljax.tree import map_named


@contextmanager
def lenient() -> Iterator[None]:
    """Optimisers multiply floats by integer counts and scalars by arrays, which strict numerics would refuse.

    >>> import jax.numpy as jnp
    >>> with lenient():
    ...     (jnp.float32(2) * jnp.int32(3)).item()
    6.0
    """
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def transform_of(
    plan: Resolved, optimizer: Any, clip_norm: float | None
) -> optax.GradientTransformationExtraArgs:  # fmt: skip
    """The transformation of the gradients of a trainable tree, ``{"model": ..., "terms": ...}``.

    Its update is given the `step`, which the optimiser itself does not see, and what line searches want.

    >>> import jax.numpy as jnp
    >>> from tljax.plans import plan, rate
    >>> tree = {"model": {"a": jnp.ones(1), "b": jnp.ones(1)}, "terms": ()}
    >>> transform = transform_of(plan(rate("b", 10.0)).resolve(tree["model"]), optax.sgd(0.1), None)
    >>> updates, _ = transform.update(tree, transform.init(tree), tree, step=jnp.int32(0))
    >>> updates["model"]["b"].item()
    -1.0
    """
    groups = plan.groups(optimizer)
    # With one group the optimiser sees the whole tree, as those with a line search or a norm of their own want it.
    grouped = next(iter(groups.values())) if len(groups) == 1 else optax.multi_transform(groups, _labels(plan))
    if clip_norm is not None and not plan.staged:
        grouped = optax.chain(optax.clip_by_global_norm(clip_norm), grouped)
    parts = [_without_step(grouped)]
    if clip_norm is not None and plan.staged:
        parts.insert(0, clip_open(lambda trainable: openings(plan, trainable), clip_norm))
    if plan.automatic:
        parts.append(_of_the_model(relative_rates(plan.settings)))
    return parts[0] if len(parts) == 1 else optax.with_extra_args_support(optax.chain(*parts))


def openings(plan: Resolved, trainable: dict[str, Any]) -> dict[str, Any]:
    """The step at which each leaf of a trainable tree begins to learn.

    >>> import jax.numpy as jnp
    >>> from tljax.plans import gradual_unfreeze, plan
    >>> model = {"a": jnp.ones(1), "b": jnp.ones(1)}
    >>> openings(plan(gradual_unfreeze(["a", "b"], every=5)).resolve(model), {"model": model, "terms": ()})
    {'model': {'a': 5, 'b': 0}, 'terms': ()}
    """
    return {
        "model": map_named(lambda name, _: plan.settings[name].opens, trainable["model"]),
        "terms": jax.tree.map(lambda _: 0, trainable["terms"]),
    }


def _labels(plan: Resolved) -> Any:
    return lambda trainable: {
        "model": plan.labels(trainable["model"]),
        "terms": jax.tree.map(lambda _: plan.base_label, trainable["terms"]),
    }


def _without_step(transform: Any) -> optax.GradientTransformationExtraArgs:
    inner = optax.with_extra_args_support(transform)

    def update(updates: Any, state: Any, params: Any = None, *, step: Any, **extra: Any) -> tuple[Any, Any]:
        return inner.update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _of_the_model(inner: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """`inner` for the model's part of a trainable tree; the terms' part stays as it is."""

    def update(updates: Any, state: Any, params: Any = None, *, grad: Any, **extra: Any) -> tuple[Any, Any]:
        own, state = inner.update(updates["model"], state, params["model"], grad=grad["model"], **extra)
        return updates | {"model": own}, state

    return optax.GradientTransformationExtraArgs(lambda trainable: inner.init(trainable["model"]), update)
