"""The network that tells domains apart, and how well it does. All adversarial methods have these in common."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tljax.objectives.checks import fitting
from tljax.objectives.mean import weighted_mean, widened
from tljax.objectives.network import Network, network, torch_dense
from tljax.objectives.stream import name_of
from tljax.objectives.term import Metrics, Owned, Scene
from tljax.types import Array, Key, Model, Output

Domains = tuple[Array, Array]
"""The same of the source `[N, ...]` and of the target `[M, ...]`."""


class Discriminator(nn.Module):
    """Two hidden layers and one logit a row `[B, 1]`, above 0 for the source.

    Dense, BatchNorm, ReLU, twice, then Dense; without `batch_norm` Dense, ReLU, Dropout. Layers begin as torch's.

    >>> import jax, jax.numpy as jnp
    >>> Discriminator(hidden=8).init_with_output(jax.random.key(0), jnp.ones((4, 3)))[0].shape
    (4, 1)
    """

    hidden: int = 1024
    batch_norm: bool = True
    dropout: float = 0.5
    """The rate, where there is no batch normalisation."""

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        x = widened(x)
        for i in range(2):
            x = torch_dense(x, self.hidden, f"dense_{i}")
            if self.batch_norm:
                norm = nn.BatchNorm(not train, momentum=0.9, param_dtype=x.dtype, name=f"norm_{i}")
                x = nn.relu(norm(x))
            else:
                x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
        return torch_dense(x, 1, "logit")


def discriminator_of(given: nn.Module | Model | None, term: str) -> Network:
    """The discriminator of the term `term`."""
    return network(given, Discriminator(), f"the discriminator of {term}")


def domains_of(scene: Scene, source: str, target: str, term: str) -> tuple[tuple[Output, Output], tuple[Any, Any]]:
    """The outputs for source and target, and the weights of their examples."""
    names = name_of(scene, source, term), name_of(scene, target, term)
    weights = scene.batches[names[0]].weight, scene.batches[names[1]].weight
    return (scene.outputs[names[0]], scene.outputs[names[1]]), weights


def tell_apart(told: Network, owned: Owned, inputs: Domains, *, key: Key, train: bool = True) -> tuple[Domains, Any]:
    """The logits `[N]` and `[M]` for the inputs of two domains, which pass as one batch, and the next state."""
    logits, state = told.run(owned, jnp.concatenate(inputs), 1, key=key, train=train)
    split = inputs[0].shape[0]
    return (logits[:split, 0], logits[split:, 0]), state


def joined_weight(logits: Domains, weights: tuple[Any, Any]) -> Array | None:
    """The weights `[N + M]` of the examples of both domains; None where neither has any.

    >>> import jax.numpy as jnp
    >>> print(joined_weight((jnp.zeros(2), jnp.zeros(1)), (None, jnp.zeros(1))))
    [1. 1. 0.]
    """
    if weights[0] is None and weights[1] is None:
        return None
    ones = [jnp.ones_like(d) if w is None else jnp.asarray(w, d.dtype) for d, w in zip(logits, weights)]
    return jnp.concatenate(ones)


def domain_losses(source: Array, target: Array) -> Domains:
    """Cross-entropy per example of logits `[N]`, `[M]`, which should be above 0 for the source.

    >>> import jax.numpy as jnp
    >>> [round(x.item(), 4) for x in domain_losses(jnp.zeros(1), jnp.ones(1))]
    [0.6931, 1.3133]
    """
    fitting("a loss of domains", source=(source, "N"), target=(target, "M"))
    return jax.nn.softplus(-widened(source)), jax.nn.softplus(widened(target))


def domain_accuracy(logits: Domains, weights: tuple[Any, Any]) -> Array:
    """The mean over both domains of the share of examples that are told right; 1/2 is what the game aims at.

    >>> import jax.numpy as jnp
    >>> print(domain_accuracy((jnp.array([1.0, 2.0]), jnp.array([-1.0, 2.0])), (None, None)))
    0.75
    """
    right = [(logits[0] > 0).astype(logits[0].dtype), (logits[1] < 0).astype(logits[1].dtype)]
    return 0.5 * (weighted_mean(right[0], weights[0]) + weighted_mean(right[1], weights[1]))


def adversarial_metrics(name: str, value: Array, logits: Domains, weights: tuple[Any, Any]) -> Metrics:
    """What adversarial terms log: their value, and `domain_accuracy`."""
    return {name: value, "domain_accuracy": domain_accuracy(logits, weights)}
