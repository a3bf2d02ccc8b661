"""MCD: two heads look for target examples that they class differently; the features learn to leave them none."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tljax.objectives.checks import fitting, not_below_zero
from tljax.objectives.classification import cross_entropy_losses
from tljax.objectives.describe import describe
from tljax.objectives.discriminator import domains_of
from tljax.objectives.mean import weighted_mean, widened
from tljax.objectives.network import Network, network, torch_dense
from tljax.objectives.parameters import with_adapters
from tljax.objectives.phase import Phase
from tljax.objectives.stream import labelled, output_of
from tljax.objectives.term import Metrics, Owned, Scene, Term
from tljax.types import Array, Key, Model


class DeepHead(nn.Module):
    """The head of MCD's authors, to `[B, outputs]`: Dropout, Dense, BatchNorm, ReLU, twice, then Dense.

    Layers begin as torch's. For a model that has the same head as its own, give its module such a part called `head`.

    >>> import jax, jax.numpy as jnp
    >>> DeepHead(3, hidden=8).init_with_output(jax.random.key(0), jnp.ones((4, 2)))[0].shape
    (4, 3)
    """

    outputs: int
    hidden: int = 1024
    dropout: float = 0.5

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        x = widened(x)
        for i in range(2):
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = torch_dense(x, self.hidden, f"dense_{i}")
            x = nn.relu(nn.BatchNorm(not train, momentum=0.9, param_dtype=x.dtype, name=f"norm_{i}")(x))
        return torch_dense(x, self.outputs, "logits")


class _DenseHead(nn.Module):
    outputs: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return torch_dense(widened(x), self.outputs, "logits")


def classifier_discrepancy(first: Array, second: Array, weight: Array | None = None) -> Array:
    """How far two heads are apart: the mean of ``|p_1 - p_2|`` over examples and classes, p the softmax.

    Args:
        first: logits `[B, C]` of one head.
        second: `[B, C]` of the other.
        weight: of the examples, `[B]`, 0 for padding.

    Raises:
        LabelError: logits of other shapes.

    Reference: Saito et al. 2018, arXiv:1712.02560.

    >>> import jax.numpy as jnp
    >>> print(classifier_discrepancy(jnp.array([[9e9, 0.0]]), jnp.array([[0.0, 9e9]])))
    1.0
    """
    fitting("classifier_discrepancy", first=(first, "B C"), second=(second, "B C"))
    p, q = jax.nn.softmax(widened(first)), jax.nn.softmax(widened(second))
    return weighted_mean(jnp.mean(jnp.abs(p - q), axis=-1), weight)


def class_imbalance(logits: Array, weight: Array | None = None) -> Array:
    """How unevenly a batch is predicted: ``- mean_c log(mean_i p_ic + 1e-6)``, least, log C, where all classes are
    equally frequent.

    Args:
        logits: `[B, C]`; p is their softmax.
        weight: of the examples, `[B]`, 0 for padding.

    Raises:
        LabelError: logits of another shape.

    Reference: Saito et al. 2018, arXiv:1712.02560.

    >>> import jax.numpy as jnp
    >>> print(class_imbalance(jnp.zeros((3, 4))).round(4))
    1.3863
    """
    fitting("class_imbalance", logits=(logits, "B C"))
    frequencies = jax.vmap(weighted_mean, (1, None))(jax.nn.softmax(widened(logits)), weight)
    return -jnp.mean(jnp.log(frequencies + 1e-6))


def mcd(
    *,
    head: nn.Module | Model | None = None,
    weight: float = 1.0,
    balance: float = 0.01,
    repeat: int = 4,
    source: str = "source",
    target: str = "target",
) -> Term:
    """MCD: a second head beside the model's own, and three phases a step. Add it to `cross_entropy()`.

    With d the `classifier_discrepancy` of the two heads on the target, and E the sum of their `class_imbalance` there:

    1. "all": everything lowers ``CE_1 + CE_2 + balance E``, the cross-entropies of both heads on the source.
    2. "heads": the heads alone lower ``CE_1 + CE_2 + balance E - weight d``.
    3. "backbone", `repeat` times: the backbone alone lowers ``weight d``.

    CE_1 is the cross-entropy term beside this one, and the model predicts with its own head. Both domains go through
    the model as one batch. Logs `mcd`, `mcd_discrepancy`, and the values of the later phases, `mcd_heads` and
    `mcd_backbone`. A factor before the term scales CE_2 too; `weight` is what balances.

    Args:
        head: the second head, a Flax module or a model from features `[B, D]` to logits `[B, C]`. By default one
            dense layer, which is the head of every model in the catalogue: where the two differ in kind, they differ
            in what they predict for other reasons than the domain. For a model with a wider head give its like; that
            of the authors is ``DeepHead(C)``.
        weight: of d, which is a mean over classes: the published weights grow with their number, 1 for ten (0.3 on
            digits), 10 for 31, 120 for 345.
        balance: of E; 0.03 on digits.
        repeat: how often the last phase runs.
        source: the stream of the labelled domain.
        target: the stream of the other.

    Raises:
        LabelError: a `weight` or `balance` below 0.
        NetworkError: the head is no network, or gives something other than `[B, C]`.
        PhaseError: `repeat` is no whole number, or below 1.
        StreamError: the step has no such streams, or the source no labels.

    Reference: Saito et al. 2018, arXiv:1712.02560.

    >>> from tljax.objectives import cross_entropy
    >>> print(cross_entropy() + mcd(weight=0.3, balance=0.03))
    cross_entropy() + mcd(weight=0.3, balance=0.03)
    """
    text = describe(mcd, head=head, weight=weight, balance=balance, repeat=repeat, source=source, target=target)
    not_below_zero(text, weight=weight, balance=balance)

    @functools.cache
    def second(outputs: int) -> Network:
        return network(head, _DenseHead(outputs), f"the head of {text}")

    def init(key: Key, scene: Scene) -> Owned:
        output = output_of(scene, source, text)
        return second(output.logits.shape[1]).init(key, output.features)

    def apply(owned: Owned, scene: Scene) -> tuple[Array, Any, Metrics]:
        (own, other), weights = domains_of(scene, source, target, text)
        classes, split = own.logits.shape[1], own.logits.shape[0]
        both = jnp.concatenate([own.features, other.features])
        logits, state = second(classes).run(owned, both, classes, key=scene.key)
        apart = classifier_discrepancy(other.logits, logits[split:], weights[1])
        if scene.phase == "backbone":
            return weight * apart, state, {"mcd_backbone": weight * apart}
        losses = cross_entropy_losses(logits[:split], labelled(scene, source, text)[1].y)
        uneven = class_imbalance(other.logits, weights[1]) + class_imbalance(logits[split:], weights[1])
        value = weighted_mean(losses, weights[0]) + balance * uneven
        if scene.phase == "heads":
            value = value - weight * apart
            return value, state, {"mcd_heads": value}
        return value, state, {"mcd": value, "mcd_discrepancy": apart}

    phases = (
        Phase("all"),
        Phase("heads", learns=with_adapters("head/**")),
        Phase("backbone", learns=with_adapters("backbone/**"), owned=False, repeat=repeat, others=False),
    )
    return Term(apply, init, text, (source, target), joint=(source, target), phases=phases)
