"""AFN: features that grow long in both domains."""

import jax
import jax.numpy as jnp

from tljax.objectives.checks import above_zero, fitting
from tljax.objectives.describe import describe
from tljax.objectives.mean import added, weighted_mean, widened
from tljax.objectives.stream import name_of
from tljax.objectives.term import Metrics, Scene, Term, stateless
from tljax.types import Array


def feature_norms(features: Array) -> Array:
    """The length of each row of `[B, D]`, `[B]`; at a row of zeros the gradient is 0.

    Raises `LabelError` for features of another shape.

    >>> import jax, jax.numpy as jnp
    >>> print(feature_norms(jnp.array([[3.0, 4.0], [0.0, 0.0]])))
    [5. 0.]
    >>> print(jax.grad(lambda x: feature_norms(x).sum())(jnp.zeros((1, 2))))
    [[0. 0.]]
    """
    fitting("the feature norm", features=(features, "B D"))
    squares = jnp.sum(jnp.square(widened(features)), axis=-1)
    long = squares > 0
    return jnp.where(long, jnp.sqrt(jnp.where(long, squares, 1)), 0)


def adaptive_feature_norm(features: Array, weight: Array | None = None, *, delta: float = 1.0) -> Array:
    """The stepwise feature norm loss, a scalar: each row is to be `delta` longer than it is.

    ``mean_i (|f_i| - stop(|f_i|) - delta)^2``. The value is ``delta^2`` whatever the features are; only the gradient
    says anything: ``-2 delta f_i / (B |f_i|)``.

    Args:
        features: `[B, D]`.
        weight: `[B]`, 0 for padding; None for all ones.
        delta: the length to be gained, in units of the features.

    Reference: Xu et al. 2019, arXiv:1811.07456.

    >>> import jax.numpy as jnp
    >>> print(adaptive_feature_norm(jnp.array([[3.0, 4.0]]), delta=0.5))
    0.25
    """
    norms = feature_norms(features)
    return weighted_mean(jnp.square(norms - jax.lax.stop_gradient(norms) - delta), weight)


def hard_feature_norm(features: Array, weight: Array | None = None, *, radius: float = 25.0) -> Array:
    """The hard feature norm loss, a scalar: the mean length of the rows is to be `radius`.

    ``(mean_i |f_i| - radius)^2``. Arguments as of `adaptive_feature_norm`; the radius in units of the features.

    Reference: Xu et al. 2019, arXiv:1811.07456, equation 2.

    >>> import jax.numpy as jnp
    >>> print(hard_feature_norm(jnp.array([[3.0, 4.0], [0.0, 1.0]]), radius=5.0))
    4.0
    """
    return jnp.square(weighted_mean(feature_norms(features), weight) - radius)


def afn(*, delta: float = 1.0, radius: float | None = None, source: str = "source", target: str = "target") -> Term:
    """SAFN: the features of `source` and `target` grow longer step by step (`adaptive_feature_norm`, of both).

    With a `radius` it is HAFN: the mean length of each domain is drawn to that (`hard_feature_norm`), and `delta` does
    not count. The domains go through the model one by one. Published as ``0.05 * afn()``, on some data with
    ``0.1 * entropy_minimization()``, and as ``0.05 * afn(radius=25)``. Logs `afn`, which for SAFN is always
    ``2 delta^2``, and what it is about: `source/feature_norm` and `target/feature_norm`, the mean lengths.

    Raises:
        LabelError: a `radius` or `delta` that is not above 0; features of another shape.

    Reference: Xu et al. 2019, arXiv:1811.07456.

    >>> print(0.05 * afn(delta=0.3), 0.05 * afn(radius=25))
    0.05 * afn(delta=0.3) 0.05 * afn(radius=25)
    """
    text = describe(afn, delta=delta, radius=radius, source=source, target=target)
    above_zero(text, **({"delta": delta} if radius is None else {"radius": radius}))

    def of_domain(features: Array, weight: Array) -> Array:
        if radius is not None:
            return hard_feature_norm(features, weight, radius=radius)
        return adaptive_feature_norm(features, weight, delta=delta)

    def value(scene: Scene) -> tuple[Array, Metrics]:
        losses, metrics = [], {}
        for stream in (source, target):
            name = name_of(scene, stream, text)
            features, weight = scene.outputs[name].features, scene.batches[name].weight
            losses.append(of_domain(features, weight))
            metrics[f"{stream}/feature_norm"] = weighted_mean(feature_norms(features), weight)
        loss = added(*losses)
        return loss, {"afn": loss, **metrics}

    return stateless(value, text, source, target)
