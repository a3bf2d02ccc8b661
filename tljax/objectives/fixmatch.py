"""FixMatch: what the model is sure of on a weak view of an example is the label of a strong one."""

import jax
import jax.numpy as jnp

from tljax.objectives.classification import cross_entropy_losses
from tljax.objectives.describe import describe
from tljax.objectives.mean import weighted_mean, widened
from tljax.objectives.stream import LabelError, name_of
from tljax.objectives.term import Metrics, Scene, Term, stateless
from tljax.types import Array


def confident(logits: Array, *, threshold: float = 0.95) -> Array:
    """Whether the largest probability of each row exceeds `threshold`, `[B]` bool. The paper has >=, TLlib >.

    >>> import jax.numpy as jnp
    >>> print(confident(jnp.array([[9.0, 0.0], [0.1, 0.0]])))
    [ True False]
    """
    return jnp.max(jax.nn.softmax(widened(logits)), axis=-1) > threshold


def pseudo_label_losses(logits: Array, guide: Array, *, threshold: float = 0.95) -> Array:
    """The cross-entropy of `logits` with the class that `guide` names, where it is sure of it, and 0 elsewhere; `[B]`.

    Args:
        logits: `[B, C]`, of the strong view.
        guide: `[B, C]`, of the weak view; no gradient flows to it. ``guide=logits`` makes it pseudo-labelling.
        threshold: how probable the class must be.

    Raises:
        LabelError: shapes that differ.

    Reference: Sohn et al. 2020, arXiv:2001.07685.

    >>> import jax.numpy as jnp
    >>> guide = jnp.array([[9.0, 0.0], [0.1, 0.0]])
    >>> print(pseudo_label_losses(jnp.zeros((2, 2)), guide).round(4))
    [0.6931 0.    ]
    """
    if jnp.shape(logits) != jnp.shape(guide) or jnp.ndim(logits) != 2:
        raise LabelError(
            f"pseudo-labels need two times logits [B, C]; found {list(jnp.shape(logits))} and {list(jnp.shape(guide))}"
        )
    losses = cross_entropy_losses(logits, jnp.argmax(guide, axis=-1))
    return jnp.where(confident(guide, threshold=threshold), losses, 0)


def fixmatch(*, threshold: float = 0.95, weak: str = "weak", strong: str = "strong") -> Term:
    """FixMatch: the mean over the whole batch of `pseudo_label_losses` of `strong`, guided by `weak`.

    The two streams show the same examples, differently augmented (``fit(views=..., augment=...)``). Both pass through
    the model as it trains. For domain adaptation TLlib takes ``threshold=0.9`` and views of the target. Logs
    `fixmatch`, and `fixmatch/confident`, the share of the examples that count.

    Raises:
        LabelError: `threshold` outside 0..1.

    Reference: Sohn et al. 2020, arXiv:2001.07685.

    >>> print(fixmatch(threshold=0.9))
    fixmatch(threshold=0.9)
    """
    if not 0 <= threshold < 1:
        raise LabelError(f"fixmatch: threshold={threshold}; expected a probability from 0 to below 1")
    text = describe(fixmatch, threshold=threshold, weak=weak, strong=strong)

    def value(scene: Scene) -> tuple[Array, Metrics]:
        names = [name_of(scene, stream, text) for stream in (strong, weak)]
        logits, guide = (scene.outputs[name].logits for name in names)
        weight = scene.batches[names[0]].weight
        loss = weighted_mean(pseudo_label_losses(logits, guide, threshold=threshold), weight)
        sure = confident(guide, threshold=threshold).astype(loss.dtype)
        return loss, {"fixmatch": loss, "fixmatch/confident": weighted_mean(sure, weight)}

    return stateless(value, text, *dict.fromkeys((strong, weak)), views=(strong, weak))
