"""The methods that `tljax finetune` knows, one row each: what learns, with which adapters, at what rates.

A new method is a new row of `METHODS`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from tljax import peft
from tljax.peft.choose import sites
from tljax.plans import Plan, adapters_only, bitfit, linear_probe, norm_only, plan, rate, unfreeze
from tljax.tree import select
from tljax.types import Key, Model, Params

BASELINE = "linear-probe"
"""The method that every other is compared to: a head on frozen features."""

ATTENTION = "backbone/**/attention/{query,value}/kernel"
KERNELS = "backbone/**/kernel"


class Options(NamedTuple):
    """What the adapters of a method are made with."""

    target: tuple[str, ...]
    """Selectors; empty: the method's own."""
    rank: int
    alpha: float
    key: Key


Adapt = Callable[[Params, Options], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to fine-tune."""

    plan: Callable[[], Plan]
    """Who learns; the rate of the head is added to it."""
    rates: tuple[float, ...]
    """Learning rates to try on transformers, for AdamW."""
    head_rate: float = 1.0
    """How much faster a fresh head learns than the rest."""
    adapt: Adapt | None = None
    """Makes the adapters, where the method has any."""
    start: Literal["fresh", "closed form"] = "fresh"
    """Where the head starts."""
    faster: float = 10.0
    """What the rates are multiplied by for models without attention."""

    def rates_for(self, params: Params) -> tuple[float, ...]:
        """The learning rates to try for a model with these parameters.

        >>> METHODS["full"].rates_for({"backbone": {"conv": {"kernel": 1.0}}})
        (0.0003, 0.001, 0.003)
        """
        factor = 1.0 if has_attention(params) else self.faster
        return tuple(float(f"{r * factor:.6g}") for r in self.rates)


def has_attention(params: Params) -> bool:
    """Whether the model has the attention layers that adapters usually go to.

    >>> has_attention({"backbone": {"block_00": {"attention": {"query": {"kernel": 1.0}}}}})
    True
    """
    return bool(select(ATTENTION).names(params, required=False))


def prepared(method: Method, model: Model, params: Params, options: Options) -> tuple[Model, Params, Plan]:
    """The model with the method's adapters, its parameters, and who learns.

    Models of the same base are equal for all seeds, so that one program serves them.

    Raises `NoMatchError` or `PeftError` for a target that adapters cannot go to.
    """
    rules = plan(method.plan(), rate("head/**", method.head_rate))
    if method.adapt is None:
        return model, params, rules
    adapted, whole = peft.attach(model, params, dict(method.adapt(params, options)))
    return adapted, whole, rules


def _where(params: Params, options: Options) -> Any:
    if options.target:
        return list(options.target)
    return ATTENTION if has_attention(params) else KERNELS


def _ranks(params: Params, where: Any, options: Options) -> dict[str, int]:
    """The rank for each leaf: what was asked for, or as much as its matrix has."""
    return {site.name: min(options.rank, *site.fan) for site in sites(params, where, None)}


def _low_rank(make: Callable[..., Any], **more: Any) -> Adapt:
    def adapt(params: Params, options: Options) -> Mapping[str, Any]:
        where = _where(params, options)
        return make(params, where, key=options.key, rank=_ranks(params, where, options), alpha=options.alpha, **more)

    return adapt


def _svd(make: Callable[..., Any]) -> Adapt:
    """As `_low_rank`, for kinds that start at the weight itself and draw nothing."""

    def adapt(params: Params, options: Options) -> Mapping[str, Any]:
        where = _where(params, options)
        return make(params, where, rank=_ranks(params, where, options), alpha=options.alpha)

    return adapt


def _vera(params: Params, options: Options) -> Mapping[str, Any]:
    where = _where(params, options)
    return peft.vera(params, where, key=options.key, rank=options.rank)


def _ia3(params: Params, options: Options) -> Mapping[str, Any]:
    """Keys, values, and what the second layer of the MLP takes in; where there is no attention, all kernels."""
    if options.target or not has_attention(params):
        return peft.ia3(params, _where(params, options))
    inner = select("backbone/**/mlp/dense_2/kernel").names(params, required=False)
    return peft.ia3(params, "backbone/**/attention/{key,value}/kernel", feedforward=inner)


def _adapters() -> Plan:
    return plan(adapters_only(), unfreeze("head/**"))


_FULL, _FEW, _ADAPTERS = (3e-5, 1e-4, 3e-4), (3e-4, 1e-3, 3e-3), (3e-4, 1e-3, 3e-3)

METHODS: Mapping[str, Method] = {
    "full": Method(plan, _FULL, head_rate=30.0),
    "linear-probe": Method(linear_probe, (3e-3, 1e-2, 3e-2, 1e-1), faster=1.0),
    "lp-ft": Method(plan, _FULL, start="closed form"),
    "bitfit": Method(bitfit, _FEW, head_rate=3.0),
    "norm-only": Method(norm_only, _FEW, head_rate=3.0),
    "lora": Method(_adapters, _ADAPTERS, head_rate=3.0, adapt=_low_rank(peft.lora)),
    "rslora": Method(_adapters, _ADAPTERS, head_rate=3.0, adapt=_low_rank(peft.lora, rslora=True)),
    "dora": Method(_adapters, _ADAPTERS, head_rate=3.0, adapt=_low_rank(peft.dora)),
    "pissa": Method(_adapters, _ADAPTERS, head_rate=3.0, adapt=_svd(peft.pissa)),
    "olora": Method(_adapters, _ADAPTERS, head_rate=3.0, adapt=_svd(peft.olora)),
    "vera": Method(_adapters, (1e-3, 3e-3, 1e-2), adapt=_vera),
    "ia3": Method(_adapters, (1e-3, 3e-3, 1e-2), adapt=_ia3),
}

REGULARIZERS: Mapping[str, float] = {"l2-sp": 0.01, "delta": 0.01, "bss": 1e-3, "lwf": 4.0, "co-tuning": 2.3}
"""What may be added to the loss of methods that move the pretrained weights, and the published weight of each."""
