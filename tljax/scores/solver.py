"""The minimum of a convex function."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tljax.types import Array


def minimised(loss: Any, start: Any, iterations: int) -> tuple[Any, Array]:
    """Where `loss`, which is convex, is least, and its value there: by L-BFGS from `start`, a tree of arrays.

    >>> place, least = minimised(lambda x: jnp.sum((x - 3) ** 2), jnp.zeros(2), 100)
    >>> bool(jnp.allclose(place, 3, atol=1e-5)), round(float(least), 5)
    (True, 0.0)
    """
    solver = optax.lbfgs(memory_size=20)
    value_and_grad = optax.value_and_grad_from_state(loss)
    smallest = 4 * math.sqrt(float(jnp.finfo(jax.tree.leaves(start)[0].dtype).eps)) * 1e-3

    def going(carry: Any) -> Array:
        i, _, _, norm = carry
        return (i < iterations) & (norm > smallest)

    def step(carry: Any) -> Any:
        i, head, state, _ = carry
        value, grad = value_and_grad(head, state=state)
        updates, state = solver.update(grad, state, head, value=value, grad=grad, value_fn=loss)
        return i + 1, optax.apply_updates(head, updates), state, optax.tree.norm(grad)

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # inside the solver
        first = (0, start, solver.init(start), jnp.full((), jnp.inf, jax.tree.leaves(start)[0].dtype))
        _, head, _, _ = jax.lax.while_loop(going, step, first)
    return head, loss(head)
