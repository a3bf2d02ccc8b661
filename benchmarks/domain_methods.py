"""The methods of the digits benchmark: TLlib's rows with its rates and hyper-parameters, and sums of terms."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

import tljax as tl
from tljax import objectives as of

TO_USPS, TO_MNIST = "mnist-usps", "usps-mnist"


class Method(NamedTuple):
    """A row of the table."""

    network: str
    """Which of `domain_network.KINDS`."""
    objective: Callable[[str], tl.Term]
    """Of the direction."""
    rate: dict[str, float]
    gamma: float | None
    """The rate is ``rate (1 + gamma t)^-0.75``; None: it stays."""
    decay: float
    published: dict[str, float]
    """In percent; empty for what nobody published."""
    still: bool = False
    """The backbone has no momentum, and the rest plain momentum."""
    slower: float = 1.0
    """What the backbone's rate is multiplied by."""
    own_rate: float | None = None
    """Of the term's own parameters, where it is another."""
    before: int = 0
    """Parts of 20 of the run in which the source alone is learnt first, at a rate of 0.001."""


def both(to_usps: float, to_mnist: float) -> dict[str, float]:
    """A number for each direction."""
    return {TO_USPS: to_usps, TO_MNIST: to_mnist}


def ce() -> tl.Term:
    """Cross-entropy on the source."""
    return tl.cross_entropy(stream="source")


USUAL = both(0.01, 0.1)
ADVERSARIAL = {"network": "norm", "rate": USUAL, "gamma": 1e-3, "decay": 1e-3}
KERNEL = {"rate": USUAL, "gamma": 3e-4, "decay": 5e-4}
METHODS = {
    "erm": Method("plain", lambda _: ce(), published=both(82.1, 74.6), **KERNEL),
    "dann": Method(objective=lambda _: ce() + of.dann(), published=both(91.7, 95.2), **ADVERSARIAL),
    "dan": Method("dropout", lambda _: ce() + of.dan(), published=both(86.0, 89.5), **KERNEL),
    "jan": Method("norm+dropout", lambda _: ce() + of.jan(), published=both(84.0, 86.8), **KERNEL),
    "adda": Method(objective=lambda _: ce() + of.adda(), published=both(94.5, 98.3), own_rate=0.01, **ADVERSARIAL),
    "cdan": Method(objective=lambda _: ce() + of.cdan(), published=both(96.0, 97.7), **ADVERSARIAL),
    "mcd": Method(
        "mcd", lambda _: ce() + of.mcd(head=of.DeepHead(10), weight=0.3, balance=0.03), USUAL, None, 5e-4,
        both(94.1, 97.6), still=True,
    ),
    "afn": Method(
        "afn",
        lambda way: ce() + 0.05 * of.afn(delta=both(0.3, 0.1)[way]) + 0.03 * of.entropy_minimization(),
        both(0.01, 0.03), None, 5e-4, both(88.6, 97.2), still=True,
    ),
    "bsp": Method(
        objective=lambda _: ce() + of.dann() + 1e-4 * of.bsp(), published=both(95.7, 97.8), before=3, **ADVERSARIAL
    ),
    "mdd": Method("mdd", lambda _: ce() + of.mdd(), both(0.01, 0.01), 2e-4, 5e-4, both(94.8, 97.8), slower=0.1),
    "mdd-even": Method("mdd", lambda _: ce() + of.mdd(), both(0.01, 0.01), 2e-4, 5e-4, {}),
    "mcc": Method(objective=lambda _: ce() + of.mcc(), published=both(95.1, 94.6), **ADVERSARIAL),
    "cdan+mcc": Method(objective=lambda _: ce() + of.cdan() + of.mcc(), published={}, **ADVERSARIAL),
    "dann+mcc": Method(objective=lambda _: ce() + of.dann() + of.mcc(), published={}, **ADVERSARIAL),
    "adda+mcc": Method(objective=lambda _: ce() + of.adda() + of.mcc(), published={}, own_rate=0.01, **ADVERSARIAL),
    "mdd+mcc": Method("mdd", lambda _: ce() + of.mdd() + of.mcc(), both(0.01, 0.01), 2e-4, 5e-4, {}),
}  # fmt: skip


def sgd(rate: float, gamma: float | None, decay: float, *, momentum: float | None = 0.9, nesterov: bool = True) -> Any:
    """torch's SGD with coupled weight decay, at ``rate (1 + gamma t)^-0.75``."""
    falling = rate if gamma is None else lambda t: rate * (1 + gamma * t) ** -0.75
    return optax.chain(
        optax.add_decayed_weights(decay), optax.sgd(falling, momentum, nesterov and momentum is not None)
    )


def optimizer(method: Method, direction: str) -> Any:
    """The optimiser of a method: momentum and rate by what a parameter belongs to."""
    rate = method.rate[direction]

    def kind(path: Any, leaf: Any) -> str:
        names = [getattr(key, "key", None) for key in path]
        if "backbone" in names and "bottleneck" not in names:
            return "backbone"
        return "own" if "terms" in names else "rest"

    own = sgd(method.own_rate or rate, method.gamma, method.decay, nesterov=not method.still)
    rules = {
        "backbone": sgd(
            rate * method.slower,
            method.gamma,
            method.decay,
            momentum=None if method.still else 0.9,
            nesterov=not method.still,
        ),
        "rest": sgd(rate, method.gamma, method.decay, nesterov=not method.still),
        "own": own,
    }
    if not method.still and method.slower == 1 and method.own_rate is None:
        return own
    return optax.multi_transform(rules, lambda tree: jax.tree_util.tree_map_with_path(kind, tree))
