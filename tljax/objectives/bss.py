"""Batch spectral shrinkage: the weakest directions of the features are made weaker still."""

import jax.numpy as jnp

from tljax.objectives.checks import above_zero
from tljax.objectives.describe import describe
from tljax.objectives.spectrum import squared_spectrum
from tljax.objectives.stream import output_of, prefix
from tljax.objectives.term import Metrics, Scene, Term, stateless
from tljax.types import Array


def batch_spectral_shrinkage(features: Array, *, k: int = 1) -> Array:
    """The sum of the `k` smallest squared singular values of the features of a batch, a scalar.

    ``sum_{i <= k} s_{-i}(F)^2``. A batch of B < D examples has B singular values, and the smallest of these count.
    Singular values alone are differentiated, so that equal or vanishing ones give finite gradients: ``2 s u v^T``
    each, and 0 where s is.

    Args:
        features: F, `[B, D]`.
        k: from 1 to ``min(B, D)``.

    Raises:
        SpectrumError: features that are no matrix, or too few singular values.

    Reference: Chen et al. 2019, Catastrophic forgetting meets negative transfer: batch spectral shrinkage for safe
    transfer learning, NeurIPS 2019.

    >>> import jax
    >>> features = jnp.array([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    >>> print(batch_spectral_shrinkage(features), batch_spectral_shrinkage(features, k=2))
    4.0 13.0
    """
    return jnp.sum(squared_spectrum("batch spectral shrinkage", features, k)[-k:])


def bss(*, k: int = 1, stream: str = "train") -> Term:
    """Batch spectral shrinkage of the features of `stream`, as `batch_spectral_shrinkage`. Logs `bss`.

    The published weight is 1e-3: ``cross_entropy() + 1e-3 * bss()``. `LabelError` for a `k` that is not above 0.

    >>> print(1e-3 * bss())
    0.001 * bss()
    """
    text = describe(bss, k=k, stream=stream)
    above_zero(text, k=k)

    def value(scene: Scene) -> tuple[Array, Metrics]:
        loss = batch_spectral_shrinkage(output_of(scene, stream, text).features, k=k)
        return loss, {f"{prefix(stream)}bss": loss}

    return stateless(value, text, stream)
