r"""Linear discriminant analysis with a shrunk covariance.

Classes are Gaussians with one covariance :math:`\Sigma = \sum_c \pi_c \Sigma_c`. With :math:`\sigma_c` the deviations
of the features of a class, :math:`S_c` its covariance and :math:`\delta_c` the shrinkage of Ledoit and Wolf for its
standardised features, :math:`\Sigma_c = (1 - \delta_c) S_c + \delta_c \operatorname{diag}(\sigma_c^2)`. So
:math:`\Sigma = A^T A + \Delta` with the rows of A the centred examples and a diagonal :math:`\Delta`; where there are
more features than examples it is inverted through a matrix of the examples (Woodbury), and never formed.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from tljax.probes.inputs import ABSENT, ProbeError, class_labels, finite_features
from tljax.probes.linear import Linear


def lda(features: Any, labels: Any, *, num_classes: int | None = None) -> Linear:
    r"""Linear discriminant analysis; its scores are log posteriors, but for what all classes share.

    .. math:: (x - m) \cdot \Sigma^{-1} (m_c - m) - (m_c - m) \cdot \Sigma^{-1} (m_c - m) / 2 + \log \pi_c

    with :math:`m_c` the mean and :math:`\pi_c` the share of a class. The probabilities are those of scikit-learn's
    ``LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")``, with one difference: the shrinkage of a class of
    two examples would be 0 whatever they are, so it takes that of the residuals of all classes. Computed in double
    precision on the host. A class without examples has probability 0.

    Args:
      features: `[N, D]`; D may be larger than N.
      labels: classes `[N]`, integers or names.
      num_classes: C; by default as many as the largest label needs.

    Raises `ProbeError` for shapes that do not fit, features that are not finite, labels outside of the classes or all
    of one class, and where every class has a single example, or equal ones: nothing tells the covariance.

    Reference: Ledoit and Wolf 2004, A well-conditioned estimator for large-dimensional covariance matrices,
    doi:10.1016/S0047-259X(03)00096-4.

    >>> found = lda([[0.0, 1.0], [1.0, 3.0], [2.0, 2.0], [4.0, 0.0], [5.0, 2.0], [6.0, 1.0]], [0, 0, 0, 1, 1, 1])
    >>> jnp.argmax(found.predict([[1.0, 1.0], [6.0, 2.0]]), axis=1).tolist()
    [0, 1]
    """
    given = finite_features(features)
    y, classes = class_labels(labels, len(given), num_classes)
    x = np.asarray(given, np.float64)
    counts = np.bincount(y, minlength=len(classes))
    present = np.flatnonzero(counts)
    mean = x.mean(0)
    means = np.stack([x[y == c].mean(0) for c in present]) - mean
    rows, diagonal = _within(x, y, present)
    weights = _solved(rows, diagonal, means.T)  # [D, present]
    own = np.log(counts[present] / len(x)) - np.sum(means.T * weights, axis=0) / 2 - mean @ weights
    full, bias = np.zeros((x.shape[1], len(classes))), np.full(len(classes), ABSENT)
    full[:, present], bias[present] = weights, own
    return Linear(jnp.asarray(full, given.dtype), jnp.asarray(bias, given.dtype), classes)


def _within(x: np.ndarray, y: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The A `[N, D]` and the diagonal `[D]` of the covariance within classes."""
    residuals, scales = np.empty_like(x), {}
    for c in present:
        residuals[y == c] = x[y == c] - x[y == c].mean(0)
        deviation = residuals[y == c].std(0)
        still = deviation <= 10 * np.finfo(np.float64).eps * np.abs(x[y == c]).max(0)
        residuals[np.ix_(y == c, still)] = 0
        scales[c] = np.where(still, 1.0, deviation)
    if not residuals.any():
        raise ProbeError(
            "the examples of every class are one, or all equal: LDA has no covariance to learn from them; give a "
            "class two or more examples, or use centroid() or ridge()"
        )
    standard = residuals / np.stack([scales[c] for c in present])[np.searchsorted(present, y)]
    whole = _shrinkage(standard) if np.any(np.bincount(y) == 2) else 0.0
    rows, diagonal = np.empty_like(x), np.zeros(x.shape[1])
    for c in present:
        here = y == c
        share, shrinkage = here.mean(), whole if here.sum() == 2 else _shrinkage(standard[here])
        rows[here] = residuals[here] * np.sqrt((1 - shrinkage) / len(x))  # share / count is 1 / N
        diagonal += share * shrinkage * np.mean(np.square(standard[here])) * np.square(scales[c])
    return rows, diagonal


def _shrinkage(z: np.ndarray) -> float:
    """How far the covariance of centred `z` `[n, D]` is drawn to a multiple of the identity, 0..1."""
    n, width = z.shape
    if width == 1:
        return 0.0
    mu = np.mean(np.square(z))
    gram = z @ z.T if n < width else z.T @ z
    square = np.sum(np.square(gram)) / n**2  # of the covariance's entries
    spread = np.sum(np.square(np.sum(np.square(z), axis=1))) / n - square
    distance = (square - width * mu**2) / width
    noise = min(spread / (n * width), distance)
    return float(noise / distance) if noise > 0 else 0.0


def _solved(rows: np.ndarray, diagonal: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``(rows.T @ rows + diag(diagonal))^-1 @ right``; by least squares where there is no inverse."""
    if len(rows) >= rows.shape[1] or not np.all(diagonal > 0):
        return np.linalg.lstsq(rows.T @ rows + np.diag(diagonal), right, rcond=None)[0]
    scaled = rows / diagonal
    inner = np.eye(len(rows)) + scaled @ rows.T
    alone = right / diagonal[:, None]
    return alone - scaled.T @ np.linalg.solve(inner, rows @ alone)
