"""BSP: no direction of the features outgrows the others."""

import jax.numpy as jnp

from tljax.objectives.checks import above_zero, fitting
from tljax.objectives.describe import describe
from tljax.objectives.spectrum import squared_spectrum
from tljax.objectives.stream import output_of
from tljax.objectives.term import Metrics, Scene, Term, stateless
from tljax.types import Array


def spectral_penalty(source: Array, target: Array, *, k: int = 1) -> Array:
    """The squares of the `k` largest singular values of two batches of features, summed: a scalar.

    ``sum_{i <= k} s_i(F_s)^2 + s_i(F_t)^2``. The gradient is the sum of ``2 s_i u_i v_i^T``, finite also where singular
    values are equal or zero.

    Args:
        source: F_s, `[N, D]`.
        target: F_t, `[M, D]`.
        k: how many, from 1 to the smallest of N, M and D.

    Raises:
        LabelError: features of another shape.
        SpectrumError: too few singular values.

    Reference: Chen et al. 2019, "Transferability vs. Discriminability: Batch Spectral Penalization", ICML.

    >>> import jax.numpy as jnp
    >>> features = jnp.diag(jnp.array([3.0, 1.0]))
    >>> print(spectral_penalty(features, jnp.zeros((2, 2))), spectral_penalty(features, features, k=2))
    9.0 20.0
    """
    fitting("spectral_penalty", source=(source, "N D"), target=(target, "M D"))
    of_source, of_target = (squared_spectrum("spectral_penalty", x, k)[:k] for x in (source, target))
    return jnp.sum(of_source) + jnp.sum(of_target)


def bsp(*, k: int = 1, source: str = "source", target: str = "target") -> Term:
    """BSP: `spectral_penalty` on the features of both domains, beside an adversarial term.

    In those the largest singular directions transfer best and crowd out the rest, which tells the classes apart. The
    published weight is 2e-4, for digits 1e-4, and k is 1: ``dann() + 1e-4 * bsp()``. Both domains go through the model
    as one batch. All rows count, padding included. Logs `bsp`.

    Raises:
        LabelError: `k` is not above 0.
        SpectrumError: the batches of features have fewer singular values than `k`.
        StreamError: the step has no such streams.

    Reference: Chen et al. 2019, "Transferability vs. Discriminability: Batch Spectral Penalization", ICML.

    >>> print(1e-4 * bsp())
    0.0001 * bsp()
    """
    text = describe(bsp, k=k, source=source, target=target)
    above_zero(text, k=k)

    def value(scene: Scene) -> tuple[Array, Metrics]:
        features = (output_of(scene, stream, text).features for stream in (source, target))
        penalty = spectral_penalty(*features, k=k)
        return penalty, {"bsp": penalty}

    return stateless(value, text, source, target, joint=(source, target))
