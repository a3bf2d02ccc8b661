"""Rates that follow from the gradients: each block in proportion to the size of its gradient beside its own."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from tljax.plans.plan import Rule
from tljax.plans.rates import checked_groups
from tljax.plans.setting import Automatic, PlanError, Setting
from tljax.tree import map_named, named_leaves, select
from tljax.types import Array, Params, is_state

FLOOR = 1e-3
"""The least root mean square that a block's parameters are taken to have, as in Adafactor: else a bias that begins at
zero would have an infinite rate, and all others none."""


def auto_rgn(where: Any = "**", *, groups: Sequence[Any] | None = None, batches: int = 5) -> Rule:
    r"""A rule: updates are multiplied by the relative gradient norm, that of the block where it is largest being 1.

    .. math:: r_b = \|g_b\| / \|\theta_b\|, \quad \text{factor}_b = \bar r_b / \max_c \bar r_c

    with an exponential average :math:`\bar r` of decay :math:`1 - 1 / \text{batches}` over the steps. In the paper each
    tensor is a block, its norms are averaged over five batches once an epoch, and Adam begins anew then; here the
    optimiser sees the true gradients, and its moments go on. The factor multiplies that of ``rate``. Groups that are
    closed do not count for the largest.

    Args:
      where: what it speaks of; frozen leaves stay frozen.
      groups: selectors of blocks, as ``model.groups``, each with one norm; where blocks overlap the last holds. By
        default each leaf is a block: then tensors that begin near zero have the highest rates.
      batches: about how many steps are averaged; 1: each step stands alone.

    Raises `PlanError` for `batches` under 1, no groups, or groups that have nothing of `where`.

    Reference: Lee et al. 2023, Surgical fine-tuning improves adaptation to distribution shifts, arXiv:2210.11466.

    >>> from tljax.plans import plan
    >>> plan(auto_rgn("b")).resolve({"a": jnp.ones(2), "b": jnp.ones(2)}).settings["b"].automatic
    Automatic(block='b', batches=5)
    """
    if isinstance(batches, bool) or not isinstance(batches, int | np.integer) or batches < 1:
        raise PlanError(f"auto_rgn: batches is a whole number of steps to average, 1 or more; found {batches!r}")
    chosen, blocks = select(where), None if groups is None else checked_groups(groups, "auto_rgn")

    def changes(params: Params) -> dict[str, dict[str, Any]]:
        leaves = named_leaves(params)
        names = [name for name in chosen.names(params) if not is_state(name)]
        found = {}
        for name in names:
            block = name if blocks is None else _block(blocks, name, leaves[name])
            if block is not None:
                found[name] = {"automatic": Automatic(block, int(batches))}
        if not found:
            raise PlanError(f"{text} speaks of no parameter: the groups have none of what {chosen} selects")
        return found

    text = f"auto_rgn({where!r}{'' if groups is None else f', {len(groups)} groups'}, batches={batches})"
    return Rule(changes, text)


def _block(blocks: Sequence[Any], name: str, leaf: Any) -> str | None:
    return next((str(block) for block in reversed(blocks) if block.matches(name, leaf)), None)


class Averages(NamedTuple):
    """The state of `relative_rates`."""

    ratios: dict[str, Array]
    """For each block the average of its relative gradient norm, float32 `[]`, begun at 0."""


def relative_rates(settings: Mapping[str, Setting]) -> optax.GradientTransformationExtraArgs:
    """The transformation of updates that `auto_rgn` means, for the model's trainable tree.

    It stands after the optimiser, and is given the gradient as `grad` and the step as `step`.

    >>> scale = relative_rates({"a": Setting(automatic=Automatic("a", 1)), "b": Setting(automatic=Automatic("b", 1))})
    >>> params, grad = {"a": jnp.array([2.0]), "b": jnp.array([1.0])}, {"a": jnp.array([1.0]), "b": jnp.array([-2.0])}
    >>> scaled, _ = scale.update(grad, scale.init(params), params, grad=grad, step=jnp.int32(0))
    >>> scaled["a"].item(), scaled["b"].item()  # the ratios are 0.5 and 2
    (0.25, -2.0)
    """
    told = {name: s for name, s in settings.items() if s.automatic and s.trainable and not is_state(name)}
    blocks: dict[str, list[str]] = {}
    for name, s in told.items():
        assert s.automatic is not None
        blocks.setdefault(s.automatic.block, []).append(name)

    def init(params: Params) -> Averages:
        return Averages(dict.fromkeys(blocks, jnp.float32(0)))

    def update(
        updates: Params, state: Averages, params: Any = None, *, grad: Params, step: Array, **_: Any
    ) -> tuple[Params, Averages]:
        slopes, leaves = named_leaves(grad), named_leaves(params)
        ratios, means, opened = {}, {}, []
        for block, names in blocks.items():
            decay = 1 - 1 / max(told[name].automatic.batches for name in names)  # type: ignore[union-attr]
            now = _ratio([slopes[name] for name in names], [leaves[name] for name in names])
            ratios[block] = decay * state.ratios[block] + (1 - decay) * now
            means[block] = ratios[block] / (1 - decay ** (step + 1).astype(jnp.float32))
            opened.append(jnp.where(step >= min(told[name].opens for name in names), means[block], 0))
        largest = jnp.max(jnp.stack(opened))

        def scaled(name: str, leaf: Array) -> Array:
            if name not in told:
                return leaf
            mean = means[told[name].automatic.block]  # type: ignore[union-attr]
            return leaf * jnp.where(largest > 0, mean / jnp.where(largest > 0, largest, 1), 1).astype(leaf.dtype)

        return map_named(scaled, updates), Averages(ratios)

    return optax.GradientTransformationExtraArgs(init, update)


def _ratio(slopes: list[Array], leaves: list[Array]) -> Array:
    floor = FLOOR * np.sqrt(sum(leaf.size for leaf in leaves))
    return _norm(slopes) / jnp.maximum(_norm(leaves), floor)


def _norm(arrays: list[Array]) -> Array:
    return optax.tree.norm([a.astype(jnp.float32) for a in arrays])
