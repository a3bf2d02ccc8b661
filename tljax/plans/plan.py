"""Who learns, and how fast: a plan is a list of rules over the names of a parameter tree.

    plan(freeze("backbone/stem/**"), rate("head/**", 10.0))

Rules apply in order; where several match a leaf, the last one that sets a property wins. Frozen and trainable
parameters become two trees, so that no gradient and no optimiser state of a frozen leaf is ever formed; within the
trainable tree `optax.multi_transform` gives each group its own rate.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from tljax.tree import Selector, count, map_named, named_leaves, select
from tljax.types import Params, TljaxError, is_constant, is_state


class PlanError(TljaxError):
    """A plan that cannot be carried out, such as one that trains nothing."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """How one leaf is treated."""

    trainable: bool = True
    rate: float = 1.0
    """The factor on the optimiser's update."""

    @property
    def label(self) -> str:
        """The name of the group of leaves that are treated alike.

        >>> Setting().label, Setting(rate=0.1).label, Setting(trainable=False).label
        ('rate 1', 'rate 0.1', 'frozen')
        """
        return f"rate {_number(self.rate)}" if self.trainable else "frozen"


@dataclasses.dataclass(frozen=True)
class Rule:
    """`change` is applied to the setting of every leaf that `where` selects."""

    where: Selector
    change: Callable[[Setting], Setting]
    description: str


def freeze(where: Any) -> Rule:
    """A rule: the selected leaves stay bit for bit as they are.

    Where the running statistics of a normalisation layer are selected too (as by ``"backbone/**"``), the layer also
    normalises with them and no longer updates them.

    >>> plan(freeze("a")).resolve({"a": jnp.zeros(2), "b": jnp.zeros(3)}).trainable("a")
    False
    """
    return Rule(select(where), lambda s: dataclasses.replace(s, trainable=False), f"freeze({where!r})")


def unfreeze(where: Any) -> Rule:
    """A rule: the selected leaves learn, whatever an earlier rule said; integer leaves stay constants.

    >>> plan(freeze("**"), unfreeze("b")).resolve({"a": jnp.zeros(2), "b": jnp.zeros(3)}).trainable("b")
    True
    """
    return Rule(select(where), lambda s: dataclasses.replace(s, trainable=True), f"unfreeze({where!r})")


def rate(where: Any, factor: float) -> Rule:
    """A rule: the optimiser's updates of the selected leaves are multiplied by `factor`.

    Decoupled weight decay is part of the update, so it scales with it. The factors of several rules do not
    multiply: the last one holds.

    Raises `PlanError` unless `factor` is positive and finite.

    >>> print(rate("head/**", 10).description)
    rate('head/**', 10)
    """
    if not factor > 0 or not np.isfinite(factor):
        raise PlanError(
            f"rate({where!r}, {factor!r}): the factor must be positive and finite; to hold leaves still use freeze"
        )
    text = f"rate({where!r}, {_number(factor)})"
    return Rule(select(where), lambda s: dataclasses.replace(s, rate=float(factor)), text)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Rules in order. Make one with `plan`."""

    rules: tuple[Rule, ...] = ()

    def __str__(self) -> str:
        return f"plan({', '.join(rule.description for rule in self.rules)})"

    def resolve(self, params: Params) -> "Resolved":
        """What the rules mean for `params`.

        Raises `NoMatchError` where a rule matches nothing, `PlanError` where nothing would learn.

        >>> plan(rate("b", 0.5)).resolve({"a": jnp.zeros(2), "b": jnp.zeros(3)}).settings["b"]
        Setting(trainable=True, rate=0.5)
        """
        leaves = named_leaves(params)
        settings = {name: Setting(trainable=_can_learn(name, leaf)) for name, leaf in leaves.items()}
        for rule in self.rules:
            for name in rule.where.names(params):
                changed = rule.change(settings[name])
                able = changed.trainable and _can_learn(name, leaves[name])
                settings[name] = dataclasses.replace(changed, trainable=able)
        if not any(s.trainable and not is_state(n) for n, s in settings.items()):
            raise PlanError(
                f"{self} trains nothing: all {len(settings)} leaves are frozen, or constants. Narrow a freeze(), or "
                "add an unfreeze()."
            )
        return Resolved(settings)


def plan(*rules: Rule | Plan) -> Plan:
    """A plan from rules, or from other plans, in order; `plan()` trains everything at the optimiser's own rate.

    Raises `TypeError` for anything that is neither.

    >>> print(plan(freeze("backbone/**"), rate("head/**", 10.0)))
    plan(freeze('backbone/**'), rate('head/**', 10))
    """
    parts: list[Rule] = []
    for item in rules:
        if not isinstance(item, Rule | Plan):
            raise TypeError(f"plan() takes rules such as freeze('backbone/**'); found {item!r}")
        parts.extend(item.rules if isinstance(item, Plan) else (item,))
    return Plan(tuple(parts))


def linear_probe(head: Any = "head/**") -> Plan:
    """Only the head learns; the rest is frozen, statistics included.

    >>> print(linear_probe())
    plan(freeze('**'), unfreeze('head/**'))
    """
    return plan(freeze("**"), unfreeze(head))


@dataclasses.dataclass(frozen=True)
class Resolved:
    """A plan for one parameter tree: the setting of every leaf by name."""

    settings: Mapping[str, Setting]

    def trainable(self, name: str) -> bool:
        """Whether the parameter `name` gets gradients.

        >>> plan().resolve({"w": jnp.zeros(2)}).trainable("w")
        True
        """
        return self.settings[name].trainable and not is_state(name)

    def updated(self, name: str) -> bool:
        """Whether `name` is a statistic that training updates.

        >>> params = {"norm": {"scale": jnp.ones(2), "batch_stats": {"mean": jnp.zeros(2)}}}
        >>> plan().resolve(params).updated("norm/batch_stats/mean")
        True
        """
        return is_state(name) and self.settings[name].trainable

    def partition(self, params: Params) -> tuple[Params, Params, Params]:
        """Three trees of the structure of `params`, None in the holes: what learns, what is updated, what is frozen.

        >>> plan(freeze("b")).resolve({"a": 1.0, "b": 2.0}).partition({"a": 1.0, "b": 2.0})
        ({'a': 1.0, 'b': None}, {'a': None, 'b': None}, {'a': None, 'b': 2.0})
        """

        def part(test: Callable[[str], bool]) -> Params:
            return map_named(lambda name, leaf: leaf if test(name) else None, params)

        return (
            part(self.trainable),
            part(self.updated),
            part(lambda n: not self.trainable(n) and not self.updated(n)),
        )

    @property
    def frozen_statistics(self) -> frozenset[str]:
        """The names of statistics that are kept, whose layers normalise with them.

        >>> params = {"scale": jnp.ones(2), "batch_stats": {"mean": jnp.zeros(2)}}
        >>> plan(freeze("batch_stats/**")).resolve(params).frozen_statistics
        frozenset({'batch_stats/mean'})
        """
        return frozenset(n for n, s in self.settings.items() if is_state(n) and not s.trainable)

    def groups(self, optimizer: optax.GradientTransformation) -> dict[str, optax.GradientTransformation]:
        """`optimizer` at the rate of each group, by the group's label; that of rate 1 is always there.

        >>> list(plan(rate("b", 10)).resolve({"a": 1.0, "b": 2.0}).groups(optax.sgd(0.1)))
        ['rate 1', 'rate 10']
        """
        factors = {1.0} | {s.rate for n, s in self.settings.items() if self.trainable(n)}
        return {
            Setting(rate=f).label: optax.chain(optimizer, optax.scale(f)) if f != 1 else optimizer
            for f in sorted(factors)
        }

    def labels(self, trainable: Params) -> Params:
        """The label of every leaf of the trainable tree; holes stay holes.

        >>> plan(rate("b", 10)).resolve({"a": 1.0, "b": 2.0}).labels({"a": None, "b": 2.0})
        {'a': None, 'b': 'rate 10'}
        """
        return map_named(lambda name, _: self.settings[name].label, trainable)

    def table(self, params: Params) -> str:
        """One line for each group: leaves, parameters, and the subtrees it covers.

        >>> params = {"backbone": {"w": jnp.zeros((2, 3))}, "head": {"w": jnp.zeros((3, 4))}}
        >>> print(plan(freeze("backbone/**")).resolve(params).table(params))
        group                   leaves    parameters  where
        frozen                       1             6  backbone/w
        rate 1                       1            12  head/w
        """
        rows: dict[str, dict[str, Any]] = {}
        for name, leaf in named_leaves(params).items():
            rows.setdefault(self._group(name), {})[name] = leaf
        lines = [f"{'group':<22}{'leaves':>8}{'parameters':>14}  where"]
        for group, leaves in rows.items():
            where = ", ".join(dict.fromkeys(_stem(name) for name in leaves))
            shown = where if len(where) <= 60 else where[:57] + "..."
            lines.append(f"{group:<22}{len(leaves):>8}{count(list(leaves.values())):>14,}  {shown}")
        return "\n".join(lines)

    def _group(self, name: str) -> str:
        setting = self.settings[name]
        if is_state(name):
            return f"statistics, {'updated' if setting.trainable else 'frozen'}"
        return setting.label


def _stem(name: str) -> str:
    return "/".join(name.split("/")[:2])


def _number(value: float) -> str:
    """The number in full, so that rates that differ have labels that differ: ``"10"``, ``"0.1"``."""
    return repr(float(value)).removesuffix(".0")


def _can_learn(name: str, leaf: Any) -> bool:
    """Whether gradients of `leaf` make sense; integer and boolean leaves, and what adapters keep, are constants."""
    return is_state(name) or (not is_constant(name) and jnp.issubdtype(jnp.result_type(leaf), jnp.floating))
