"""Who learns, and how fast: a plan is a list of rules over the names of a parameter tree.

    plan(freeze("backbone/stem/**"), rate("head/**", 10.0))

Rules apply in order; where several match a leaf, the last one that sets a property wins. Frozen and trainable
parameters become two trees, so that no gradient and no optimiser state of a frozen leaf is ever formed; within the
trainable tree `optax.multi_transform` gives each group its own rate, schedule and weight decay.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from tljax.plans.setting import PlanError, Setting
from tljax.plans.table import table
from tljax.tree import map_named, named_leaves, select
from tljax.types import Params, is_constant, is_state


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a rule changes in the settings of which leaves."""

    changes: Callable[[Params], Mapping[str, Mapping[str, Any]]]
    """`changes(params)`: for the name of each leaf it speaks of, the fields of its `Setting` that it sets."""
    description: str


def setting(where: Any, description: str, **fields: Any) -> Rule:
    """The rule that sets `fields` for every leaf that `where` selects.

    >>> setting("b", "half", rate=0.5).changes({"a": jnp.zeros(2), "b": jnp.zeros(3)})
    {'b': {'rate': 0.5}}
    """
    selector = select(where)
    return Rule(lambda params: dict.fromkeys(selector.names(params), fields), description)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Rules in order. Make one with `plan`."""

    rules: tuple[Rule, ...] = ()

    def __str__(self) -> str:
        return f"plan({', '.join(rule.description for rule in self.rules)})"

    def resolve(self, params: Params) -> "Resolved":
        """What the rules mean for `params`.

        Raises `NoMatchError` where a rule matches nothing, `PlanError` where nothing would learn.

        >>> plan(setting("b", "half", rate=0.5)).resolve({"a": jnp.zeros(2), "b": jnp.zeros(3)}).settings["b"].rate
        0.5
        """
        leaves = named_leaves(params)
        settings = {name: Setting(trainable=_can_learn(name, leaf)) for name, leaf in leaves.items()}
        for rule in self.rules:
            for name, fields in rule.changes(params).items():
                changed = dataclasses.replace(settings[name], **fields)
                able = changed.trainable and _can_learn(name, leaves[name])
                settings[name] = dataclasses.replace(changed, trainable=able)
        self._check(settings)
        return Resolved(settings)

    def _check(self, settings: Mapping[str, Setting]) -> None:
        opens = [s.opens for name, s in settings.items() if s.trainable and not is_state(name)]
        if not opens:
            raise PlanError(
                f"{self} trains nothing: all {len(settings)} leaves are frozen, or constants. Narrow a freeze(), or "
                "add an unfreeze()."
            )
        if min(opens):
            raise PlanError(f"{self} trains nothing before step {min(opens)}: the group that opens first is frozen")


def plan(*rules: Rule | Plan) -> Plan:
    """A plan from rules, or from other plans, in order; `plan()` trains everything at the optimiser's own rate.

    Raises `TypeError` for anything that is neither.

    >>> from tljax.plans import freeze, rate
    >>> print(plan(freeze("backbone/**"), rate("head/**", 10.0)))
    plan(freeze('backbone/**'), rate('head/**', 10))
    """
    parts: list[Rule] = []
    for item in rules:
        if not isinstance(item, Rule | Plan):
            raise TypeError(f"plan() takes rules such as freeze('backbone/**'); found {item!r}")
        parts.extend(item.rules if isinstance(item, Plan) else (item,))
    return Plan(tuple(parts))


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
        """Whether `name` is a statistic that training updates; those of a group that opens later are kept.

        >>> params = {"norm": {"scale": jnp.ones(2), "batch_stats": {"mean": jnp.zeros(2)}}}
        >>> plan().resolve(params).updated("norm/batch_stats/mean")
        True
        """
        return is_state(name) and self.settings[name].trainable and not self.settings[name].opens

    def partition(self, params: Params) -> tuple[Params, Params, Params]:
        """Three trees of the structure of `params`, None in the holes: what learns, what is updated, what is frozen.

        >>> from tljax.plans import freeze
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

        >>> from tljax.plans import freeze
        >>> params = {"scale": jnp.ones(2), "batch_stats": {"mean": jnp.zeros(2)}}
        >>> plan(freeze("batch_stats/**")).resolve(params).frozen_statistics
        frozenset({'batch_stats/mean'})
        """
        return frozenset(name for name in self.settings if is_state(name) and not self.updated(name))

    @property
    def staged(self) -> bool:
        """Whether something begins to learn later than the rest.

        >>> plan(setting("a", "later", opens=5)).resolve({"a": 1.0, "b": 2.0}).staged
        True
        """
        return any(s.opens and self.trainable(name) for name, s in self.settings.items())

    @property
    def automatic(self) -> bool:
        """Whether some rates follow from the gradients.

        >>> plan().resolve({"a": 1.0}).automatic
        False
        """
        return any(s.automatic and self.trainable(name) for name, s in self.settings.items())

    @property
    def base(self) -> Setting:
        """The setting of what no rule speaks of, such as parameters that the objective owns.

        Where a rule sets a weight decay, what no rule decays has none.

        >>> plan(setting("a", "decayed", decay=0.1)).resolve({"a": 1.0, "b": 2.0}).base.decay
        0.0
        """
        return Setting(decay=None if all(s.decay is None for s in self.settings.values()) else 0.0)

    def of(self, name: str) -> Setting:
        """The setting of the leaf `name`, its weight decay filled in.

        >>> plan(setting("a", "decayed", decay=0.1)).resolve({"a": 1.0, "b": 2.0}).of("b").decay
        0.0
        """
        own = self.settings[name]
        return own if own.decay is not None else dataclasses.replace(own, decay=self.base.decay)

    def groups(self, optimizer: Any) -> dict[str, optax.GradientTransformation]:
        """`optimizer` at the rate, schedule and decay of each group, by the group's label; the base is always there.

        `optimizer`: an optax transformation; or, as plans with weight decay need, a function of `weight_decay` that
        makes one, as ``functools.partial(optax.adamw, 3e-4)``: decoupled decay stands between the optimiser's
        direction and its learning rate, where nobody but the optimiser can put it.

        Raises `PlanError` where the plan has weight decay and the optimiser is no such function.

        >>> list(plan(setting("b", "ten", rate=10.0)).resolve({"a": 1.0, "b": 2.0}).groups(optax.sgd(0.1)))
        ['rate 1', 'rate 10']
        """
        return {label: _scaled(_decayed(optimizer, kind.decay), kind.rate) for kind, label in self._kinds().items()}

    def labels(self, trainable: Params) -> Params:
        """The label of every leaf of the trainable tree; holes stay holes.

        >>> plan(setting("b", "ten", rate=10.0)).resolve({"a": 1.0, "b": 2.0}).labels({"a": None, "b": 2.0})
        {'a': None, 'b': 'rate 10'}
        """
        kinds = self._kinds()
        return map_named(lambda name, _: kinds[self.of(name).kind], trainable)

    @property
    def base_label(self) -> str:
        """The label of the base group.

        >>> plan().resolve({"w": jnp.zeros(2)}).base_label
        'rate 1'
        """
        return self._kinds()[self.base.kind]

    def table(self, params: Params) -> str:
        """One line for each group: leaves, parameters, rate, schedule, weight decay, and the subtrees it covers.

        >>> from tljax.plans import freeze
        >>> params = {"backbone": {"w": jnp.zeros((2, 3))}, "head": {"w": jnp.zeros((3, 4))}}
        >>> print(plan(freeze("backbone/**")).resolve(params).table(params))
        group               leaves   parameters  rate  schedule   decay  where
        frozen                   1            6     -  -              -  backbone/w
        learns                   1           12     1  -              -  head/w
        """
        return table({name: self.of(name) for name in self.settings}, params)

    def _kinds(self) -> dict[Setting, str]:
        """Every kind of setting that an optimiser must tell apart, with a label of its own."""
        found = {self.base.kind} | {self.of(name).kind for name in self.settings if self.trainable(name)}
        return _labelled(sorted(found, key=lambda s: (callable(s.rate), 0 if callable(s.rate) else s.rate, s.label)))


def _labelled(kinds: Iterable[Setting]) -> dict[Setting, str]:
    labels: dict[Setting, str] = {}
    for kind in kinds:
        label, i = kind.label, 2
        while label in labels.values():  # two schedules may have one name
            label, i = f"{kind.label} ({i})", i + 1
        labels[kind] = label
    return labels


def _decayed(optimizer: Any, decay: float | None) -> optax.GradientTransformation:
    if not hasattr(optimizer, "update"):
        return _made(optimizer, decay or 0.0)
    if decay is None:
        return optimizer
    raise PlanError(
        "the plan sets weight decay by group, so give the optimizer as a function of it: "
        "optimizer=functools.partial(optax.adamw, 3e-4) instead of optax.adamw(3e-4). Any function that takes "
        "weight_decay=... and returns an optax transformation will do"
    )


def _made(optimizer: Any, decay: float) -> optax.GradientTransformation:
    try:
        made = optimizer(weight_decay=decay)
    except TypeError as error:
        made, why = None, f": {error}"
    else:
        why = f", which gave {made!r}"
    if not (hasattr(made, "init") and hasattr(made, "update")):
        raise PlanError(
            f"the optimizer should be one of optax, as optax.adamw(3e-4), or a function of weight_decay that makes "
            f"one, as functools.partial(optax.adamw, 3e-4); found {optimizer!r}, called with weight_decay={decay}{why}"
        )
    return made


def _scaled(optimizer: optax.GradientTransformation, rate: Any) -> optax.GradientTransformation:
    if callable(rate):
        return optax.chain(optimizer, optax.scale_by_schedule(rate))
    return optax.chain(optimizer, optax.scale(rate)) if rate != 1 else optimizer


def _can_learn(name: str, leaf: Any) -> bool:
    """Whether gradients of `leaf` make sense; integers, booleans and constants of adapters stay as they are."""
    return is_state(name) or (jnp.issubdtype(jnp.result_type(leaf), jnp.floating) and not is_constant(name))


def positive(value: Any, what: str, hint: str = "") -> float:
    """`value` as a float; raises `PlanError`, which begins with `what`, unless it is positive and finite.

    >>> positive(2, "rate")
    2.0
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < np.inf:
        raise PlanError(f"{what} must be positive and finite; found {value!r}{hint}")
    return float(value)
