"""Gaussian kernels, and the maximum mean discrepancy that they measure."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tljax.objectives.domains import DomainError, compared
from tljax.types import Array


class Gaussians(NamedTuple):
    """A sum of Gaussian kernels: ``k(x, y) = sum_u exp(-|x - y|^2 / (2 s_u v))``.

    >>> Gaussians(scales=(0.5, 1.0))
    Gaussians(scales=(0.5, 1.0), variance=None)
    """

    scales: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0, 2.0)
    """s, one for each kernel."""
    variance: float | None = None
    """v. None: the mean squared distance of all ``(N + M)^2`` pairs of rows in the batch, in which a row is paired with
    itself too; no gradient flows through it."""


def check_kernels(term: str, *kernels: Gaussians) -> None:
    """Raises `DomainError`, naming the term, for what is no `Gaussians`.

    >>> check_kernels("dan", 0.5)
    Traceback (most recent call last):
    tljax.objectives.domains.DomainError: dan: a kernel is Gaussians(scales=(0.5, 1.0)) or the like; found 0.5
    """
    for kernel in kernels:
        if not isinstance(kernel, Gaussians):
            raise DomainError(f"{term}: a kernel is Gaussians(scales=(0.5, 1.0)) or the like; found {kernel!r}")
        widths = [*kernel.scales, *(() if kernel.variance is None else (kernel.variance,))]
        if not kernel.scales or not all(isinstance(w, jax.core.Tracer) or 0 < w < math.inf for w in widths):
            raise DomainError(
                f"{term}: a kernel has one scale or more, and they and its variance are above 0; found {kernel}"
            )


def squared_distances(x: Array, y: Array) -> Array:
    """``|x_i - y_j|^2`` `[N, M]` of rows `[N, D]` and `[M, D]`, never below 0.

    Through one product of matrices, so that nothing of N * M * D numbers is held. It cancels where rows lie close
    together and far from the origin: move the origin among them first.

    >>> print(squared_distances(jnp.array([[0.0, 0.0], [3.0, 4.0]]), jnp.zeros((1, 2))).tolist())
    [[0.0], [25.0]]
    """
    product = jnp.matmul(x, y.T, precision="highest")
    return jnp.maximum(jnp.sum(x * x, axis=1)[:, None] + jnp.sum(y * y, axis=1)[None] - 2 * product, 0)


def quadratic_mmd(sources: Sequence[Array], targets: Sequence[Array], kernels: Sequence[Gaussians]) -> Array:
    """The unbiased estimate of MMD^2 from all pairs of rows; the kernel is the product over the layers given.

    ``mean_{i != j} K(s_i, s_j) + mean_{i != j} K(t_i, t_j) - 2 mean_ij K(s_i, t_j)``, where N may differ from M.

    Args:
        sources: features `[N, D_l]` of each layer l.
        targets: features `[M, D_l]`.
        kernels: one for each layer.

    Raises:
        DomainError: shapes that do not fit.

    Reference: Gretton et al. 2012, JMLR 13.

    >>> x = jnp.array([[0.0], [1.0], [2.0]])
    >>> print(quadratic_mmd([x], [x + 9], [Gaussians((1.0,), variance=1.0)]).round(4))
    0.8989
    """
    within, across = [], []
    for s, t, kernel, v in _layers(sources, targets, kernels):
        own = [_around(z, z) for z in (s, t)]  # distances within a domain keep their digits however far the other is
        within.append([_values(squared_distances(z, z), kernel, v) for z in own])
        across.append(_values(squared_distances(s, t), kernel, v))
    near = [_mean_off_diagonal(_product(list(values))) for values in zip(*within)]
    return near[0] + near[1] - 2 * jnp.mean(_product(across))


def linear_mmd(sources: Sequence[Array], targets: Sequence[Array], kernels: Sequence[Gaussians]) -> Array:
    """The unbiased estimate of MMD^2 from B quadruples of neighbouring rows: O(B D) in time and memory.

    ``mean_i [K(s_i, s_i+1) + K(t_i, t_i+1) - K(s_i, t_i+1) - K(s_i+1, t_i)]``, where the row after the last is the
    first. It varies far more from batch to batch than `quadratic_mmd`. Arguments as there, with N = M = B.

    Raises:
        DomainError: shapes that do not fit, or N other than M.

    Reference: Gretton et al. 2012, NeurIPS.

    >>> x = jnp.array([[0.0], [1.0], [2.0]])
    >>> print(linear_mmd([x], [x + 9], [Gaussians((1.0,), variance=1.0)]).round(4))
    0.8989
    """
    quadruples: list[list[Array]] = [[], [], [], []]
    for s, t, kernel, v in _layers(sources, targets, kernels, equal=True):
        next_s, next_t = jnp.roll(s, -1, axis=0), jnp.roll(t, -1, axis=0)
        for values, (a, b) in zip(quadruples, ((s, next_s), (t, next_t), (s, next_t), (next_s, t))):
            values.append(_values(jnp.sum(jnp.square(a - b), axis=1), kernel, v))
    ss, tt, st, ts = (_product(values) for values in quadruples)
    return jnp.mean(ss + tt - st - ts)


def _layers(
    sources: Sequence[Array], targets: Sequence[Array], kernels: Sequence[Gaussians], *, equal: bool = False
) -> list[tuple[Array, Array, Gaussians, Array]]:
    """For each layer its rows of both domains, moved around 0 together, the kernel and its v."""
    if not len(sources) == len(targets) == len(kernels) > 0:
        raise DomainError(
            "one kernel is needed for each layer, and each layer of both domains; found "
            f"{len(sources)} of the source, {len(targets)} of the target and {len(kernels)} kernels"
        )
    found = []
    for source, target, kernel in zip(sources, targets, kernels):
        s, t = compared(source, target, "the maximum mean discrepancy", equal=equal)
        rows = jnp.concatenate([s, t])
        found.append((_around(s, rows), _around(t, rows), kernel, _variance(rows, kernel)))
    return found


def _around(x: Array, rows: Array) -> Array:
    return x - jax.lax.stop_gradient(jnp.mean(rows, axis=0, keepdims=True))


def _variance(rows: Array, kernel: Gaussians) -> Array:
    """The mean of |a - b|^2 over all pairs is twice that of |a - mean|^2: no pairs are needed. 1 where rows are equal.

    The mean of equal rows may be a few roundings beside them: what is no larger counts as 0.
    """
    if kernel.variance is not None:
        return jnp.asarray(kernel.variance, rows.dtype)
    rows = jax.lax.stop_gradient(rows)
    mean = 2 * jnp.mean(jnp.sum(jnp.square(_around(rows, rows)), axis=1))
    rounding = 8 * jnp.finfo(rows.dtype).eps * jnp.max(jnp.abs(rows))
    return jnp.where(mean > rows.shape[1] * jnp.square(rounding), mean, 1)


def _values(distances: Array, kernel: Gaussians, variance: Array) -> Array:
    parts = [jnp.exp(-distances / (2 * scale * variance)) for scale in kernel.scales]
    return sum(parts[1:], start=parts[0])


def _product(layers: list[Array]) -> Array:
    product = layers[0]
    for values in layers[1:]:
        product = product * values
    return product


def _mean_off_diagonal(k: Array) -> Array:
    n = len(k)
    return jnp.sum(jnp.where(jnp.eye(n, dtype=bool), 0, k)) / (n * (n - 1))
