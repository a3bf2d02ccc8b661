"""Groups that begin to learn one after the other, in one compiled program.

What is closed keeps its place in the trainable tree and in the optimiser: whatever is open, shapes and structure are
the same, so that nothing is compiled anew when a group opens, and a run resumes in the middle of a stage. A closed
leaf's update is thrown away, and so it stays bit for bit as it is. Its gradient does reach the optimiser:

* An optimiser that had counted steps without seeing gradients would open with zero moments and their bias correction
  gone: Adam's first step would be (1 - b1) / sqrt(1 - b2) = 3.2 times the learning rate. Here the moments are those of
  the gradients at the start, which is a preconditioner from the first step on.
* An optimiser that began to count at the opening would begin its schedule there too, and end in the middle of it.

The price is that closed groups cost their backward pass. Their gradients are in no norm that is clipped or logged.
"""

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tljax.plans.plan import Rule
from tljax.plans.rates import checked_groups
from tljax.plans.setting import PlanError
from tljax.types import Array, Params


def gradual_unfreeze(groups: Sequence[Any], *, every: int | None = None, at: Sequence[int] | None = None) -> Rule:
    """A rule: groups begin to learn one after the other, from the head downwards.

    The last group, the head, learns from the first step. What is in no group does as well, and what is frozen stays
    frozen. Running statistics of groups that open later are kept, and in use, throughout the run: a layer that went
    over to those of the batch half-way would change the function from one step to the next. An ``unfreeze`` that
    follows opens what it selects at once.

    Args:
      groups: selectors from stem to head: a model's own are ``model.groups``.
      every: steps from one opening to the next.
      at: instead, the steps at which the groups below the head open, from the head downwards, in rising order.

    Raises `PlanError` unless one of the two is given, for no groups, and for steps that are none or do not rise.

    Reference: Howard and Ruder 2018, Universal language model fine-tuning, arXiv:1801.06146.

    >>> from tljax.plans import plan
    >>> params = {"a": jnp.ones(2), "b": jnp.ones(2), "head": jnp.ones(2)}
    >>> settings = plan(gradual_unfreeze(["a", "b", "head"], every=100)).resolve(params).settings
    >>> {name: s.opens for name, s in settings.items()}
    {'a': 200, 'b': 100, 'head': 0}
    """
    chosen = checked_groups(groups, "gradual_unfreeze")
    if (every is None) == (at is None):
        raise PlanError("gradual_unfreeze: say when groups open: every=100 steps, or at=[100, 300, ...]")
    steps = [0, *([i * _whole(every) for i in range(1, len(chosen))] if at is None else map(_whole, at))]
    if len(steps) != len(chosen) or any(a > b for a, b in itertools.pairwise(steps)):
        raise PlanError(
            f"gradual_unfreeze: {len(chosen)} groups need {len(chosen) - 1} steps in rising order, one for each group "
            f"below the head; found at={at!r}"
        )

    def changes(params: Params) -> dict[str, dict[str, Any]]:
        return {
            name: {"opens": step} for group, step in zip(reversed(chosen), steps) for name in group.names(params)
        }  # fmt: skip

    when = f"every={every}" if at is None else f"at={steps[1:]}"
    return Rule(changes, f"gradual_unfreeze({len(chosen)} groups, {when})")


def _whole(step: Any) -> int:
    if isinstance(step, bool) or not isinstance(step, int | np.integer) or step < 1:
        raise PlanError(f"gradual_unfreeze: groups open at whole numbers of steps, 1 or more; found {step!r}")
    return operator.index(step)


def held(opens: Any, step: Array, new: Any, old: Any) -> Any:
    """`new` where a leaf is open at `step`, `old` where it is closed; `opens` has the step at which each leaf opens.

    >>> held({"a": 0, "b": 5}, jnp.int32(4), {"a": 1.0, "b": 1.0}, {"a": 0.0, "b": 0.0})["b"].item()
    0.0
    """
    return jax.tree.map(lambda at, n, o: jnp.where(step >= at, n, o) if at else n, opens, new, old)


def open_norm(opens: Any, step: Array, grads: Any) -> Array:
    """The global norm of the gradients of what is open at `step`.

    >>> open_norm({"a": 0, "b": 5}, jnp.int32(4), {"a": jnp.array([3.0]), "b": jnp.array([4.0])}).item()
    3.0
    """
    return optax.tree.norm(jax.tree.map(lambda at, g: jnp.where(step >= at, g, 0) if at else g, opens, grads))


def clip_open(opens_of: Callable[[Any], Any], max_norm: float) -> optax.GradientTransformationExtraArgs:
    """`optax.clip_by_global_norm`, where the norm is that of what is open.

    What is closed is clipped as it will be when it opens, by the norm of all that will be open then: so its moments
    are of the size that its gradients will have.

    >>> clip = clip_open(lambda tree: {"a": 0, "b": 5}, 1.0)
    >>> grads = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    >>> clipped, _ = clip.update(grads, clip.init(grads), None, step=jnp.int32(0))
    >>> round(clipped["a"].item(), 6), round(clipped["b"].item(), 6)
    (1.0, 0.8)
    """

    def update(updates: Any, state: Any, params: Any = None, *, step: Array, **_: Any) -> tuple[Any, Any]:
        opens = opens_of(updates)
        stages = sorted(set(jax.tree.leaves(opens)))
        norms = {at: open_norm(opens, jnp.maximum(step, at), updates) for at in stages}

        def clip(at: int, leaf: Array) -> Array:
            norm = norms[at]
            return jnp.where(norm < max_norm, leaf, (leaf / norm.astype(leaf.dtype)) * max_norm)

        return jax.tree.map(clip, opens, updates), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
