"""Who learns: rules that freeze and unfreeze, and the methods that train a few leaves alone."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp

from tljax.plans.plan import Plan, Rule, plan, setting
from tljax.plans.setting import PlanError
from tljax.tree import named_leaves
from tljax.types import STATE_KEY, Params, is_state


def freeze(where: Any) -> Rule:
    """A rule: the selected leaves stay bit for bit as they are.

    Where the running statistics of a normalisation layer are selected too (as by ``"backbone/**"``), the layer also
    normalises with them and no longer updates them.

    >>> plan(freeze("a")).resolve({"a": jnp.zeros(2), "b": jnp.zeros(3)}).trainable("a")
    False
    """
    return setting(where, f"freeze({where!r})", trainable=False)


def unfreeze(where: Any) -> Rule:
    """A rule: the selected leaves learn from the first step, whatever an earlier rule said.

    Integer leaves and the constants of adapters stay as they are.

    >>> plan(freeze("**"), unfreeze("b")).resolve({"a": jnp.zeros(2), "b": jnp.zeros(3)}).trainable("b")
    True
    """
    return setting(where, f"unfreeze({where!r})", trainable=True, opens=0)


def linear_probe(head: Any = "head/**") -> Plan:
    """Only the head learns; the rest is frozen, statistics included.

    >>> print(linear_probe())
    plan(freeze('**'), unfreeze('head/**'))
    """
    return plan(freeze("**"), unfreeze(head))


def adapters_only() -> Plan:
    """Only adapters that were attached to the model learn, and of them no constants.

    To train a new head beside them, add ``unfreeze("head/**")``.

    >>> print(adapters_only())
    plan(freeze('**'), unfreeze('adapters/**'))
    """
    return plan(freeze("**"), unfreeze("adapters/**"))


def bitfit(biases: Any = "**/bias", head: Any = "head/**") -> Plan:
    """Only biases and the head learn; running statistics are kept, and in use. `head=()` keeps the head too.

    About 0.1 % of the parameters of a transformer; the paper's learning rates are 1e-4 to 1e-2, ten times those of
    full fine-tuning.

    Reference: Ben Zaken et al. 2022, BitFit, arXiv:2106.10199.

    >>> print(bitfit())
    plan(freeze('**'), unfreeze('**/bias'), unfreeze('head/**'))
    """
    return plan(freeze("**"), unfreeze(biases), unfreeze(head))


def norm_only(head: Any = "head/**", *, statistics: bool = False) -> Plan:
    """Only scales and biases of normalisation layers, and the head, learn. `head=()` keeps the head too.

    A normalisation layer is a module with running statistics; or one that has nothing but a ``scale``, perhaps with a
    ``bias`` (Flax); or nothing but vectors called ``weight`` and ``bias`` (Equinox, torch).

    Args:
      statistics: whether layers with running statistics normalise with those of the batch and update the running
        ones. By default the running statistics of the source are in use, in training as in evaluation, and are kept.

    Raises `PlanError`, when it is resolved, for a model without such layers.

    Reference: Frankle et al. 2021, Training BatchNorm and only BatchNorm, arXiv:2003.00152.

    >>> params = {"norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)}, "head": {"bias": jnp.ones(3)}, "w": jnp.ones(2)}
    >>> [name for name, s in norm_only().resolve(params).settings.items() if s.trainable]
    ['head/bias', 'norm/bias', 'norm/scale']
    """

    def changes(params: Params) -> dict[str, dict[str, Any]]:
        found = [name for name in _normalisation(params) if statistics or not is_state(name)]
        if not found:
            raise PlanError(
                "norm_only: the model has no normalisation layers that it could tell by their leaves. Select them by "
                "name: plan(freeze('**'), unfreeze('**/norm*/**'), unfreeze('head/**'))"
            )
        return {name: {"trainable": True, "opens": 0} for name in found}

    norms = Rule(changes, f"unfreeze(normalisation layers{', with their statistics' if statistics else ''})")
    return plan(freeze("**"), norms, unfreeze(head))


def surgical(blocks: Any, head: Any = "head/**") -> Plan:
    """Only the selected blocks, and the head, learn; statistics outside of them are kept, and in use.

    Early blocks suit a shift of the inputs, late ones a shift of the labels. Where the source's head is kept as well,
    as in the paper, give `head=()`.

    Reference: Lee et al. 2023, Surgical fine-tuning improves adaptation to distribution shifts, arXiv:2210.11466.

    >>> print(surgical("backbone/block_00/**"))
    plan(freeze('**'), unfreeze('backbone/block_00/**'), unfreeze('head/**'))
    """
    return plan(freeze("**"), unfreeze(blocks), unfreeze(head))


def _normalisation(params: Params) -> Iterator[str]:
    """The names of the leaves of normalisation layers."""
    modules: dict[str, dict[str, tuple[str, Any]]] = {}
    for name, leaf in named_leaves(params).items():
        owner, _, last = name.partition(f"/{STATE_KEY}/") if is_state(name) else name.rpartition("/")
        modules.setdefault(owner, {})[f"{STATE_KEY}/{last}" if is_state(name) else last] = (name, leaf)
    for owner, own in modules.items():
        nested = any(other.startswith(f"{owner}/") for other in modules)
        if not nested and _normalises(own):
            yield from (name for name, _ in own.values())


def _normalises(own: dict[str, tuple[str, Any]]) -> bool:
    learnt = {last for last in own if not last.startswith(f"{STATE_KEY}/")}
    vectors = all(jnp.ndim(leaf) == 1 for _, leaf in own.values())
    return (
        {f"{STATE_KEY}/mean", f"{STATE_KEY}/var"} <= own.keys()
        or {"scale"} <= learnt <= {"scale", "bias"}
        or ({"weight"} <= learnt <= {"weight", "bias"} and vectors)
    )
