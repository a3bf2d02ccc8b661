"""How fast: rules that set the factor on the optimiser's updates, and its weight decay."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from tljax.plans.plan import Rule, positive, setting
from tljax.plans.setting import PlanError, Schedule, number
from tljax.tree import named_leaves, select
from tljax.types import Params, is_state

_SPARED = frozenset(
    ("bias", "scale", "position", "cls", "registers", "pos_embed", "pos_embedding", "cls_token", "class_token",
     "dist_token", "reg_token")
)  # fmt: skip
"""Leaves of these names are not decayed, whatever their shape: a bias of heads, or of scanned layers, has two axes."""


def rate(where: Any, factor: float | Schedule) -> Rule:
    """A rule: the optimiser's updates of the selected leaves are multiplied by `factor`, or by `factor(step)`.

    Decoupled weight decay is part of the update, so it scales with it. The factors of several rules do not
    multiply: the last one holds. A function of the step, as those of ``optax.*_schedule``, counts from 0.

    Raises `PlanError` unless `factor` is a function, or positive and finite.

    >>> print(rate("head/**", 10).description)
    rate('head/**', 10)
    """
    if not callable(factor):
        factor = positive(factor, f"rate({where!r}, {factor!r}): the factor", "; to hold leaves still use freeze")
    return setting(where, f"rate({where!r}, {number(factor)})", rate=factor)


def lora_plus(ratio: float = 16.0) -> Rule:
    """A rule: the second factors `b` of attached adapters learn `ratio` times as fast as the first ones.

    Raises `PlanError` unless `ratio` is positive and finite.

    Reference: Hayou et al. 2024, LoRA+: Efficient low rank adaptation of large models, arXiv:2402.12354.

    >>> print(lora_plus().description)
    lora_plus(16)
    """
    ratio = positive(ratio, "lora_plus: the ratio")
    return setting("adapters/**/b", f"lora_plus({number(ratio)})", rate=ratio)


def layerwise_decay(factor: float, groups: Sequence[Any]) -> Rule:
    r"""A rule: rates that fall from the head to the stem, :math:`\text{factor}^{\text{depth}}`.

    The last group, the head, has depth 0 and the rate 1. Each group below is one deeper, but for one that has vectors
    alone, such as the norm after the last block: it goes with the group above it, as in BEiT and MAE, whose last
    block has the rate `factor`, and whose embeddings :math:`\text{factor}^{L + 1}`. Usual factors are 0.65 to 0.75 for
    a ViT, and 0.8 to 0.9 for ELECTRA.

    Args:
      factor: above 0, at most 1.
      groups: selectors from stem to head: a model's own are ``model.groups``.

    Raises `PlanError` for a factor outside its range or no groups.

    Reference: Clark et al. 2020, ELECTRA, arXiv:2003.10555; Bao et al. 2022, BEiT, arXiv:2106.08254, whose code has
    the depths of a ViT.

    >>> params = {"a": jnp.ones((2, 2)), "b": jnp.ones((2, 2)), "norm": jnp.ones(2), "head": jnp.ones((2, 2))}
    >>> from tljax.plans import plan
    >>> settings = plan(layerwise_decay(0.5, ["a", "b", "norm", "head"])).resolve(params).settings
    >>> {name: s.rate for name, s in settings.items()}
    {'a': 0.25, 'b': 0.5, 'head': 1.0, 'norm': 1.0}
    """
    factor = positive(factor, "layerwise_decay: the factor")
    if factor > 1:
        raise PlanError(f"layerwise_decay: the factor is at most 1, as 0.75; found {factor!r}")
    return _by_depth(factor, groups, f"layerwise_decay({number(factor)})")


def discriminative(groups: Sequence[Any], divisor: float = 2.6) -> Rule:
    r"""A rule: the rate of each group is that of the group above it divided by `divisor`, as in ULMFiT.

    As `layerwise_decay` with the factor :math:`1 / \text{divisor}`.

    Raises `PlanError` for a divisor under 1 or no groups.

    Reference: Howard and Ruder 2018, Universal language model fine-tuning, arXiv:1801.06146.

    >>> params = {"a": jnp.ones((2, 2)), "head": jnp.ones((2, 2))}
    >>> from tljax.plans import plan
    >>> round(plan(discriminative(["a", "head"])).resolve(params).settings["a"].rate, 6)
    0.384615
    """
    divisor = positive(divisor, "discriminative: the divisor")
    if divisor < 1:
        raise PlanError(f"discriminative: the divisor is 1 or more, as 2.6; found {divisor!r}")
    return _by_depth(1 / divisor, groups, f"discriminative({number(divisor)})")


def decay(where: Any, strength: float, *, exempt: Any = None) -> Rule:
    """A rule: the selected leaves have the weight decay `strength`, but for those that are usually spared.

    Spared are vectors and scalars (biases, norms, layer scales), and by name, whatever their shape, ``bias``, ``scale``
    and the position and class tokens of a ViT, as in timm, BEiT and MAE; tables of word embeddings are decayed. In a
    plan with such a rule, what no rule decays has no decay, and the optimiser is given as a function of it:
    ``functools.partial(optax.adamw, 3e-4)``. It is what the optimiser makes of `weight_decay`: for AdamW decoupled,
    and multiplied by the learning rate and by the rate of the group.

    Args:
      strength: 0 or more.
      exempt: which leaves are spared instead, a selector; ``()`` spares none.

    Raises `PlanError` for a strength that is negative or not finite; when resolved, where all that is selected is
    spared.

    >>> params = {"head": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}}
    >>> from tljax.plans import plan
    >>> resolved = plan(decay("head/**", 0.05)).resolve(params)
    >>> resolved.of("head/kernel").decay, resolved.of("head/bias").decay
    (0.05, 0.0)
    """
    if isinstance(strength, bool) or not isinstance(strength, int | float | np.number) or not 0 <= strength < np.inf:
        raise PlanError(f"decay({where!r}, {strength!r}): the strength must be 0 or more, and finite")
    spared = select(_is_spared if exempt is None else exempt)
    chosen = select(where)

    def changes(params: Params) -> dict[str, dict[str, Any]]:
        leaves = named_leaves(params)
        names = [n for n in chosen.names(params) if not spared.matches(n, leaves[n]) and not is_state(n)]
        if not names:
            raise PlanError(
                f"{text} decays nothing: all it selects are vectors, biases, norms or tokens, which are spared. To "
                "decay them all the same add exempt=()"
            )
        return {name: {"decay": float(strength)} for name in names}

    text = f"decay({where!r}, {number(strength)}{'' if exempt is None else f', exempt={exempt!r}'})"
    return Rule(changes, text)


def _is_spared(name: str, leaf: Any) -> bool:
    return jnp.ndim(leaf) <= 1 or name.rsplit("/", 1)[-1] in _SPARED


def _by_depth(factor: float, groups: Sequence[Any], description: str) -> Rule:
    chosen = checked_groups(groups, description)

    def changes(params: Params) -> dict[str, dict[str, Any]]:
        leaves, rates, depth = named_leaves(params), {}, 0
        for i, group in enumerate(reversed(chosen)):
            names = group.names(params)
            depth += i > 0 and any(jnp.ndim(leaves[n]) > 1 for n in names)
            rates.update({name: {"rate": factor**depth} for name in names})
        return rates

    return Rule(changes, description)


def checked_groups(groups: Sequence[Any], what: str) -> list[Any]:
    """The selectors of `groups`, stem to head; raises `PlanError` where they are no sequence, or an empty one.

    >>> checked_groups(["stem/**", "head/**"], "layerwise_decay")
    [select('stem/**'), select('head/**')]
    """
    if isinstance(groups, str) or not isinstance(groups, Sequence) or not groups:
        raise PlanError(f"{what}: groups are selectors from stem to head, as model.groups; found {groups!r}")
    return [select(group) for group in groups]
