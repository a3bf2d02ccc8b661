"""Sliced Wasserstein distance: features whose shadows on random lines agree."""

import jax
import jax.numpy as jnp
import numpy as np

from tljax.objectives.describe import describe
from tljax.objectives.domains import DomainError, compared
from tljax.objectives.stream import output_of
from tljax.objectives.term import Metrics, Scene, Term, stateless
from tljax.types import Array, Key


def sliced_wasserstein(source: Array, target: Array, key: Key, *, projections: int = 128) -> Array:
    """The mean over random lines of the squared Wasserstein-2 distance of the projected batches, a scalar.

    On a line the cheapest way from one set of numbers to the other pairs them in order, so with N = M it is
    ``mean_l mean_i (sorted(S u_l)_i - sorted(T u_l)_i)^2``, u_l uniform among the directions. Where N differs from M,
    each row carries 1/N or 1/M and is divided as needed.

    Args:
        source: S, features `[N, D]`.
        target: T, features `[M, D]`.
        key: draws the lines.
        projections: their number.

    Raises:
        DomainError: shapes that do not fit, fewer than two rows, or no line.

    Reference: Rabin et al. 2011; as an adaptation loss on features in pytorch-adapt, which this form follows; Lee et
    al. 2019, arXiv:1903.04064, take the same distance between the outputs of two classifiers.

    >>> x = jnp.array([[0.0], [1.0], [2.0]])
    >>> print(sliced_wasserstein(x, x[::-1] + 3, jax.random.key(0)))  # all lines are one line here
    9.0
    """
    source, target = compared(source, target, "sliced_wasserstein")
    _check_lines(projections, "sliced_wasserstein")
    lines = jax.random.normal(key, (source.shape[1], projections), source.dtype)
    lines = lines / jnp.linalg.norm(lines, axis=0, keepdims=True)
    s, t = (jnp.sort(jnp.matmul(x, lines, precision="highest"), axis=0) for x in (source, target))
    i, j, share = _pairing(len(s), len(t))
    return jnp.mean(jnp.sum(jnp.asarray(share, s.dtype)[:, None] * jnp.square(s[i] - t[j]), axis=0))


def swd(*, projections: int = 128, source: str = "source", target: str = "target") -> Term:
    """The features of `source` and `target` look alike on random lines, drawn anew each step (`sliced_wasserstein`).

    The domains go through the model one by one. Logs `swd`.

    Raises:
        DomainError: no line.

    Reference: Rabin et al. 2011; Lee et al. 2019, arXiv:1903.04064.

    >>> print(swd(projections=64))
    swd(projections=64)
    """
    text = describe(swd, projections=projections, source=source, target=target)
    _check_lines(projections, "swd")

    def value(scene: Scene) -> tuple[Array, Metrics]:
        s, t = (output_of(scene, stream, text).features for stream in (source, target))
        loss = sliced_wasserstein(s, t, scene.key, projections=projections)
        return loss, {"swd": loss}

    return stateless(value, text, source, target)


def _check_lines(projections: int, of: str) -> None:
    if projections != int(projections) or projections < 1:
        raise DomainError(f"{of} needs a whole number of projections, one or more; found projections={projections}")


def _pairing(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Who goes to whom among n and m sorted numbers, and with what share of all."""
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)  # in units of 1 / (n m)
    starts = np.concatenate([[0], ends[:-1]])
    return starts // m, starts // n, (ends - starts) / (n * m)
