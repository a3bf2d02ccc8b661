"""Gradient reversal: what turns a minimiser of two players' sum into a game between them."""

import jax
import jax.numpy as jnp

from tljax.types import Array


@jax.custom_vjp
def reversed_gradient(x: Array, coefficient: float | Array) -> Array:
    """`x` as it is; the gradient that comes back through it is multiplied by ``-coefficient``.

    A loss of ``D(reversed_gradient(f, c))`` trains D to lower it and whatever made f to raise it, c times as hard,
    in one backward pass. Works under jit, vmap and in gradients of gradients, but not in forward mode.

    Args:
        x: floats of any shape.
        coefficient: a scalar, which may be traced: a schedule of the step. No gradient reaches it.

    Reference: Ganin et al. 2016, arXiv:1505.07818.

    >>> import jax, jax.numpy as jnp
    >>> print(reversed_gradient(jnp.array(3.0), 0.5), jax.grad(reversed_gradient)(3.0, 0.5))
    3.0 -0.5
    """
    del coefficient
    return x


def _forward(x: Array, coefficient: float | Array) -> tuple[Array, Array]:
    return x, jnp.asarray(coefficient)


def _backward(coefficient: Array, gradient: Array) -> tuple[Array, Array]:
    return -coefficient.astype(gradient.dtype) * gradient, jnp.zeros_like(coefficient)


reversed_gradient.defvjp(_forward, _backward)
