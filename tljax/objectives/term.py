"""An objective is a sum of terms; a term is a pair of pure functions, like an optax transformation.

    objective = cross_entropy(label_smoothing=0.1) + 0.01 * l2_sp(params)

A sum of terms, or a term times a number or a schedule, is again a term: the training step knows no other
kind.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from tljax.objectives.contract import TermError, check_params, checked, named
from tljax.objectives.describe import factor_text
from tljax.objectives.phase import Phase, check_phases
from tljax.types import Array, Batch, Key, Output, Params

Metrics = dict[str, Array]
Schedule = Callable[[Array], Array]
_T = TypeVar("_T")

MAIN, SOURCE = "train", "source"
"""The stream that a term reads where nobody says otherwise, and its name where there are several domains."""


class Scene(NamedTuple):
    """What a term may look at: one training step, before the update."""

    outputs: Mapping[str, Output]
    """The model's outputs for every stream (`"train"` where there is only one)."""
    batches: Mapping[str, Batch]
    """The batches the outputs were computed from."""
    params: Params
    """The whole parameter tree of the model, trainable and frozen; gradients flow to the trainable part."""
    forward: Callable[..., Output]
    """`forward(params, x, key=None)`: the model as it trains in this step, for terms that need another pass. Where
    `params` has None, the leaf of `scene.params` is meant. Passes with the same key drop the same units."""
    step: Array
    """The number of updates made so far, an int32 scalar."""
    key: Key
    """Randomness of this step and this term alone."""
    evaluate: Any = None
    """`evaluate(params, x)`: the model as it predicts, without dropout and with running statistics: for teachers. None
    in `params` is as in `forward`."""
    layers: Mapping[str, Mapping[str, Any]] = {}
    """What the layers that terms ask for gave in this step, by stream and by the name of the layer."""
    phase: str | None = None
    """The phase of the step that this is; None where the objective has none."""
    trainable: Params = ()
    """What of `params` the plan lets learn, with None in the place of the rest: what a step inside the step moves."""
    micro: Array | int = 0
    """How often terms without phases were asked before in this step, by microbatches and by phases: what moves once a
    step, as a teacher, moves at 0."""


class Owned(NamedTuple):
    """What a term owns: parameters, trained with the model's, and state that `apply` hands on."""

    params: Params = ()
    state: Any = ()


def _owns_nothing(_key: Key, _scene: Scene) -> Owned:
    return Owned()


@dataclasses.dataclass(frozen=True)
class Term:
    """A part of an objective.

    `init(key, scene) -> Owned` makes what the term owns; `scene` there holds shapes only.
    `apply(owned, scene) -> (value, state, metrics)` returns a scalar to be minimised, the term's next state,
    and scalars to be logged by name.
    """

    apply: Callable[[Owned, Scene], tuple[Array, Any, Metrics]]
    init: Callable[[Key, Scene], Owned] = _owns_nothing
    description: str = "term"
    """The call that made the term, as in the source: `"cross_entropy(label_smoothing=0.1)"`."""
    streams: tuple[str, ...] = ("train",)
    """The streams it reads."""
    joint: tuple[str, ...] = ()
    """Streams that go through the model as one batch, so that batch normalisation sees them all; others go one by
    one."""
    views: tuple[tuple[str, ...], ...] = ()
    """Groups of streams that show the same examples, differently augmented."""
    layers: tuple[str, ...] = ()
    """The layers whose outputs it reads in `scene.layers`, as `tl.features.layers` names them."""
    phases: tuple[Phase, ...] = ()
    """The parts of a step; empty: a step is one update."""
    parts: tuple["Term", ...] = ()
    """The terms of a sum."""
    schedules: tuple[tuple[str, Schedule], ...] = ()
    """Functions of the step that multiply something, and what it is: a failing run names the one that was no number."""

    def __post_init__(self) -> None:
        check_phases(self.phases, self.description)

    def __add__(self, other: "Term | int") -> "Term":
        return self if isinstance(other, int) and other == 0 else _sum(self, _as_term(other))

    def __radd__(self, other: "Term | int") -> "Term":  # so that `sum(terms)` works
        return self if isinstance(other, int) and other == 0 else _sum(_as_term(other), self)

    def __sub__(self, other: "Term") -> "Term":
        return _sum(self, -_as_term(other))

    def __neg__(self) -> "Term":
        return _scale(-1, self)

    def __mul__(self, factor: "float | Schedule") -> "Term":
        return _scale(factor, self)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> "Term":
        return _scale(1 / divisor, self)

    __array_ufunc__ = None  # so that a NumPy number times a term is a term, and an array of numbers an error

    def __str__(self) -> str:
        return self.description

    def learns(self, phase: Phase, owned: Any) -> Any:
        """Which of the parameters that the objective owns learn in `phase`: a tree of bools like `owned`.

        >>> Term(lambda owned, scene: (0.0, (), {})).learns(Phase("heads", others=False), {"w": 1.0})
        {'w': False}
        """
        if self.parts:
            return tuple(part.learns(phase, own) for part, own in zip(self.parts, owned, strict=True))
        return jax.tree.map(lambda _: phase.owned if self.phases else phase.others, owned)

    def apart(self, owned: Owned) -> tuple[Owned, ...]:
        """What each summand owns, in the order of the sum, out of what the objective owns."""
        if not self.parts:
            return (owned,)
        each = zip(self.parts, owned.params, owned.state, strict=True)
        return tuple(own for part, params, state in each for own in part.apart(Owned(params, state)))


def begun(term: Term, key: Key, scene: Scene) -> Owned:
    """What `term` owns at the start: its `init`, checked; raises `TermError`."""
    with named(term, "init"):
        owned = term.init(key, scene)
    if not isinstance(owned, Owned):
        raise TermError(f"{term}: init returns Owned(params, state); found {type(owned).__name__} {owned!r:.60}")
    check_params(owned.params, str(term))
    return owned


def asked(term: Term, owned: Owned, scene: Scene) -> tuple[Array, Any, Metrics]:
    """What `term` says of `scene`: its `apply`, checked; raises `TermError`."""
    with named(term, f"apply, which reads {', '.join(map(repr, term.streams))},"):
        found = term.apply(owned, scene)
    return checked(found, owned.state, str(term))


def stateless(
    value: Callable[[Scene], tuple[Array, Metrics]], description: str, *streams: str,
    joint: tuple[str, ...] = (), views: tuple[str, ...] = (),
) -> Term:  # fmt: skip
    """A term that owns nothing: `value(scene) -> (scalar, metrics)`, what to print, and the streams it reads.

    `joint`: streams that go through the model as one batch. `views`: those that show the same examples.

    >>> from tljax.objectives.stream import output_of  # where there are domains, "train" is called "source"
    >>> def confident(scene):
    ...     p = jax.nn.softmax(output_of(scene, "train", "confident()").logits)
    ...     entropy = -jnp.mean(jnp.sum(p * jnp.log(p), axis=-1))
    ...     return entropy, {"entropy": entropy}
    >>> print(0.1 * stateless(confident, "confident()"))
    0.1 * confident()
    """

    def apply(owned: Owned, scene: Scene) -> tuple[Array, Any, Metrics]:
        del owned
        loss, metrics = value(scene)
        return loss, (), metrics

    alike = (views,) if views else ()
    return Term(apply, description=description, streams=streams or ("train",), joint=joint, views=alike)


def separate(objective: Term) -> Term:
    """`objective` with a forward pass for each of its streams, so that batch normalisation sees one at a time.

    >>> print(separate(stateless(lambda scene: (0.0, {}), "dann()", joint=("source", "target"))).joint)
    ()
    """
    return dataclasses.replace(objective, joint=())


def objective(*terms: Term) -> Term:
    """The sum of `terms`.

    >>> from tljax.objectives import cross_entropy
    >>> print(objective(cross_entropy(), 0.5 * cross_entropy(label_smoothing=0.1)))
    cross_entropy() + 0.5 * cross_entropy(label_smoothing=0.1)
    """
    if not terms:
        raise TypeError("objective() needs at least one term, for example objective(cross_entropy())")
    total = _as_term(terms[0])
    for term in terms[1:]:
        total = total + term
    return total


def _as_term(other: object) -> Term:
    if not isinstance(other, Term):
        raise TypeError(f"only terms add up to an objective; found {type(other).__name__}: {other!r}")
    return other


def _sum(left: Term, right: Term) -> Term:
    terms = (left, right)
    phases = _phases(left, right)

    def init(key: Key, scene: Scene) -> Owned:
        first, second = (begun(t, k, scene) for t, k in zip(terms, jax.random.split(key)))
        return Owned((first.params, second.params), (first.state, second.state))

    def apply(owned: Owned, scene: Scene) -> tuple[Array, Any, Metrics]:
        keys = jax.random.split(scene.key)
        values, states = [], []
        metrics: Metrics = {}
        for i, term in enumerate(terms):
            if not _counts(term, phases, scene.phase):
                states.append(owned.state[i])
                continue
            value, state, found = asked(term, Owned(owned.params[i], owned.state[i]), scene._replace(key=keys[i]))
            values.append(value)
            states.append(state)
            metrics = _both(metrics, found)
        return sum(values[1:], start=values[0]), tuple(states), metrics

    return Term(
        apply, init, f"{left} + {right}", _read(left.streams + right.streams), _each(left.joint, right.joint),
        _each(left.views, right.views), _each(left.layers, right.layers), phases, terms,
        left.schedules + right.schedules,
    )  # fmt: skip


def _phases(left: Term, right: Term) -> tuple[Phase, ...]:
    if left.phases and right.phases:
        raise TypeError(
            f"a step can be divided in one way only: {left} has the phases "
            f"{', '.join(p.name for p in left.phases)}, and {right} has {', '.join(p.name for p in right.phases)}"
        )
    return left.phases or right.phases


def _counts(term: Term, phases: tuple[Phase, ...], now: str | None) -> bool:
    """Whether `term` has a part in the phase called `now`."""
    return bool(term.phases) or all(phase.others for phase in phases if phase.name == now)


def _each(left: tuple[_T, ...], right: tuple[_T, ...]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(left + right))


def _read(streams: tuple[str, ...]) -> tuple[str, ...]:
    """Each once. Where there are domains, the labelled main stream "train" is the one called "source"."""
    return tuple(dict.fromkeys(name for name in streams if name != MAIN or SOURCE not in streams))


def _both(metrics: Metrics, found: Metrics) -> Metrics:
    """All of them: a name that is taken gets a number, so that no term hides another's value."""
    joined = dict(metrics)
    for name, value in found.items():
        free, n = name, 1
        while free in joined:
            n += 1
            free = f"{name}_{n}"
        joined[free] = value
    return joined


def _scale(factor: "float | Schedule", term: Term) -> Term:
    text = factor_text(factor)

    def apply(owned: Owned, scene: Scene) -> tuple[Array, Any, Metrics]:
        value, state, metrics = asked(term, owned, scene)
        weight = factor(scene.step) if callable(factor) else factor
        return jnp.asarray(weight, value.dtype) * value, state, metrics

    text = f"{text} * ({term})" if " + " in term.description else f"{text} * {term}"
    schedules = ((f"the factor of {text}", factor),) if callable(factor) else ()
    return dataclasses.replace(term, apply=apply, description=text, schedules=schedules + term.schedules)
