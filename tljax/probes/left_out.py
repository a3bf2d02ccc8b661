r"""What ridge regression would predict for examples that it was fitted without: one at a time, or group by group.

The errors of a fit on all examples are :math:`(I - H) T`; those for a group g that is left out are

.. math:: e_g = \big[(I - H)_{gg}\big]^{-1} \big[(I - H) T\big]_g .

:math:`I - H = U \operatorname{diag}(k) U^T + P` with :math:`k = \lambda / (s^2 + \lambda)` and P the projector onto
what lies outside of U and the intercept. Near interpolation its blocks are tiny, and 1 - h would be a difference of
almost equal numbers. So single examples take k as it is, and groups the columns :math:`P_{\cdot g}` themselves: with
:math:`B = [U \sqrt k, P]` the block is :math:`B_g B_g^T`, and e is the least-squares solution of
:math:`B_g^T e = B^T T`, whose condition is the root of the block's.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tljax.types import Array

dot = functools.partial(jnp.matmul, precision="highest")
"""The product of two matrices at full precision, where accelerators would round to fewer bits."""


def centred(x: Array) -> tuple[Array, Array]:
    """The mean `[D]` of `x` `[N, D]` and `x` without it.

    A mean far from 0 is rounded, and what is left of it would pass for one more direction: it is taken off as well.

    >>> centred(jnp.array([[1.0], [3.0]]))[1].tolist()
    [[-1.0], [1.0]]
    """
    mean = jnp.mean(x, axis=0)
    rest = x - mean[None]
    return mean, rest - jnp.mean(rest, axis=0, keepdims=True)


class Fit(NamedTuple):
    """Centred features as far as the errors need them, and centred targets."""

    u: Array
    """`[N, R]`: the left singular vectors; 0 where the singular value counts as 0."""
    squares: Array
    """`[R]`: the squared singular values."""
    targets: Array
    """`[N, C]`."""

    @property
    def partial(self) -> Array:
        """Whether anything lies outside of U and the intercept; else not even a rounding error does."""
        return jnp.sum(self.squares > 0) < len(self.u) - 1

    @property
    def inside(self) -> Array:
        """`[R, C]`: the targets along U."""
        return dot(self.u.T, self.targets)

    @property
    def rest(self) -> Array:
        """`[N]`: the diagonal of P, what U and the intercept leave of each example."""
        n = jnp.asarray(len(self.u), self.u.dtype)
        return jnp.where(self.partial, jnp.maximum(1 - 1 / n - jnp.sum(jnp.square(self.u), axis=1), 0), 0)

    @property
    def outside(self) -> Array:
        """`[N, C]`: the part of the targets that no strength fits."""
        return jnp.where(self.partial, self.targets - dot(self.u, self.inside), 0)


def left_out(fit: Fit, strengths: Array) -> Array:
    """What the prediction without each example lacks to its target, `[L, N, C]` for strengths `[L]`.

    >>> fit = Fit(jnp.array([[0.5], [-0.5], [0.5], [-0.5]]), jnp.ones(1), jnp.array([[1.0], [-1.0], [1.0], [-1.0]]))
    >>> left_out(fit, jnp.array([1e-6]))[0, 0].round(3).tolist()  # the three others are fitted: nothing lacks
    [0.0]
    """
    inside, outside, rest, squared = fit.inside, fit.outside, fit.rest, jnp.square(fit.u)

    def one(strength: Array) -> Array:
        kept = strength / (fit.squares + strength)
        return (outside + dot(fit.u, kept[:, None] * inside)) / (rest + dot(squared, kept))[:, None]

    return jax.lax.map(one, strengths)


def left_out_groups(fit: Fit, strengths: Array, members: Array) -> Array:
    """As `left_out`, with whole groups left out; `members` `[G, g]` are row numbers, filled up with N.

    >>> fit = Fit(jnp.array([[0.5], [-0.5], [0.5], [-0.5]]), jnp.ones(1), jnp.array([[1.0], [-1.0], [1.0], [-1.0]]))
    >>> alone = left_out_groups(fit, jnp.array([0.5]), jnp.arange(4)[:, None])
    >>> bool(jnp.allclose(alone, left_out(fit, jnp.array([0.5])), atol=1e-6))
    True
    """
    n, dtype = len(fit.u), fit.u.dtype
    inside, outside = fit.inside, fit.outside
    roots = jnp.sqrt(strengths[:, None] / (fit.squares[None] + strengths[:, None]))  # [L, R]

    def group(rows: Array) -> Array:
        real = (rows < n).astype(dtype)
        here = fit.u[jnp.minimum(rows, n - 1)] * real[:, None]  # [g, R]
        unit = (jnp.arange(n, dtype=rows.dtype)[:, None] == rows[None]).astype(dtype)
        away = jnp.where(fit.partial, unit - real[None] / n - dot(fit.u, here.T), 0)  # P's columns, [N, g]
        basis, corner = jnp.linalg.qr(away)
        # Rows of the least squares: U's part, P's part, and e = 0 for what only fills up the group.
        right = [dot(basis.T, outside), jnp.zeros((len(rows), inside.shape[1]), dtype)]

        def solved(root: Array) -> Array:
            left = jnp.concatenate([root[:, None] * here.T, corner, jnp.diag(1 - real)])
            q, r = jnp.linalg.qr(left)
            known = dot(q.T, jnp.concatenate([root[:, None] * inside, *right]))
            return jax.scipy.linalg.solve_triangular(r, known)

        return jax.vmap(solved)(roots)  # [L, g, C]

    lack = jax.lax.map(group, members)  # [G, L, g, C]
    flat = jnp.moveaxis(lack, 1, 0).reshape(len(strengths), -1, inside.shape[1])
    return jnp.zeros((len(strengths), n, inside.shape[1]), dtype).at[:, members.reshape(-1)].set(flat, mode="drop")
