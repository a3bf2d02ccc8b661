"""Penalised multinomial logistic loss, and its minima along strengths by L-BFGS; what `logistic` computes with."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tljax.probes.inputs import ABSENT
from tljax.probes.left_out import dot
from tljax.types import Array

MEMORY = 10
"""Pairs of steps and gradients that L-BFGS keeps."""


class Problem(NamedTuple):
    """What one fit is about."""

    z: Array
    """Features `[N, R]`, rotated to their singular vectors."""
    hot: Array
    """Classes `[N, C]`, one 1 a row."""
    share: Array
    """Weights `[N]` with sum 1."""
    total: Array
    """The sum of the weights."""
    spread: Array
    """The mean square of each feature, `[R]`."""
    present: Array
    """Which classes have examples, `[C]` bool."""

    @classmethod
    def of(cls, z: Array, hot: Array, weight: Array, spread: Array) -> "Problem":
        """The problem of features of the mean squares `spread` `[R]` and weights `[N]`.

        >>> Problem.of(jnp.ones((2, 1)), jnp.eye(2), jnp.array([1.0, 3.0]), jnp.ones(1)).total.item()
        4.0
        """
        total = jnp.sum(weight)
        present = dot(weight, hot) > 0
        return cls(z, hot, weight / total, total, spread, present)

    def penalty(self, strength: Array) -> Array:
        """What the squared weights are halved and multiplied by; twice as much where there are two classes."""
        classes = jnp.sum(self.present)
        return jnp.where(classes == 2, 2, 1).astype(strength.dtype) / (strength * self.total)

    def loss(self, w: Array, b: Array, penalty: Array) -> Array:
        """Mean cross-entropy and penalty."""
        logits = jnp.where(self.present[None], dot(self.z, w) + b[None], ABSENT)
        chance = jax.nn.logsumexp(logits, axis=-1) - jnp.sum(self.hot * logits, axis=-1)
        # An absent class has no example, but for those of weight 0, whose loss is out of all bounds.
        chance = jnp.where(self.share > 0, chance, 0)
        return dot(self.share, chance) + penalty / 2 * jnp.sum(jnp.square(w))


class Found(NamedTuple):
    """Minima at strengths `[L]`, or at one."""

    w: Array
    b: Array
    loss: Array
    steps: Array
    converged: Array


def minimised(problem: Problem, strengths: Array, tolerance: Array, steps: Array, batched: bool) -> Found:
    """The minima at every strength; side by side if `batched`, else one after the other, from the one before.

    >>> problem = Problem.of(jnp.array([[-1.0], [1.0]]), jnp.eye(2), jnp.ones(2), jnp.ones(1))
    >>> found = minimised(problem, jnp.array([1.0, 2.0]), jnp.float32(1e-5), jnp.int32(50), False)
    >>> found.w.shape, found.converged.tolist()
    ((2, 1, 2), [True, True])
    """
    shares = dot(problem.share, problem.hot)
    b = jnp.where(problem.present, jnp.log(jnp.where(problem.present, shares, 1)), 0)
    w = jnp.zeros((problem.z.shape[1], len(b)), b.dtype)
    if batched:
        return jax.vmap(lambda strength: _minimum(problem, strength, w, b, b, tolerance, steps))(strengths)

    def along(start: tuple[Array, Array], strength: Array) -> tuple[tuple[Array, Array], Found]:
        found = _minimum(problem, strength, *start, b, tolerance, steps)
        return (found.w, found.b), found

    return jax.lax.scan(along, (w, b), strengths)[1]


def _minimum(
    problem: Problem, strength: Array, w: Array, b: Array, blank: Array, tolerance: Array, steps: Array
) -> Found:
    """From `w` and `b`; `blank` is the bias of the head without weights."""
    import optax

    penalty = problem.penalty(strength)
    classes = jnp.maximum(jnp.sum(problem.present), 1).astype(w.dtype)
    round_w = jax.lax.rsqrt(problem.spread / classes + penalty)[:, None]
    round_b = jnp.sqrt(classes)

    def value(p: dict[str, Array]) -> Array:
        return problem.loss(round_w * p["w"], round_b * p["b"], penalty)

    slope = jax.grad(value)
    floor = 4 * jnp.finfo(w.dtype).eps  # of a gradient in single precision
    small = tolerance * _norm(slope({"w": jnp.zeros_like(w), "b": blank / round_b})) + floor
    start = {"w": w / round_w, "b": b / round_b}
    search = optax.lbfgs(memory_size=MEMORY)
    found, state, norm = _run(search, value, start, _norm(slope(start)), small, steps)
    taken = optax.tree.get(state, "count")
    return Found(round_w * found["w"], round_b * found["b"], value(found), taken, norm <= small)


def _run(search: Any, value: Any, start: Any, norm: Array, small: Array, steps: Array) -> tuple[Any, Any, Array]:
    import optax

    value_and_grad = optax.value_and_grad_from_state(value)

    def going(carry: tuple[Any, Any, Array]) -> Array:
        _, state, norm = carry
        return (norm > small) & (optax.tree.get(state, "count") < steps)

    def step(carry: tuple[Any, Any, Array]) -> tuple[Any, Any, Array]:
        params, state, _ = carry
        with jax.numpy_dtype_promotion("standard"):  # optax's line search counts in Python's numbers
            known, slope = value_and_grad(params, state=state)
            updates, state = search.update(slope, state, params, value=known, grad=slope, value_fn=value)
            params = optax.apply_updates(params, updates)
        return params, state, _norm(optax.tree.get(state, "grad"))

    return jax.lax.while_loop(going, step, (start, search.init(start), norm))


def _norm(tree: Any) -> Array:
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))
