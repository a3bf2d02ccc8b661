"""Which of several adapted models is best, told without labels of the target; of each, more is better.

All take what a model gives for the target's examples. They fail in ways of their own: confidence can be had by giving
every example one class (entropy), by guessing well spread (information), or on clusters that are no classes (density).
Look at several, and at the source's validation beside them.
"""

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from tljax.scores.inputs import ScoreError, exact, floats
from tljax.types import Array


def source_validation(
    probabilities: Any, labels: Any, *, measure: Literal["accuracy", "likelihood"] = "accuracy"
) -> float:
    """How right the model still is on examples of the source that were held out.

    Args:
        probabilities: `[N, C]` of the source's validation examples.
        labels: their classes `[N]`, integers in 0..C-1.
        measure: "accuracy", 0..1; or "likelihood", the mean log-probability of the right class in nats: minus the
            validation risk. A right class of probability 0 makes it minus infinity.

    Raises `ScoreError` for probabilities that are none, and labels that are no classes of theirs.

    >>> source_validation([[0.9, 0.1], [0.4, 0.6]], [0, 0])
    0.5
    """
    p, y = distributions(probabilities), np.asarray(labels)
    if measure not in ("accuracy", "likelihood"):
        raise ScoreError(f"measure is 'accuracy' or 'likelihood'; found {measure!r}")
    if y.shape != (len(p),) or y.dtype.kind not in "iu":
        raise ScoreError(f"labels must be [{len(p)}] integers; found {y.dtype} {list(y.shape)}")
    if y.min() < 0 or y.max() >= p.shape[1]:
        raise ScoreError(f"labels go from {y.min()} to {y.max()}; the probabilities are of {p.shape[1]} classes")
    right = np.asarray(p)[np.arange(len(y)), y].astype(np.float64)
    if measure == "likelihood":
        with np.errstate(divide="ignore"):
            return float(np.mean(np.log(right)))
    return float(np.mean(np.asarray(jnp.argmax(p, axis=1)) == y))


def certainty(probabilities: Any) -> float:
    """Minus the mean entropy of the predictions, in nats: ``mean_i sum_c p_ic log p_ic``, from -log C to 0.

    Args:
        probabilities: `[N, C]` of the target's examples.

    Raises `ScoreError` for probabilities that are none.

    Reference: Grandvalet and Bengio 2005; as a validator Morerio et al. 2018, arXiv:1711.10288.

    >>> certainty([[1.0, 0.0], [0.0, 1.0]]), round(certainty([[0.5, 0.5]]), 4)
    (0.0, -0.6931)
    """
    return 0.0 - float(jnp.mean(_entropy(distributions(probabilities))))


def information(probabilities: Any) -> float:
    """The mutual information of example and class, in nats: the entropy of the mean prediction less the mean entropy.

        H(mean_i p_i) - mean_i H(p_i),    from 0 to log C

    What information maximisation raises: sure of each, and not of one class for all.

    Args:
        probabilities: `[N, C]` of the target's examples.

    Raises `ScoreError` for probabilities that are none.

    Reference: Bridle et al. 1992; Liang et al. 2020, arXiv:2002.08546.

    >>> round(information([[1.0, 0.0], [0.0, 1.0]]), 4), information([[0.5, 0.5], [0.5, 0.5]])
    (0.6931, 0.0)
    """
    p = distributions(probabilities)
    return float(_entropy(jnp.mean(p, axis=0, keepdims=True))[0] - jnp.mean(_entropy(p)))


def nuclear_norm(probabilities: Any) -> float:
    """The batch nuclear norm over the number of examples: ``|P|_* / N``, which grows with certainty and variety.

    At most ``sqrt(min(N, C) / N)``, so it compares models on the same examples only.

    Args:
        probabilities: P, `[N, C]` of the target's examples.

    Raises `ScoreError` for probabilities that are none.

    Reference: Cui et al. 2020, arXiv:2003.12237.

    >>> round(nuclear_norm([[1.0, 0.0], [0.0, 1.0]]), 4), round(nuclear_norm([[1.0, 0.0], [1.0, 0.0]]), 4)
    (1.0, 0.7071)
    """
    p = distributions(probabilities)
    return float(jnp.sum(jnp.linalg.svd(p, compute_uv=False)) / len(p))


def soft_density(outputs: Any, *, temperature: float = 0.05, chunk: int = 1024) -> float:
    """Soft neighbourhood density: the mean entropy of each example's similarities to the others, in nats.

        S = Z Z^T / temperature without the diagonal, rows of Z of length 1;    mean_i H(softmax_j S_ij)

    The authors' script, beside that, adds 1e-5 to each probability under the logarithm, and in place of leaving an
    example out of its own row gives it the similarity -1: here the entropy is exact.

    Large where examples have many neighbours that are about as near: dense clusters. From 0 to log(N - 1).

    Args:
        outputs: Z, `[N, C]`: the authors take the probabilities of the target's examples; features will do.
        temperature: positive.
        chunk: so many rows of S are held at once.

    Raises `ScoreError` for fewer than two examples, values that are not finite, or options that are not positive.

    Reference: Saito et al. 2021, arXiv:2108.10860.

    >>> tight, loose = [[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3, [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]] * 2
    >>> soft_density(tight) > soft_density(loose)
    True
    """
    z = floats(outputs, "outputs")
    if not temperature > 0 or chunk < 1 or len(z) < 2:
        raise ScoreError(
            f"two examples or more, and temperature and chunk positive; found {len(z)}, {temperature!r}, {chunk!r}"
        )
    length = jnp.linalg.norm(z, axis=1, keepdims=True)
    z = z / jnp.where(length > 0, length, 1)
    total = 0.0
    for first in range(0, len(z), chunk):
        part = z[first : first + chunk]
        alike = exact(part, z.T) / jnp.asarray(temperature, z.dtype)
        own = (first + jnp.arange(len(part)))[:, None] == jnp.arange(len(z))[None]
        alike = jnp.where(own, -jnp.inf, alike)
        weights = jnp.exp(alike - jnp.max(alike, axis=1, keepdims=True))
        total += float(jnp.sum(_entropy(weights / jnp.sum(weights, axis=1, keepdims=True))))
    return total / len(z)


def distributions(probabilities: Any) -> Array:
    """`probabilities` `[N, C]` as a floating matrix.

    Raises `ScoreError` unless they are at least 0 and sum to 1 in every row.

    >>> distributions([[0.25, 0.75]]).tolist()
    [[0.25, 0.75]]
    """
    p = floats(probabilities, "probabilities")
    sums = jnp.sum(p, axis=1)
    if bool(jnp.any(p < 0)) or bool(jnp.any(jnp.abs(sums - 1) > 1e-3)):
        raise ScoreError(
            "probabilities must be at least 0 and sum to 1 in every row; found sums from "
            f"{float(jnp.min(sums)):g} to {float(jnp.max(sums)):g}. Of logits take jax.nn.softmax first"
        )
    return p


def _entropy(p: Array) -> Array:
    """Of each row, with 0 log 0 = 0."""
    return -jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1)), 0), axis=-1)
