"""PACTran-Gauss: a PAC-Bayes bound on the loss of the best linear head."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tljax.scores.inputs import Labelled, ScoreError, exact, labelled
from tljax.scores.solver import minimised
from tljax.scores.spectrum import spectrum
from tljax.types import Array


def pactran(features: Any, labels: Any, *, strength: float = 1.0, prior: float = 100.0, iterations: int = 500) -> float:
    """*Minus* the published bound, so that here too higher is better.

        min_{W, b} CE(X W + b) + |W|^2 / (2 l N) + 1/2 D C / (l N) * s2 / D * ln(v),
        v = l N / (D C) * (sum_id x_id^2 sum_c p_ic (1 - p_ic) + D C / (l N) + sum_ic p_ic (1 - p_ic))

    X are the centred features, p the probabilities at the minimum, l is `strength`, s2 is `prior`. The pairs (l, s2)
    of the paper are (10, 1000), (1, 100) and (0.1, 10), chosen by the error on a half of the examples.

    The bound does not change when the features are turned, so the head is sought in the span of the examples, of
    min(N, D) dimensions, by L-BFGS.

    Args:
        features: `[N, D]`.
        labels: classes `[N]`.
        strength: l.
        prior: s2.
        iterations: of L-BFGS, at most.

    Raises `ScoreError` as `labelled` says, and for values that are not positive.

    Reference: Ding et al. 2022, arXiv:2203.05126.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 2, 40)
    >>> good, noise = rng.normal(size=(2, 40, 3))
    >>> good[:, 0] += 4 * labels
    >>> pactran(good, labels, prior=1.0) > pactran(noise, labels, prior=1.0)
    True
    """
    if not (strength > 0 and prior > 0 and iterations >= 1):
        raise ScoreError(
            f"strength, prior and iterations must be positive; found {strength!r}, {prior!r}, {iterations!r}"
        )
    data = labelled(features, labels)
    return -float(_bound(data.x, data.y, data.classes, strength, prior, iterations))


@partial(jax.jit, static_argnums=(2, 5))
def _bound(x: Array, y: Array, classes: int, strength: float, prior: float, iterations: int) -> Array:
    n, d = x.shape
    found = spectrum(x)
    rows = found.u * found.s[None]
    penalty = 1 / (jnp.asarray(strength, x.dtype) * n)

    def loss(head: tuple[Array, Array]) -> Array:
        logits = exact(rows, head[0]) + head[1][None]
        fit = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return jnp.mean(fit) + 0.5 * penalty * jnp.sum(head[0] ** 2)

    share = jnp.mean(Labelled(x, y, classes).one_hot, axis=0)
    start = (jnp.zeros((rows.shape[1], classes), x.dtype), jnp.log(share))
    head, least = minimised(loss, start, iterations)
    p = jax.nn.softmax(exact(rows, head[0]) + head[1][None], axis=1)
    spread = jnp.sum(p * (1 - p), axis=1)
    parameters = d * classes
    curvature = jnp.sum(jnp.sum(rows**2, axis=1) * spread) + parameters * penalty + jnp.sum(spread)
    volume = curvature / (penalty * parameters) + 1e-10
    return least + 0.5 * parameters * penalty * (jnp.asarray(prior, x.dtype) / d) * jnp.log(volume)
