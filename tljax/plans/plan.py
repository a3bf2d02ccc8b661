"""Who learns, and how fast: a plan is a list of rules over the names of a parameter tree.

    plan(freeze("backbone/stem/**"), rate("head/**", 10.0))

Rules apply in order; where several match a leaf, the last one that sets a property wins.  Frozen and
trainable parameters become two trees, so that no gradient and no optimiser state of a frozen leaf is ever
formed; within the trainable tree `optax.multi_transform` gives each group its own rate.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax

from tljax.tree import Selector, map_named, named_leaves, select
from tljax.types import Params, TljaxError, is_state


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
        """The name of the group of leaves that are treated alike."""
        return f"rate {self.rate:g}" if self.trainable else "frozen"


@dataclasses.dataclass(frozen=True)
class Rule:
    """`change` is applied to the setting of every leaf that `where` selects."""

    where: Selector
    change: Callable[[Setting], Setting]
    description: str


def freeze(where: Any) -> Rule:
    """A rule: the selected leaves stay bit for bit as they are.

    Where the running statistics of a normalisation layer are selected too (as by ``"backbone/**"``), the
    layer also normalises with them and no longer updates them.
    """
    return Rule(select(where), lambda s: dataclasses.replace(s, trainable=False), f"freeze({where!r})")


def unfreeze(where: Any) -> Rule:
    """A rule: the selected leaves learn, whatever an earlier rule said."""
    return Rule(select(where), lambda s: dataclasses.replace(s, trainable=True), f"unfreeze({where!r})")


def rate(where: Any, factor: float) -> Rule:
    """A rule: the updates of the selected leaves are multiplied by `factor` (> 0)."""
    if not factor > 0 or not np.isfinite(factor):
        raise PlanError(
            f"rate({where!r}, {factor!r}): the factor must be positive and finite; to hold leaves use freeze"
        )
    return Rule(select(where), lambda s: dataclasses.replace(s, rate=float(factor)), f"rate({where!r}, {factor:g})")


@dataclasses.dataclass(frozen=True)
class Plan:
    """Rules in order. Make one with `plan`."""

    rules: tuple[Rule, ...] = ()

    def __str__(self) -> str:
        return f"plan({', '.join(rule.description for rule in self.rules)})"

    def resolve(self, params: Params) -> "Resolved":
        """What the rules mean for `params`; raises where a rule matches nothing or nothing would learn."""
        leaves = named_leaves(params)
        settings = {name: Setting(trainable=_can_learn(name, leaf)) for name, leaf in leaves.items()}
        for rule in self.rules:
            for name in rule.where.names(params):
                changed = rule.change(settings[name])
                able = is_state(name) or _can_learn(name, leaves[name])
                settings[name] = changed if able else dataclasses.replace(changed, trainable=False)
        if not any(s.trainable and not is_state(n) for n, s in settings.items()):
            raise PlanError(
                f"{self} trains nothing: every parameter is frozen. Narrow a freeze(), or add an unfreeze()."
            )
        return Resolved(settings)


def plan(*rules: Rule | Plan) -> Plan:
    """A plan from rules, or from other plans, in order; `plan()` trains everything at the optimiser's own
    rate.

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
        """Whether the parameter `name` gets gradients."""
        return self.settings[name].trainable and not is_state(name)

    def updated(self, name: str) -> bool:
        """Whether `name` is a statistic that training updates."""
        return is_state(name) and self.settings[name].trainable

    def partition(self, params: Params) -> tuple[Params, Params, Params]:
        """Three trees of the structure of `params`, None in the holes: what learns, what is updated, what
        is frozen."""

        def part(test: Callable[[str], bool]) -> Params:
            return map_named(lambda name, leaf: leaf if test(name) else None, params)

        return (
            part(self.trainable),
            part(self.updated),
            part(lambda n: not self.trainable(n) and not self.updated(n)),
        )

    @property
    def frozen_statistics(self) -> frozenset[str]:
        """The names of statistics that are kept, whose layers normalise with them."""
        return frozenset(n for n, s in self.settings.items() if is_state(n) and not s.trainable)

    def groups(self, optimizer: optax.GradientTransformation) -> dict[str, optax.GradientTransformation]:
        """`optimizer` at the rate of each group, by the group's label."""
        factors = {1.0} | {s.rate for n, s in self.settings.items() if self.trainable(n)}
        return {
            Setting(rate=f).label: optax.chain(optimizer, optax.scale(f)) if f != 1 else optimizer
            for f in sorted(factors)
        }

    def labels(self, trainable: Params) -> Params:
        """The label of every leaf of the trainable tree (holes stay holes)."""
        return map_named(lambda name, _: self.settings[name].label, trainable)

    def transform(self, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
        """`optimizer` for the trainable tree, each group at its own rate."""
        return optax.multi_transform(self.groups(optimizer), self.labels)

    def table(self, params: Params) -> str:
        """One line for each group: leaves, parameters, rate, and the subtrees it covers."""
        rows: dict[str, list[tuple[str, Any]]] = {}
        for name, leaf in named_leaves(params).items():
            kind = "statistics, " if is_state(name) else ""
            label = ("updated" if kind else self.settings[name].label) if self.settings[name].trainable else "frozen"
            rows.setdefault(kind + label, []).append((name, leaf))
        lines = [f"{'group':<22}{'leaves':>8}{'parameters':>14}  where"]
        for label, leaves in rows.items():
            size = sum(int(np.size(leaf)) if not hasattr(leaf, "size") else int(leaf.size) for _, leaf in leaves)
            where = ", ".join(dict.fromkeys(_stem(name) for name, _ in leaves))
            lines.append(f"{label:<22}{len(leaves):>8}{size:>14,}  {where if len(where) <= 60 else where[:57] + '...'}")
        return "\n".join(lines)


def _stem(name: str) -> str:
    return "/".join(name.split("/")[:2])


def _can_learn(name: str, leaf: Any) -> bool:
    """Whether gradients of `leaf` make sense; integer and boolean leaves are constants."""
    return is_state(name) or jax.numpy.issubdtype(jax.numpy.result_type(leaf), jax.numpy.floating)
