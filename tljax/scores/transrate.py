"""TransRate: the bits that features take, less those that they take within classes."""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from tljax.scores.groups import class_groups
from tljax.scores.inputs import ScoreError, labelled
from tljax.types import Array


def transrate(
    features: Any,
    labels: Any,
    *,
    epsilon: float = 1e-4,
    weights: Literal["share", "equal"] = "share",
    normalize: bool = False,
) -> float:
    """``R(Z) - sum_c w_c R(Z_c)`` with the coding rate ``R(Z) = 1/2 log det(I + Z^T Z / (n epsilon))``, in nats.

    Z are the features with their common mean taken off. Higher is better. It grows with the scale of the features,
    so models compare only with `normalize`.

    Args:
        features: `[N, D]`.
        labels: classes `[N]`.
        epsilon: the squared distortion allowed.
        weights: of the classes, "share" for n_c / N, or "equal" for 1 / C as in the paper's snippet.
        normalize: bring the features' total variance to 1 first.

    Raises `ScoreError` as `labelled` says, and for an `epsilon` that is not positive.

    Reference: Huang et al. 2022, arXiv:2106.09362.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat([0, 1, 2], 20)
    >>> good, noise = np.eye(3)[labels] + 0.1 * rng.normal(size=(60, 3)), rng.normal(size=(60, 3))
    >>> transrate(good, labels, normalize=True) > transrate(noise, labels, normalize=True)
    True
    """
    if not epsilon > 0 or weights not in ("share", "equal"):
        raise ScoreError(f"epsilon must be positive, weights 'share' or 'equal'; found {epsilon!r} and {weights!r}")
    data = labelled(features, labels)
    indices, real = class_groups(data.y, data.classes)
    return float(_transrate(data.x, indices, real, epsilon, weights == "share", normalize))


@partial(jax.jit, static_argnums=(4, 5))
def _transrate(x: Array, indices: Array, real: Array, epsilon: float, by_share: bool, normalize: bool) -> Array:
    z = x - jnp.mean(x, axis=0, keepdims=True)
    if normalize:
        total = jnp.sum(z**2) / len(z)
        z = z / jnp.sqrt(jnp.where(total > 0, total, 1))
    counts = jnp.sum(real, axis=1).astype(x.dtype)
    own = jax.lax.map(lambda c: _rate(jnp.where(c[1][:, None], z[c[0]], 0), c[2], epsilon), (indices, real, counts))
    share = counts / len(x) if by_share else jnp.full_like(counts, 1 / len(counts))
    return _rate(z, jnp.asarray(len(x), x.dtype), epsilon) - jnp.sum(share * own)


def _rate(z: Array, n: Array, epsilon: float) -> Array:
    s = jnp.linalg.svd(z, compute_uv=False)
    return 0.5 * jnp.sum(jnp.log1p(s**2 / (n * jnp.asarray(epsilon, z.dtype))))
