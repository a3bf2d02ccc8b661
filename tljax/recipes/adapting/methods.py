"""The methods that `tljax adapt` knows, one row each, and what their expressions mean.

A new method is a term in `tljax.objectives` and a row of `METHODS` with its name.
"""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from tljax import objectives
from tljax.objectives import Term, cross_entropy
from tljax.recipes.adapting.expression import Call, Part, read_sum
from tljax.recipes.adapting.values import require_fitting
from tljax.recipes.options import SettingsError, did_you_mean
from tljax.types import TljaxError

BASELINE = "source-only"
"""The method that every other is compared to: training on the source alone."""
VIEWS: Mapping[str, str] = MappingProxyType({"weak": "target", "strong": "target"})
"""The streams that are views of another."""
_GIVEN = ("source", "target", "stream", *VIEWS, "regression")
"""Options that no expression sets: the streams, and what is not for classes."""


class Method(NamedTuple):
    """How a term is used where nothing else is said: as published."""

    summary: str
    weight: float = 1.0
    """What the term counts beside the cross-entropy of the source."""
    bottleneck: int = 256
    """Width of the dense layer between backbone and head; 0 for none."""
    steady: bool = False
    """Whether the learning rate stays as it is; else it decays."""
    options: Mapping[str, Any] = MappingProxyType({})
    """Options of the term that are published so for domain adaptation."""
    images: bool = False
    """Whether it is for images alone, for it learns from how views of one differ."""


METHODS: Mapping[str, Method] = {
    "dann": Method("domain-adversarial features"),
    "cdan": Method("domain-adversarial features given the predictions"),
    "adda": Method("adversarial features, each domain to pass for the other"),
    "mcd": Method("two heads look for disagreement, the features for agreement, in phases", steady=True),
    "mdd": Method("margin disparity of an adversarial head", bottleneck=1024),
    "bsp": Method("penalty on the largest singular value, beside an adversarial term", weight=1e-4),
    "dan": Method("maximum mean discrepancy of the features, several kernels"),
    "jan": Method("joint maximum mean discrepancy of features and predictions"),
    "coral": Method("difference of means and covariances", options=MappingProxyType({"form": "moments"})),
    "mcc": Method("minimum class confusion on the target"),
    "afn": Method("growing feature norms", weight=0.05, bottleneck=1000, steady=True),
    "swd": Method("sliced Wasserstein distance of the features"),
    "bnm": Method("batch nuclear norm of the target's predictions"),
    "mean_teacher": Method(
        "predictions for the target as those of a slow copy, where that is sure",
        weight=3.0,
        options=MappingProxyType({"decay": 0.99, "threshold": 0.8}),
    ),
    "fixmatch": Method(
        "sure predictions on a weak view as labels of a strong one",
        bottleneck=1024,
        images=True,
        options=MappingProxyType({"threshold": 0.9}),
    ),
    "entropy_minimization": Method("sure predictions on the target", weight=0.1),
    "information_maximization": Method("sure and various predictions on the target"),
}
"""By the names of the terms in `tljax.objectives`."""


class Approach(NamedTuple):
    """A method that is ready to train."""

    name: str
    """The expression in its shortest form."""
    objective: Term
    bottleneck: int
    steady: bool
    images: bool
    """Whether it is for images alone."""


def approach(text: str) -> Approach:
    """What the expression `text` means.

    Raises `SettingsError` for unknown names or options, with the nearest, and for values that a term does not take.

    >>> print(approach("source-only").objective)
    cross_entropy()
    >>> approach("cdna+mcc")
    Traceback (most recent call last):
    tljax.recipes.options.SettingsError: no method is called 'cdna'; did you mean 'cdan'...
    """
    parts = [_with_underscores(part) for part in read_sum(text)]
    if [str(part) for part in parts] == ["source_only"]:
        return Approach(BASELINE, cross_entropy(), 0, False, False)
    for part in parts:
        _check_name(part.call, text)
    terms = [_term(part, text) for part in parts]
    rows = [METHODS[part.call.name] for part in parts]
    name = "+".join(str(part._replace(call=_hyphened(part.call))) for part in parts)
    widest = max(row.bottleneck for row in rows)
    total = _summed(cross_entropy(), *terms, text=text)
    steady, images = (any(getattr(row, of) for row in rows) for of in ("steady", "images"))
    return Approach(name, total, widest, steady, images)


def _with_underscores(part: Part) -> Part:
    return part._replace(call=part.call._replace(name=part.call.name.replace("-", "_")))


def _hyphened(call: Call) -> Call:
    return call._replace(name=call.name.replace("_", "-"))


def _check_name(call: Call, text: str) -> None:
    if call.name == "source_only":
        raise SettingsError(f"{text!r}: source-only is training without any other term, so it stands alone")
    if call.name not in METHODS:
        known = [BASELINE, *(name.replace("_", "-") for name in METHODS)]
        name = call.name.replace("_", "-")
        near = did_you_mean(name.lower(), known)
        there = f"{near} There are" if near else "; there are"
        raise SettingsError(f"no method is called {name!r}{there} {', '.join(known)}")


def _term(part: Part, text: str) -> Term:
    """The term of a summand, times its weight."""
    call = part.call
    factory = getattr(objectives, call.name)
    row = METHODS[call.name]
    weight = row.weight if part.weight is None else part.weight
    try:
        term = factory(**{**row.options, **_options(call, factory)})
    except (TljaxError, TypeError, ValueError) as error:
        raise SettingsError(f"method {text!r}: {error}") from error
    return term if weight == 1 else weight * term


def _options(call: Call, function: Callable[..., Any]) -> dict[str, Any]:
    """The values of the options of a call of `function`, schedules made.

    Raises `SettingsError` for an option that it does not have, `TypeError` for a value that it does not take.
    """
    known = [name for name in inspect.signature(function).parameters if name not in _GIVEN]
    for option in call.options:
        if option not in known:
            listed = f"it has {', '.join(known)}" if known else "it has none"
            raise SettingsError(f"{call.name} has no option {option!r}{did_you_mean(option, known)}; {listed}")
    found = {name: _schedule(value) if isinstance(value, Call) else value for name, value in call.options.items()}
    require_fitting(function, found)
    return found


def _schedule(call: Call) -> Any:
    maker = getattr(objectives, call.name)
    return maker(**_options(call, maker))


def _summed(*terms: Any, text: str) -> Term:
    try:
        return objectives.objective(*terms)
    except TypeError as error:  # two terms with phases
        raise SettingsError(f"method {text!r}: {error}") from error
