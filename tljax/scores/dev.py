"""DEV: the risk on the target, estimated from the source's validation examples that look like it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tljax.scores.inputs import ScoreError, exact, floats
from tljax.scores.solver import minimised
from tljax.types import Array


def dev(
    losses: Any,
    valid_features: Any,
    train_features: Any,
    target_features: Any,
    *,
    penalty: float = 1e-3,
) -> float:
    """*Minus* the deep embedded validation risk, so that here too higher is better.

        w_j = (N_train / N_target) (1 - D(f_j)) / D(f_j),    risk = mean(w l) + eta mean(w) - eta,
        eta = -cov(w l, w) / var(w)

    D is the probability of "source" by a logistic regression that tells the source's training features from the
    target's. w is how much more often the target has such an example, which is 1 on average: so eta is a control
    variate, that takes off the error of the estimate which goes with that of mean(w). Where all weights are the same
    eta is 0, and the risk the mean loss.

    The features are those of the model that is judged, and so are the losses: 0 or 1 for errors, or cross-entropies.

    Args:
        losses: l, `[M]`, of the source's validation examples.
        valid_features: f, `[M, D]`, of the same.
        train_features: `[N_train, D]`, of the source's training examples.
        target_features: `[N_target, D]`.
        penalty: of the squared weights of the logistic regression, on features of unit variance.

    Raises `ScoreError` for shapes that do not fit, values that are not finite, or a penalty that is not positive.

    Reference: You et al. 2019, Towards accurate model selection in deep unsupervised domain adaptation, ICML.

    >>> rng = np.random.default_rng(0)
    >>> train, valid = rng.normal(size=(2, 200, 1))
    >>> target = rng.normal(size=(200, 1)) + 1
    >>> wrong_there, wrong_elsewhere = (valid[:, 0] > 0.5) * 1.0, (valid[:, 0] < -0.5) * 1.0
    >>> dev(wrong_there, valid, train, target) < dev(wrong_elsewhere, valid, train, target)
    True
    """
    if not penalty > 0:
        raise ScoreError(f"penalty must be positive; found {penalty!r}")
    given = {"valid_features": valid_features, "train_features": train_features, "target_features": target_features}
    valid, train, target = (floats(features, name) for name, features in given.items())
    widths = {name: int(x.shape[1]) for name, x in zip(given, (valid, train, target))}
    if len(set(widths.values())) > 1:
        raise ScoreError(f"the features must have one width; found {widths}")
    loss = np.asarray(losses, np.float64)
    if loss.shape != (len(valid),) or not np.all(np.isfinite(loss)):
        raise ScoreError(f"losses must be [{len(valid)}] finite numbers, one an example; found shape {loss.shape}")
    ratio = np.asarray(_log_odds(train, target, valid, penalty), np.float64)  # log (1 - D) / D
    weights = len(train) / len(target) * np.exp(ratio)
    return -_risk(weights, loss)


def _risk(weights: np.ndarray, losses: np.ndarray) -> float:
    weighted = weights * losses
    spread = np.var(weights)
    apart = spread > (1e-12 * np.mean(weights)) ** 2
    eta = -np.mean((weighted - weighted.mean()) * (weights - weights.mean())) / spread if apart else 0.0
    return float(weighted.mean() + eta * weights.mean() - eta)


@jax.jit
def _log_odds(source: Array, target: Array, queries: Array, penalty: float) -> Array:
    """The logarithm `[M]` of the odds that a query is of the target, by logistic regression."""
    both = jnp.concatenate([source, target.astype(source.dtype)])
    mean, std = jnp.mean(both, axis=0), jnp.std(both, axis=0)
    # What the mean of a constant column is off by would pass for spread.
    rounding = jnp.max(jnp.abs(both), axis=0) * (jnp.finfo(both.dtype).eps * len(both) ** 0.5)
    scale = jnp.where(std > rounding, 1 / jnp.where(std > rounding, std, 1), 0)
    x = (both - mean[None]) * scale[None]
    sign = jnp.where(jnp.arange(len(x)) < len(source), -1, 1).astype(x.dtype)

    def loss(head: tuple[Array, Array]) -> Array:
        margin = sign * (exact(x, head[0][:, None])[:, 0] + head[1])
        return jnp.mean(jax.nn.softplus(-margin)) + jnp.asarray(penalty, x.dtype) * jnp.sum(head[0] ** 2) / 2

    (weights, bias), _ = minimised(loss, (jnp.zeros_like(mean), jnp.zeros((), x.dtype)), 500)
    return exact((queries.astype(x.dtype) - mean[None]) * scale[None], weights[:, None])[:, 0] + bias
