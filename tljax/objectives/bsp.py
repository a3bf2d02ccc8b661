"""BSP: no direction of the features outgrows the others."""

import jax.numpy as jnp

from tljax.objectives.checks import fitting
from tljax.objectives.describe import describe
from tljax.objectives.mean import widened
from tljax.objectives.stream import output_of
from tljax.objectives.term import Metrics, Scene, Term, stateless
from tljax.types import Array


def spectral_penalty(source: Array, target: Array) -> Array:
    """The squares of the largest singular values of two batches of features: ``s_1(F_s)^2 + s_1(F_t)^2``.

    The gradient is ``2 s_1 u_1 v_1^T``, finite also where singular values are equal or zero.

    Args:
        source: F_s, `[N, D]`.
        target: F_t, `[M, D]`.

    Raises:
        LabelError: features of another shape.

    Reference: Chen et al. 2019, "Transferability vs. Discriminability: Batch Spectral Penalization", ICML.

    >>> import jax.numpy as jnp
    >>> print(spectral_penalty(jnp.diag(jnp.array([3.0, 1.0])), jnp.zeros((2, 2))))
    9.0
    """
    fitting("spectral_penalty", source=(source, "N D"), target=(target, "M D"))
    largest = [jnp.linalg.svd(widened(x), compute_uv=False)[0] for x in (source, target)]
    return jnp.square(largest[0]) + jnp.square(largest[1])


def bsp(*, source: str = "source", target: str = "target") -> Term:
    """BSP: `spectral_penalty` on the features of both domains, beside an adversarial term.

    In those the largest singular directions transfer best and crowd out the rest, which tells the classes apart. The
    published weight is 2e-4, for digits 1e-4: ``dann() + 1e-4 * bsp()``. Both domains go through the model as one
    batch. All rows count, padding included. Logs `bsp`.

    Raises:
        StreamError: the step has no such streams.

    Reference: Chen et al. 2019, "Transferability vs. Discriminability: Batch Spectral Penalization", ICML.

    >>> print(1e-4 * bsp())
    0.0001 * bsp()
    """
    text = describe(bsp, source=source, target=target)

    def value(scene: Scene) -> tuple[Array, Metrics]:
        penalty = spectral_penalty(*(output_of(scene, stream, text).features for stream in (source, target)))
        return penalty, {"bsp": penalty}

    return stateless(value, text, source, target, joint=(source, target))
