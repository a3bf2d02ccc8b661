"""The risk in each of several labelled domains, for methods that generalise beyond them."""

from collections.abc import Sequence

import jax.numpy as jnp

from tljax.objectives.classification import cross_entropy_losses
from tljax.objectives.domains import DomainError
from tljax.objectives.mean import weighted_mean
from tljax.objectives.stream import labelled
from tljax.objectives.term import Metrics, Scene
from tljax.types import Array


def domain_names(streams: Sequence[str], term: str) -> tuple[str, ...]:
    """`streams` as a tuple; raises `DomainError` for fewer than two names, or one that stands there twice.

    >>> domain_names(["art", "photo"], "vrex")
    ('art', 'photo')
    """
    names = (streams,) if isinstance(streams, str) else tuple(streams)
    if len(names) < 2 or len(set(names)) < len(names):
        raise DomainError(
            f"{term} compares domains: give it the names of two labelled streams or more, "
            f'as {term}(("art", "photo")); found {streams!r}'
        )
    return names


def risks_of(scene: Scene, streams: Sequence[str], term: str) -> tuple[Array, Metrics]:
    """The mean cross-entropy in each domain, `[D]`, and as metrics by name.

    >>> from tljax.objectives import Scene
    >>> from tljax.types import Batch, Output
    >>> out, batch = Output(jnp.zeros((2, 4)), jnp.zeros((2, 1))), Batch(None, jnp.array([0, 3]))
    >>> risks_of(Scene({"art": out}, {"art": batch}, {}, None, 0, None), ["art"], "vrex")[0].round(4).tolist()
    [1.386...]
    """
    metrics = {}
    for stream in streams:
        logits, batch = labelled(scene, stream, term)
        losses = cross_entropy_losses(logits, jnp.asarray(batch.y))
        metrics[f"{stream}/cross_entropy"] = weighted_mean(losses, batch.weight)
    return jnp.stack(list(metrics.values())), metrics


def annealed(penalty: float, anneal: int, step: Array, dtype: jnp.dtype) -> Array:
    """1 before step `anneal`, `penalty` from then on.

    >>> [annealed(10.0, 500, jnp.int32(t), jnp.float32).item() for t in (499, 500)]
    [1.0, 10.0]
    """
    return jnp.where(step < anneal, jnp.ones((), dtype), jnp.asarray(penalty, dtype))
