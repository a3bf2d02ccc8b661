"""An objective is a sum of terms; a term is a pair of pure functions, like an optax transformation.

    objective = cross_entropy(label_smoothing=0.1) + 0.01 * l2_sp(params)

A sum of terms, or a term times a number or a schedule, is again a term: the training step knows no other
kind.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax.types import Array, Batch, Key, Output, Params

Metrics = dict[str, Array]
Schedule = Callable[[Array], Array]


class Scene(NamedTuple):
    """What a term may look at: one training step, before the update."""

    outputs: Mapping[str, Output]
    """The model's outputs for every stream (`"train"` where there is only one)."""
    batches: Mapping[str, Batch]
    """The batches the outputs were computed from."""
    params: Params
    """The whole parameter tree of the model, trainable and frozen; gradients flow to the trainable part."""
    forward: Callable[[Params, Any], Output]
    """`forward(params, x)`: the model as it runs in this step, for terms that need another pass."""
    step: Array
    """The number of updates made so far, an int32 scalar."""
    key: Key
    """Randomness of this step and this term alone."""


class Owned(NamedTuple):
    """What a term owns: parameters, trained with the model's, and state that `apply` hands on."""

    params: Params = ()
    state: Any = ()


def _owns_nothing(key: Key, scene: Scene) -> Owned:
    del key, scene
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

    def __add__(self, other: "Term | int") -> "Term":
        return self if isinstance(other, int) and other == 0 else _sum(self, _as_term(other))

    def __radd__(self, other: "Term | int") -> "Term":  # so that `sum(terms)` works
        return self if isinstance(other, int) and other == 0 else _sum(_as_term(other), self)

    def __mul__(self, factor: "float | Schedule") -> "Term":
        return _scale(factor, self)

    __rmul__ = __mul__

    def __str__(self) -> str:
        return self.description


def stateless(value: Callable[[Scene], tuple[Array, Metrics]], description: str, *streams: str) -> Term:
    """A term that owns nothing: `value(scene) -> (scalar, metrics)`, what to print, and the streams it reads.

    >>> def confident(scene):
    ...     p = jax.nn.softmax(scene.outputs["train"].logits)
    ...     entropy = -jnp.mean(jnp.sum(p * jnp.log(p), axis=-1))
    ...     return entropy, {"entropy": entropy}
    >>> print(0.1 * stateless(confident, "confident()"))
    0.1 * confident()
    """

    def apply(owned: Owned, scene: Scene) -> tuple[Array, Any, Metrics]:
        del owned
        loss, metrics = value(scene)
        return loss, (), metrics

    return Term(apply, description=description, streams=streams or ("train",))


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
    def init(key: Key, scene: Scene) -> Owned:
        first, second = (t.init(k, scene) for t, k in zip((left, right), jax.random.split(key)))
        return Owned((first.params, second.params), (first.state, second.state))

    def apply(owned: Owned, scene: Scene) -> tuple[Array, Any, Metrics]:
        keys = jax.random.split(scene.key)
        values, states = [], []
        metrics: Metrics = {}
        for i, term in enumerate((left, right)):
            value, state, found = term.apply(Owned(owned.params[i], owned.state[i]), scene._replace(key=keys[i]))
            values.append(value)
            states.append(state)
            metrics = _both(metrics, found)
        return values[0] + values[1], tuple(states), metrics

    streams = tuple(dict.fromkeys(left.streams + right.streams))
    return Term(apply, init, f"{left} + {right}", streams)


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
    text = _factor_text(factor)

    def apply(owned: Owned, scene: Scene) -> tuple[Array, Any, Metrics]:
        value, state, metrics = term.apply(owned, scene)
        weight = factor(scene.step) if callable(factor) else factor
        return jnp.asarray(weight, value.dtype) * value, state, metrics

    inner = f"({term})" if " + " in term.description else str(term)
    return dataclasses.replace(term, apply=apply, description=f"{text} * {inner}")


def _factor_text(factor: Any) -> str:
    if isinstance(factor, int | float) and not isinstance(factor, np.generic):
        return repr(factor)
    if isinstance(factor, jax.core.Tracer):
        return "weight"
    if isinstance(factor, np.generic | np.ndarray | jax.Array) and np.ndim(factor) == 0:
        return f"{float(factor):g}"
    if callable(factor) and not isinstance(factor, Term):
        return getattr(factor, "__name__", type(factor).__name__)
    raise TypeError(
        "a term is scaled by a number or a schedule (a function of the step); "
        f"found {type(factor).__name__}: {factor!s:.60}"
    )
